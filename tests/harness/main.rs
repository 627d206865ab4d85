//! The harness cleans up after a test program, even if the program is killed.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::*;
use rustix::mount::{MountFlags, mount};

/// Makes this program the test program that is killed or ends by itself.
const CHILD: &str = "BPF_PIN_TEST_HARNESS_CHILD";
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

fn main() -> ExitCode {
    match env::var(CHILD).as_deref() {
        Ok("killed") => Suite::new().test("child", ROOT, || child(true)).run(),
        Ok(_) => Suite::new().test("child", ROOT, || child(false)).run(),
        Err(_) => Suite::new()
            .test("a_killed_program_leaves_nothing", ROOT, || {
                leaves_nothing("killed")
            })
            .test("a_program_that_ends_leaves_nothing", ROOT, || {
                leaves_nothing("ended")
            })
            .run(),
    }
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
    let mut program = Command::new(env::current_exe()?);
    program.env(CHILD, how).env("TMPDIR", place.path());
    let mut program = KillOnDrop(program.stdout(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok);
    let mut groups = ready.filter_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    let group = groups.next().expect("a ready child");
    if how == "killed" {
        assert_ne!(fs::read_dir(place.path())?.count(), 0);
        assert!(is_control_group(&group)?);
        program.0.kill()?;
    }
    let status = program.0.wait()?;
    assert_eq!(status.success(), how != "killed");
    let mark = place.path().to_str().unwrap();
    wait_until("cleaned up", || {
        fs::read_dir(place.path()).unwrap().count() == 0
            && !is_control_group(&group).unwrap()
            && !is_in_an_environment(mark)
    });
    assert!(!fs::read_to_string("/proc/self/mountinfo")?.contains(mark));
    Ok(())
}

fn is_control_group(name: &str) -> Outcome<bool> {
    let at = tempfile::tempdir()?;
    in_mount_namespace(|| {
        mount("cgroup2", at.path(), "cgroup2", MountFlags::empty(), None)?;
        Ok(at.path().join(name).exists())
    })
}

/// True if a process has `mark` in its environment.
fn is_in_an_environment(mark: &str) -> bool {
    let all = fs::read_dir("/proc").expect("processes").flatten();
    all.map(|entry| entry.path().join("environ"))
        .filter_map(|path: PathBuf| fs::read(path).ok())
        .any(|environ| {
            environ
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        })
}
