//! Dropping privileges.

use guest::phase::{UID, User, find};
use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

type Never = Result<Infallible, String>;

/// `PHASE PROGRAM ARGS`: takes the phase's privileges and executes the program.
pub fn become_program(mut args: impl Iterator<Item = OsString>) -> Never {
    let phase = args
        .next()
        .and_then(|name| find(name.to_str()?))
        .ok_or("no such phase")?;
    take(phase.user).map_err(|error| format!("{}: {error}", phase.name))?;
    exec(args)
}

fn take(user: User) -> rustix::io::Result<()> {
    if user == User::Root {
        return Ok(());
    }
    // Before Linux 5.11 maps and programs count against it, and tests run in parallel. A service manager raises it for
    // a service to which it gives CAP_BPF.
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    setrlimit(Resource::Memlock, unlimited)?;
    // This process has one thread, so calls that act on a thread act on the process.
    let (uid, gid) = (Uid::from_raw(UID), Gid::from_raw(UID));
    set_thread_groups(&[])?;
    set_keep_capabilities(user == User::CapBpf)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    if user == User::CapBpf {
        let bpf = CapabilitySet::BPF;
        set_capabilities(
            None,
            CapabilitySets {
                effective: bpf,
                permitted: bpf,
                inheritable: bpf,
            },
        )?;
        // Ambient, or execve would drop it.
        configure_capability_in_ambient_set(bpf, true)?;
    }
    Ok(())
}

/// `TTY PROGRAM ARGS`: starts a session with the console as its terminal, so that ^C and job control work.
pub fn take_console_and_become(mut args: impl Iterator<Item = OsString>) -> Never {
    let tty = Path::new("/dev").join(args.next().ok_or("no terminal")?);
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", tty.display());
    rustix::process::setsid().map_err(|error| at(&error))?;
    let console = File::options()
        .read(true)
        .write(true)
        .open(&tty)
        .map_err(|error| at(&error))?;
    rustix::process::ioctl_tiocsctty(&console).map_err(|error| at(&error))?;
    rustix::stdio::dup2_stdin(&console).map_err(|error| at(&error))?;
    rustix::stdio::dup2_stdout(&console).map_err(|error| at(&error))?;
    rustix::stdio::dup2_stderr(&console).map_err(|error| at(&error))?;
    exec(args)
}

fn exec(mut args: impl Iterator<Item = OsString>) -> Never {
    let program = args.next().ok_or("no program")?;
    let error = Command::new(&program).args(args).exec();
    Err(format!("{}: {error}", Path::new(&program).display()))
}
