//! A process in a user and mount namespace of its own, connected to the test by a socket.

use std::env;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use bpf_pin::bpffs::MountOptions;
use bpf_pin::{Bpffs, Result};
use common::*;
use rustix::mount::{MountFlags, mount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const CHILD: &str = "BPF_PIN_TEST_TOKEN";

/// The functions that run in such a process.
const CHILDREN: &[(&str, fn())] = &[
    ("delegated", crate::token::usage::delegated),
    ("delegated_btf", crate::token::usage::delegated_btf),
    (
        "without_capabilities",
        crate::token::usage::without_capabilities,
    ),
    ("standard_input", crate::token::usage::as_standard_input),
    (
        "too_old_for_delegation",
        crate::token::handshake::too_old_for_delegation,
    ),
    (
        "request_without_answer",
        crate::token::messages::request_without_answer,
    ),
    (
        "request_without_delegation",
        crate::token::failures::request_without_delegation,
    ),
    (
        "use_foreign_bpffs",
        crate::token::failures::use_foreign_bpffs,
    ),
    (
        "grant_without_cap_bpf",
        crate::token::failures::grant_without_cap_bpf,
    ),
    ("unmapped", crate::token::owner::with_one_user),
    ("granting", crate::token::handshake::grant_in_user_namespace),
];

/// Runs the function that the environment names, if any.
pub fn run_child() -> bool {
    let Some(name) = env::var_os(CHILD) else {
        return false;
    };
    let child = CHILDREN.iter().find(|(child, _)| name == *child);
    let run = child.expect("a child of that name").1;
    // SAFETY: no FILES, and this is the only thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }
        .expect("a user namespace");
    fs::write("/proc/self/setgroups", "deny").expect("no setgroups");
    fs::write("/proc/self/uid_map", "0 0 1").expect("a user");
    fs::write("/proc/self/gid_map", "0 0 1").expect("a group");
    run();
    true
}

/// Runs one of the functions above with a socket as standard input, and `other` at the other end.
pub fn run(name: &str, other: impl FnOnce(UnixStream) -> Outcome + Send) -> Outcome {
    let (here, there) = UnixStream::pair()?;
    let child = common::command(env::current_exe()?)
        .env(CHILD, name)
        .stdin(Stdio::from(OwnedFd::from(there)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    thread::scope(|scope| {
        let other = scope.spawn(move || other(here).map_err(|error| error.to_string()));
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{name}: {}\n{stderr}", output.status).into());
        }
        match other.join() {
            Ok(outcome) => Ok(outcome?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The socket to the test.
pub fn socket() -> OwnedFd {
    std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .expect("a socket")
}

/// A directory in a tmpfs of this process.
pub fn mount_point() -> std::path::PathBuf {
    mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
    let mount_point = Path::new("/tmp/bpffs").to_owned();
    fs::create_dir(&mount_point).expect("a directory");
    mount_point
}

/// Requests a bpffs from the other end and mounts it.
pub fn granted(options: &MountOptions) -> Result<Bpffs> {
    let detached = options.request_delegation(socket())?;
    Ok(detached.attach(mount_point())?)
}
