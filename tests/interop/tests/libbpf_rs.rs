//! libbpf-rs: maps, programs and links cross by descriptor, by id and by pin, in both directions.

use common::*;
use peers::LIBBPF_RS;

#[cfg(feature = "libbpf-rs")]
#[path = "libbpf_rs/scenes.rs"]
mod scenes;

#[cfg(not(feature = "libbpf-rs"))]
mod scenes {
    peers::skipped! {
        map_by_fd map_by_id prog_by_id map_pins loaded prog_pins pinned_by_name reuse_pinned
        path_fd link_of_libbpf link_of_ours
    }
}

fn main() -> std::process::ExitCode {
    const BPF: &[Need] = &[cap::BPF, Need::Bpffs, LIBBPF_RS];
    const IDS: &[Need] = &[cap::SYS_ADMIN, LIBBPF_RS];
    const PATH_FD: &[Need] = &[cap::SYS_ADMIN, kernel(6, 5), LIBBPF_RS];
    const NET: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, LIBBPF_RS];
    Suite::new()
        .test("a_map_passes_to_libbpf_and_back", BPF, scenes::map_by_fd)
        .test("each_opens_the_others_map_by_id", IDS, scenes::map_by_id)
        .test(
            "each_opens_the_others_program_by_id",
            IDS,
            scenes::prog_by_id,
        )
        .test("each_opens_the_others_pinned_map", BPF, scenes::map_pins)
        .test("a_program_that_libbpf_loads_is_pinned", BPF, scenes::loaded)
        .test(
            "each_opens_the_others_pinned_program",
            BPF,
            scenes::prog_pins,
        )
        .test(
            "libbpf_shares_maps_pinned_by_name",
            BPF,
            scenes::pinned_by_name,
        )
        .test("libbpf_reuses_our_pin", BPF, scenes::reuse_pinned)
        .test(
            "libbpf_pins_relative_to_a_directory",
            PATH_FD,
            scenes::path_fd,
        )
        .test("we_open_libbpfs_link", NET, || {
            in_network_namespace(scenes::link_of_libbpf)
        })
        .test("libbpf_opens_our_link", NET, || {
            in_network_namespace(scenes::link_of_ours)
        })
        .run()
}
