//! Files, mounts and control groups of a test program.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Child, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::*;
use rustix::mount::{MountFlags, mount};

use crate::marked;

/// Makes this program the test program that is killed or ends by itself.
const CHILD: &str = "BPF_PIN_TEST_HARNESS_CHILD";
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

#[common::child]
fn child_role() -> Option<ExitCode> {
    let waits = env::var(CHILD).ok()? == "killed";
    let suite = Suite::new().test("child", ROOT, move || child(waits));
    Some(suite.run())
}

#[common::test(ROOT)]
fn a_killed_program_leaves_nothing() -> Outcome {
    leaves_nothing("killed")
}

#[common::test(ROOT)]
fn a_program_that_ends_leaves_nothing() -> Outcome {
    leaves_nothing("ended")
}

/// Creates one of everything that a test can leave behind. Then waits to be killed, or ends.
fn child(waits: bool) -> Outcome {
    in_mount_namespace(|| {
        let dir = tempfile::tempdir()?;
        let at = dir.path().join("at");
        fs::create_dir(&at)?;
        File::create(dir.path().join("file"))?;
        mount("bpf", &at, "bpf", MountFlags::empty(), None)?;
        hash().pin(at.join("map"))?;
        let group = Cgroup::new();
        println!(
            "ready {}",
            group.path.file_name().unwrap().to_string_lossy()
        );
        if waits {
            sleep(Duration::MAX);
        }
        Ok(())
    })
}

/// A child process that is killed on drop.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn leaves_nothing(how: &str) -> Outcome {
    let place = tempfile::tempdir()?;
    let mut program = command(env::current_exe()?);
    program.env(CHILD, how).env("TMPDIR", place.path());
    let mut program = KillOnDrop(program.stdout(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok);
    let mut groups = ready.filter_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    let group = groups.next().expect("a ready child");
    let is_left = || marked::control_groups().expect("a mount").contains(&group);
    if how == "killed" {
        assert_ne!(marked::names(place.path()).len(), 0);
        assert!(is_left());
        program.0.kill()?;
    }
    let status = program.0.wait()?;
    assert_eq!(status.success(), how != "killed");
    let mark = place.path().to_str().unwrap();
    wait_until("cleaned up", || {
        marked::names(place.path()).is_empty() && !is_left() && marked::processes(mark) == 0
    });
    assert!(!marked::has_mounts(mark));
    Ok(())
}
