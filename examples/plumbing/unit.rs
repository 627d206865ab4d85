//! Starts a unit as systemd does: as its user, and with its capabilities alone.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::thread;

use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::exit::Outcome;

/// A unit and its surroundings.
#[derive(Debug)]
pub struct Unit {
    /// The unit file.
    pub text: String,
    /// The id of its user and group.
    pub user: u32,
    /// The directory in which systemd makes runtime directories.
    pub run: PathBuf,
}

impl Unit {
    /// Makes the runtime directory, and runs the commands of the unit.
    pub fn start(&self) -> Outcome {
        for name in self.values("RuntimeDirectory") {
            let directory = self.run.join(name);
            fs::create_dir_all(&directory)?;
            chown(&directory, Some(self.user), Some(self.user))?;
        }
        let commands = self.values("ExecStartPre");
        for command in commands.chain(self.values("ExecStart")) {
            println!("{command}");
            let status = match command.strip_prefix('+') {
                Some(as_root) => run(as_root)?,
                None => self.run_confined(command)?,
            };
            if !status.success() {
                return Err(format!("{command}: {status}").into());
            }
        }
        Ok(())
    }

    /// The values of a setting.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let settings = self.text.lines().filter_map(|line| line.split_once('='));
        settings.filter_map(move |(key, value)| (key == name).then_some(value))
    }

    fn capabilities(&self, name: &str) -> CapabilitySet {
        let names = self.values(name).flat_map(str::split_whitespace);
        let known = names.filter_map(|name| CapabilitySet::from_name(name.strip_prefix("CAP_")?));
        known.collect()
    }

    /// Runs a command on a thread that gives up its privileges first.
    fn run_confined(&self, command: &str) -> Outcome<ExitStatus> {
        let confined = thread::scope(|scope| {
            let run = || -> Result<_, String> {
                self.confine().map_err(|errno| errno.to_string())?;
                run(command).map_err(|error| error.to_string())
            };
            scope.spawn(run).join()
        });
        Ok(confined.map_err(|_| "the thread panicked")??)
    }

    /// Gives this thread the user and the capabilities of the unit.
    fn confine(&self) -> rustix::io::Result<()> {
        let bounding = self.capabilities("CapabilityBoundingSet");
        let ambient = self.capabilities("AmbientCapabilities");
        for (_, known) in CapabilitySet::all().iter_names() {
            if !bounding.contains(known) {
                remove_capability_from_bounding_set(known)?;
            }
        }
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.user));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_keep_capabilities(true)?;
        set_thread_res_uid(user, user, user)?;
        let sets = CapabilitySets {
            effective: ambient,
            permitted: ambient,
            inheritable: ambient,
        };
        set_capabilities(None, sets)?;
        for kept in ambient {
            configure_capability_in_ambient_set(kept, true)?;
        }
        set_no_new_privs(true)
    }
}

/// Runs this program with the arguments of a command.
fn run(command: &str) -> std::io::Result<ExitStatus> {
    // The user may not be able to reach the path of this program.
    let mut process = Command::new("/proc/self/exe");
    process.args(command.split_whitespace().skip(1)).status()
}
