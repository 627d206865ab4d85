//! Delegation to a user namespace, from the socket to the map, and its failures.

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

#[track_caller]
fn assert_token_error(error: &Error, errno: Option<i32>, cause: Option<Cause>, sentence: &str) {
    assert_eq!(error.to_string(), format!("create a token: {sentence}"));
    assert_eq!(error.operation(), Operation::CreateToken);
    assert_eq!(error.raw_os_error(), errno, "{error}");
    assert_eq!(error.cause(), cause.as_ref(), "{error}");
}

#[track_caller]
fn assert_mount_error(
    error: &Error,
    operation: Operation,
    errno: Option<i32>,
    cause: Option<Cause>,
    sentence: &str,
) {
    assert!(
        error.to_string().ends_with(&format!(": {sentence}")),
        "{error}"
    );
    assert_eq!(error.operation(), operation);
    assert_eq!(error.path(), None::<&Path>);
    assert_eq!(error.raw_os_error(), errno, "{error}");
    assert_eq!(error.cause(), cause.as_ref(), "{error}");
}
