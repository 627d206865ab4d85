//! Delegation to a user namespace, from the socket to the map, and its failures.

mod child;
mod failures;
mod handshake;
mod messages;
mod owner;
mod usage;

use std::process::ExitCode;

use bpf_pin::MapType;
use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::Operation;
use bpf_pin::types::{AttachType, Command, ProgType};
use common::*;

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if child::run_child() {
        return Some(ExitCode::SUCCESS);
    }
    None
}

const ROOT: &[Need] = &[cap::SYS_ADMIN];
/// Needed for a user namespace with its own bpffs and a token.
const TOKENS: &[Need] = &[cap::SYS_ADMIN, kernel(6, 9)];

/// Delegates LRU hashes, which require CAP_BPF, and XDP programs.
fn delegating_options() -> MountOptions {
    MountOptions::new()
        .delegate_cmds([Command::MAP_CREATE, Command::PROG_LOAD])
        .delegate_maps([MapType::LRU_HASH, MapType::ARRAY])
        .delegate_progs([ProgType::XDP, ProgType::SOCKET_FILTER])
        .delegate_attachs([AttachType(0), AttachType::XDP])
}
