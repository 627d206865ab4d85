//! Delegation to a user namespace, from a socket to a map; and every way in which it is refused.

mod child;
mod handshake;
mod messages;
mod owner;
mod refused;
mod used;

use std::path::Path;
use std::process::ExitCode;

use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::types::{AttachType, Command, ProgType};
use bpf_pin::{Error, MapType};
use common::*;

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if child::was_asked_for() {
        return Some(ExitCode::SUCCESS);
    }
    None
}

const ROOT: &[Need] = &[cap::SYS_ADMIN];
/// What makes a user namespace with a bpffs of its own, and a token of it.
const TOKENS: &[Need] = &[cap::SYS_ADMIN, kernel(6, 9)];

/// What is delegated here: LRU hashes, which take CAP_BPF, and XDP programs.
fn some() -> MountOptions {
    MountOptions::new()
        .delegate_cmds([Command::MAP_CREATE, Command::PROG_LOAD])
        .delegate_maps([MapType::LRU_HASH, MapType::ARRAY])
        .delegate_progs([ProgType::XDP, ProgType::SOCKET_FILTER])
        .delegate_attachs([AttachType(0), AttachType::XDP])
}

#[track_caller]
fn assert_token_says(error: &Error, errno: Option<i32>, cause: Option<Cause>, because: &str) {
    assert_eq!(error.to_string(), format!("create a token: {because}"));
    assert_eq!(error.operation(), Operation::CreateToken);
    assert_eq!(error.raw_os_error(), errno, "{error}");
    assert_eq!(error.cause(), cause.as_ref(), "{error}");
}

#[track_caller]
fn assert_mount_says(
    error: &Error,
    operation: Operation,
    errno: Option<i32>,
    cause: Option<Cause>,
    because: &str,
) {
    assert!(
        error.to_string().ends_with(&format!(": {because}")),
        "{error}"
    );
    assert_eq!(error.operation(), operation);
    assert_eq!(error.path(), None::<&Path>);
    assert_eq!(error.raw_os_error(), errno, "{error}");
    assert_eq!(error.cause(), cause.as_ref(), "{error}");
}
