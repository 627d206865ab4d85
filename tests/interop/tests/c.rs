//! libbpf in C: a program that opens, fills, pins and reuses our pins, and C functions that pass maps as int.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::types::ProgType;
use bpf_pin::{LinkSpec, Map, PinDir, PinnedLink, PinnedMap, PinnedProg, Prog};
use common::*;
use peers::{
    CLIENT, CLIENT_OF_LIBBPF_RS, Counter, LIBBPF, LIBBPF_PATH_FD, LIBBPF_RS, Maps, count_of,
    counter, counting, file, mounted, output, send_packets,
};

#[cfg(libbpf)]
#[path = "c/ffi.rs"]
mod ffi;

#[cfg(not(libbpf))]
mod ffi {
    peers::skipped! { c_calls rust_calls c_gives looked_at }
}

fn main() -> std::process::ExitCode {
    const OURS: &[Need] = &[cap::SYS_ADMIN, LIBBPF];
    const PATH_FD: &[Need] = &[cap::SYS_ADMIN, kernel(6, 5), LIBBPF, LIBBPF_PATH_FD];
    const BUNDLED_PATH_FD: &[Need] = &[cap::SYS_ADMIN, kernel(6, 5), LIBBPF_RS];
    const BUNDLED: &[Need] = &[cap::SYS_ADMIN, LIBBPF_RS];
    const FFI: &[Need] = &[cap::BPF, Need::Bpffs, LIBBPF];
    Suite::new()
        .test("each_reads_what_the_other_wrote", OURS, || entries(CLIENT))
        .test(
            "each_reads_what_the_other_wrote_libbpf_1_7",
            BUNDLED,
            || entries(CLIENT_OF_LIBBPF_RS),
        )
        .test("each_opens_the_others_objects_by_id", OURS, || {
            by_id(CLIENT)
        })
        .test(
            "each_opens_the_others_objects_by_id_libbpf_1_7",
            BUNDLED,
            || by_id(CLIENT_OF_LIBBPF_RS),
        )
        .test("libbpf_pins_relative_to_a_directory", PATH_FD, || {
            path_fd(CLIENT)
        })
        .test(
            "libbpf_pins_relative_to_a_directory_libbpf_1_7",
            BUNDLED_PATH_FD,
            || path_fd(CLIENT_OF_LIBBPF_RS),
        )
        .test("libbpf_runs_our_program", OURS, || program(CLIENT))
        .test("libbpf_shares_maps_pinned_by_name", OURS, || {
            pinned_by_name(CLIENT)
        })
        .test(
            "libbpf_shares_maps_pinned_by_name_libbpf_1_7",
            BUNDLED,
            || pinned_by_name(CLIENT_OF_LIBBPF_RS),
        )
        .test("libbpf_reuses_our_pin", OURS, || reused(CLIENT))
        .test("libbpf_reuses_our_pin_libbpf_1_7", BUNDLED, || {
            reused(CLIENT_OF_LIBBPF_RS)
        })
        .test("libbpf_rejects_a_pin_that_does_not_fit", OURS, || {
            does_not_fit(CLIENT)
        })
        .test(
            "libbpf_rejects_a_pin_that_does_not_fit_libbpf_1_7",
            BUNDLED,
            || does_not_fit(CLIENT_OF_LIBBPF_RS),
        )
        .test(
            "each_opens_the_others_link",
            &[cap::SYS_ADMIN, cap::NET_ADMIN, LIBBPF],
            || links(CLIENT),
        )
        .test("c_opens_a_map_through_rust", FFI, ffi::c_calls)
        .test("rust_takes_a_map_from_c", FFI, ffi::rust_calls)
        .test("c_passes_a_map_to_rust", FFI, ffi::c_gives)
        .test(
            "a_descriptor_from_c_is_proven_before_use",
            FFI,
            ffi::looked_at,
        )
        .run()
}

/// Returns the client's output.
fn say(client: &str, args: &[&dyn AsRef<OsStr>]) -> std::io::Result<String> {
    let mut command = command(client);
    command.args(args.iter().map(|arg| arg.as_ref()));
    output(&mut command).map(|said| said.trim_end().to_owned())
}

/// Runs a client that fails, and returns its status and its output.
fn complain(client: &str, args: &[&dyn AsRef<OsStr>]) -> String {
    let said = say(client, args);
    said.expect_err("it should fail").to_string()
}

const OBJECT: Counter<'_> = Counter {
    section: "xdp",
    prog: "count",
    map: "packets",
    maps: Maps::Btf,
    returns: 2,
};

fn entries(client: &'static str) -> Outcome {
    mounted(|root| {
        let ours = hash().pin(root.join("ours"))?;
        ours.elements::<u32, u64>()?
            .update(&7_u32, &49_u64, ElemFlags::ANY)?;
        let id = ours.id()?;
        assert_eq!(
            say(client, &[&"get", &ours.path(), &"7"])?,
            format!("map {id}: 49")
        );
        assert_eq!(
            say(client, &[&"put", &ours.path(), &"8", &"64"])?,
            format!("map {id}")
        );
        assert_eq!(ours.elements::<u32, u64>()?.lookup(&8)?, Some(64));

        let path = root.join("theirs");
        let said = say(client, &[&"make", &path, &"9", &"81"])?;
        let theirs = PinnedMap::open(&path)?;
        let info = theirs.info()?;
        assert_eq!(said, format!("map {}", info.id));
        assert_eq!(info.name.to_string(), "of_c");
        assert_eq!(theirs.elements::<u32, u64>()?.lookup(&9)?, Some(81));
        // Its process has exited, so only the pin holds it.
        let map = theirs.unpin()?;
        assert_eq!(map.elements::<u32, u64>()?.lookup(&9)?, Some(81));
        assert!(complain(client, &[&"get", &path, &"9"]).contains("No such file"));
        Ok(())
    })
}

/// Objects without a pin are opened by id.
fn by_id(client: &'static str) -> Outcome {
    let ours = hash();
    ours.elements::<u32, u64>()?
        .update(&20_u32, &21_u64, ElemFlags::ANY)?;
    let id = ours.id()?.to_string();
    let said = say(client, &[&"map_by_id", &id, &"20"])?;
    assert_eq!(said, format!("map {id}"));
    assert_eq!(ours.elements::<u32, u64>()?.lookup(&21)?, Some(42));

    let map = counter()?;
    let prog = counting(&map, ProgType::SOCKET_FILTER, 19)?;
    let id = prog.id()?.to_string();
    assert_eq!(say(client, &[&"run_by_id", &id])?, "returned 19");
    assert_eq!(count_of(&map)?, 1);

    // Their map, while its process runs.
    let mut theirs = command(client)
        .args(["hold", "30", "31"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(theirs.stdout.take().ok_or("a pipe")?).lines();
    let id = said.next().ok_or("no output")??;
    let map = Map::from_id(id.trim_start_matches("map ").parse()?)?;
    let typed = map.elements::<u32, u64>()?;
    assert_eq!(typed.lookup(&30)?, Some(31));
    typed.update(&31, &62, ElemFlags::ANY)?;
    drop(theirs.stdin.take());
    assert_eq!(said.next().ok_or("no more output")??, "62");
    assert!(theirs.wait()?.success());
    Ok(())
}

/// By BPF_F_PATH_FD: the directory is a descriptor in the client, as in a PinDir.
fn path_fd(client: &'static str) -> Outcome {
    mounted(|root| {
        let dir = PinDir::create(root.join("app"), 0o700)?;
        let map = hash();
        map.elements::<u32, u64>()?
            .update(&1_u32, &11_u64, ElemFlags::ANY)?;
        dir.pin(&map, "ours")?;
        let args: [&dyn AsRef<OsStr>; 4] = [&"pin_at", &dir.path(), &"ours", &"theirs"];
        assert_eq!(say(client, &args)?, format!("map {}", map.id()?));
        assert_eq!(dir.identity("theirs")?, map.identity()?);
        drop(map);
        dir.unlink("ours")?;
        let map: Map = dir.get("theirs")?;
        assert_eq!(map.elements::<u32, u64>()?.lookup(&1)?, Some(11));
        assert!(complain(client, &args).contains("No such file"));
        Ok(())
    })
}

fn program(client: &'static str) -> Outcome {
    mounted(|root| {
        let map = counter()?;
        let prog = counting(&map, ProgType::SOCKET_FILTER, 17)?;
        let prog = prog.pin(root.join("prog"))?;
        assert_eq!(say(client, &[&"run", &prog.path()])?, "returned 17");
        assert_eq!(count_of(&map)?, 1);
        // A program's pin is not a map.
        assert!(complain(client, &[&"put", &prog.path(), &"0", &"1"]).contains("Invalid argument"));
        Ok(())
    })
}

fn pinned_by_name(client: &'static str) -> Outcome {
    mounted(|root| {
        let object = file(&Counter {
            maps: Maps::BtfPinned,
            ..OBJECT
        })?;
        let shared = root.join("shared");
        let args: [&dyn AsRef<OsStr>; 4] = [&"load", &object.path(), &"packets", &shared];
        // libbpf makes the directory and the pin, and then finds them.
        let said = say(client, &args)?;
        assert_eq!(say(client, &args)?, said);
        let map = PinnedMap::open(shared.join("packets"))?;
        assert_eq!(format!("map {}", map.id()?), said);
        assert_eq!(count_of(&map)?, 2);
        // It also finds what we have pinned in its place: without a gap.
        let dir = PinDir::open(&shared)?;
        let ours = counter()?;
        ours.elements::<u32, u64>()?
            .update(&0_u32, &40_u64, ElemFlags::ANY)?;
        dir.replace(&ours, "packets")?;
        assert_eq!(say(client, &args)?, format!("map {}", ours.id()?));
        assert_eq!(count_of(&ours)?, 41);
        assert_eq!(count_of(&map)?, 2);
        Ok(())
    })
}

fn reused(client: &'static str) -> Outcome {
    mounted(|root| {
        let object = file(&OBJECT)?;
        let ours = counter()?.pin(root.join("ours"))?;
        let id = format!("map {}", ours.id()?);
        for (command, count) in [("set_pin_path", 1), ("reuse_fd", 2)] {
            let args: [&dyn AsRef<OsStr>; 4] = [&command, &object.path(), &"packets", &ours.path()];
            assert_eq!(say(client, &args)?, id);
            assert_eq!(count_of(&ours)?, count);
        }
        Ok(())
    })
}

/// libbpf compares a pinned map with the definition when it loads the object. It does not compare a map from a
/// descriptor.
fn does_not_fit(client: &'static str) -> Outcome {
    mounted(|root| {
        let object = file(&OBJECT)?;
        let by_name = file(&Counter {
            maps: Maps::BtfPinned,
            ..OBJECT
        })?;
        let ours = hash().pin(root.join("packets"))?;
        ours.elements::<u32, u64>()?
            .update(&1_u32, &11_u64, ElemFlags::ANY)?;
        let id = ours.id()?;
        let by_path: [&dyn AsRef<OsStr>; 4] =
            [&"set_pin_path", &object.path(), &"packets", &ours.path()];
        let by_name: [&dyn AsRef<OsStr>; 4] = [&"load", &by_name.path(), &"packets", &root];
        for args in [by_path, by_name] {
            let said = complain(client, &args);
            assert!(said.contains("parameter mismatch"), "{said}");
            assert!(
                said.contains("bpf_object__load: Invalid argument"),
                "{said}"
            );
            let still = PinnedMap::open(root.join("packets"))?;
            assert_eq!(still.id()?, id);
            assert_eq!(still.elements::<u32, u64>()?.lookup(&1)?, Some(11));
        }
        let args: [&dyn AsRef<OsStr>; 4] = [&"reuse_fd", &object.path(), &"packets", &ours.path()];
        assert_eq!(say(client, &args)?, format!("map {id}"));
        // Nothing was counted, for this map has no element 0.
        assert_eq!(ours.elements::<u32, u64>()?.lookup(&0)?, None);
        // A program's pin is not a map.
        let prog = prog().pin(root.join("prog"))?;
        let args: [&dyn AsRef<OsStr>; 4] =
            [&"set_pin_path", &object.path(), &"packets", &prog.path()];
        complain(client, &args);
        assert_eq!(Prog::open(root.join("prog"))?.id()?, prog.id()?);
        Ok(())
    })
}

fn links(client: &'static str) -> Outcome {
    mounted(|root| {
        in_network_namespace(|| {
            // Their link, pinned by a process that has exited, still runs the program.
            let object = file(&OBJECT)?;
            let args: [&dyn AsRef<OsStr>; 5] = [&"attach", &object.path(), &"packets", &"1", &root];
            let said = say(client, &args)?;
            let link = PinnedLink::open(root.join("link"))?;
            let prog = PinnedProg::open(root.join("prog"))?;
            let info = link.info()?;
            assert_eq!(info.prog_id, prog.id()?);
            let map = Map::from_id(said.trim_start_matches("map ").parse()?)?;
            // The client ran the program once.
            assert_eq!(count_of(&map)?, 1);
            send_packets(5)?;
            assert_eq!(count_of(&map)?, 6);
            let said = format!("link {} of program {}", info.id, info.prog_id);
            assert_eq!(say(client, &[&"link", &root.join("link")])?, said);
            link.unpin()?.detach()?;
            send_packets(5)?;
            assert_eq!(count_of(&map)?, 6);

            // Ours.
            let link = LinkSpec::xdp(LOOPBACK)
                .create(&prog)?
                .pin(root.join("ours"))?;
            let said = format!("link {} of program {}", link.id()?, prog.id()?);
            drop(link);
            assert_eq!(say(client, &[&"link", &root.join("ours")])?, said);
            // libbpf has closed the link without detaching it.
            send_packets(5)?;
            assert_eq!(count_of(&map)?, 11);
            let error = PinnedMap::open(root.join("ours")).expect_err("a link's pin");
            let cause = error.cause();
            assert!(matches!(cause, Some(Cause::WrongKind { .. })), "{cause:?}");
            PinnedLink::open(root.join("ours"))?.unpin()?;
            Ok(())
        })
    })
}
