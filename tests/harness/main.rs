//! A program of tests leaves nothing behind, also if it is killed.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::*;
use rustix::mount::{MountFlags, mount};

const AMID: &str = "BPF_PIN_TEST_AMID";
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

fn main() -> ExitCode {
    match env::var(AMID).as_deref() {
        Ok("killed") => Suite::new().test("amid", ROOT, || amid(true)).run(),
        Ok(_) => Suite::new().test("amid", ROOT, || amid(false)).run(),
        Err(_) => Suite::new()
            .test("killed", ROOT, || leaves_nothing("killed"))
            .test("ended_by_itself", ROOT, || leaves_nothing("ended"))
            .run(),
    }
}

/// One of all that is there to be left.
fn amid(is_for_good: bool) -> Outcome {
    own_mounts(|| {
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
        if is_for_good {
            sleep(Duration::MAX);
        }
        Ok(())
    })
}

/// Its child is ended with it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn leaves_nothing(how: &str) -> Outcome {
    let place = tempfile::tempdir()?;
    let mut program = Command::new(env::current_exe()?);
    program.env(AMID, how).env("TMPDIR", place.path());
    let mut program = Ended(program.stdout(Stdio::piped()).spawn()?);
    let mut said = BufReader::new(program.0.stdout.take().unwrap()).lines();
    let ready = said.by_ref().map_while(Result::ok);
    let mut groups = ready.filter_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    let group = groups.next().expect("it is ready");
    if how == "killed" {
        assert_ne!(fs::read_dir(place.path())?.count(), 0);
        assert!(is_control_group(&group)?);
        program.0.kill()?;
    }
    let status = program.0.wait()?;
    assert_eq!(status.success(), how != "killed");
    let mark = place.path().to_str().unwrap();
    eventually("cleared up", || {
        fs::read_dir(place.path()).unwrap().count() == 0
            && !is_control_group(&group).unwrap()
            && !is_anybody_there(mark)
    });
    assert!(!fs::read_to_string("/proc/self/mountinfo")?.contains(mark));
    Ok(())
}

fn is_control_group(name: &str) -> Outcome<bool> {
    let at = tempfile::tempdir()?;
    own_mounts(|| {
        mount("cgroup2", at.path(), "cgroup2", MountFlags::empty(), None)?;
        Ok(at.path().join(name).exists())
    })
}

/// Whether a process was started with that in its environment.
fn is_anybody_there(mark: &str) -> bool {
    let all = fs::read_dir("/proc").expect("processes").flatten();
    all.map(|entry| entry.path().join("environ"))
        .filter_map(|path: PathBuf| fs::read(path).ok())
        .any(|environ| {
            environ
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        })
}
