//! The guest's init, a static program: mounts what the tests need, runs them, and powers off.
//!
//! Under another process id it drops privileges (`as`) or takes the console (`shell`), then executes the program that
//! its arguments name.

#![allow(clippy::disallowed_methods, reason = "not a test")]

mod jobs;
mod link;
mod mounts;
mod user;

use guest::plan::{self, Job, Plan};
use guest::wire::Record;
use link::Link;
use rustix::system::{RebootCommand, reboot, uname};

fn main() {
    let mut args = std::env::args_os().skip(1);
    if std::process::id() != 1 {
        let done = match args.next().as_deref().and_then(|word| word.to_str()) {
            Some("as") => user::become_program(args),
            Some("shell") => user::take_console_and_become(args),
            _ => Err("this is the init of a guest; cargo vm boots it".to_owned()),
        };
        let Err(why) = done;
        eprintln!("init: {why}");
        std::process::exit(127);
    }

    if let Err(why) = boot() {
        println!("init: {why}");
    }
    let off = reboot(RebootCommand::PowerOff);
    // Returning makes the kernel panic, which ends the guest too.
    println!("init: power off: {off:?}");
}

fn boot() -> Result<(), String> {
    mounts::mount_all()?;
    let text =
        std::fs::read_to_string(plan::PATH).map_err(|error| format!("{}: {error}", plan::PATH))?;
    let plan = Plan::decode(&text)?;
    if plan.job == Job::Shell {
        mounts::bring_lo_up()?;
        return jobs::shell(&plan.ttys[0]);
    }

    let link = Link::open(&plan.ttys[1])?;
    link.send(&Record::Boot(
        uname().release().to_string_lossy().into_owned(),
    ));
    if let Err(why) = mounts::bring_lo_up().and_then(|()| jobs::run(&link, &plan)) {
        link.send(&Record::Fault(why));
    }
    link.send(&Record::End);
    link.drain()
}
