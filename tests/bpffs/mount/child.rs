//! What takes a process of its own, with one thread or with another process 1.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

use common::*;
use rustix::thread::{UnshareFlags, unshare_unsafe};

const CHILD: &str = "BPF_PIN_TEST_MOUNT";

/// The functions that are run so.
const CHILDREN: &[(&str, fn())] = &[
    ("ensure", crate::mount::ensure::as_one_of_many),
    (
        "few_descriptors",
        crate::mount::old::limited_to_few_descriptors,
    ),
    ("user_namespace", crate::mount::refused::in_a_user_namespace),
    (
        "old_mount_namespace",
        crate::mount::refused::in_anothers_mounts,
    ),
];

/// Runs the one that the environment names, if any.
pub fn was_asked_for() -> bool {
    let Some(name) = env::var_os(CHILD) else {
        return false;
    };
    let child = CHILDREN.iter().find(|(child, _)| name == *child);
    child.expect("a child of that name").1();
    true
}

/// A command for one of the functions above, with an argument.
pub fn command(name: &str, argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
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
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}\n{words}", output.status).into());
    }
    Ok(())
}

/// Makes this process, which has one thread, root of a user namespace of its own.
pub fn become_root_of_a_user_namespace(others: UnshareFlags) {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    // SAFETY: no FILES, and there is no other thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | others) }.expect("a user namespace");
    fs::write("/proc/self/setgroups", "deny").expect("no setgroups");
    let map = |id: u32| format!("0 {id} 1");
    fs::write("/proc/self/uid_map", map(user.as_raw())).expect("a user");
    fs::write("/proc/self/gid_map", map(group.as_raw())).expect("a group");
}
