//! Tests that need a process of their own, with one thread or with another process 1.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

use common::*;
use rustix::thread::{UnshareFlags, unshare_unsafe};

const CHILD: &str = "BPF_PIN_TEST_MOUNT";

/// The functions that a child can run.
const CHILDREN: &[(&str, fn())] = &[
    ("ensure", crate::mount::ensure::ensure_in_child),
    (
        "few_descriptors",
        crate::mount::old_kernels::emfile_in_child,
    ),
    (
        "user_namespace",
        crate::mount::failures::in_a_user_namespace,
    ),
    (
        "old_mount_namespace",
        crate::mount::failures::in_foreign_mounts,
    ),
];

/// Runs the function that the environment names, and returns whether there was one.
pub fn run_if_requested() -> bool {
    let Some(name) = env::var_os(CHILD) else {
        return false;
    };
    let child = CHILDREN.iter().find(|(child, _)| name == *child);
    child.expect("a child of that name").1();
    true
}

/// A command that runs one of these functions with an argument.
pub fn command(name: &str, argument: &str) -> Command {
    let mut command = common::command(env::current_exe().expect("this program"));
    command
        .env(CHILD, name)
        .env("BPF_PIN_TEST_ARGUMENT", argument);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn argument() -> String {
    env::var("BPF_PIN_TEST_ARGUMENT").expect("an argument")
}

pub fn run(name: &str, argument: &str) -> Outcome {
    let output = command(name, argument).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}\n{stderr}", output.status).into());
    }
    Ok(())
}

/// Makes this process, which has one thread, the root user of a new user namespace.
pub fn become_root_of_a_user_namespace(others: UnshareFlags) {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    // SAFETY: without FILES the descriptors stay shared, and this is the only thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | others) }.expect("a user namespace");
    fs::write("/proc/self/setgroups", "deny").expect("no setgroups");
    let map = |id: u32| format!("0 {id} 1");
    fs::write("/proc/self/uid_map", map(user.as_raw())).expect("a user");
    fs::write("/proc/self/gid_map", map(group.as_raw())).expect("a group");
}
