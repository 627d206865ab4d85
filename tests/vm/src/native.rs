//! The tests on this machine's own kernel, with the records that a guest would send.

use crate::programs::Program;
use guest::phase::{Phase, find};
use guest::wire::{Record, Status};
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The phase that this process runs in.
pub fn phase() -> Result<Phase, String> {
    if geteuid().is_root() {
        return Ok(find("root").expect("root is a phase"));
    }
    const SYSCTL: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
    let value = std::fs::read_to_string(SYSCTL).map_err(|error| format!("{SYSCTL}: {error}"))?;
    find(&format!("none/{}", value.trim())).ok_or_else(|| format!("{SYSCTL}: {value}"))
}

/// Runs every program in `dir` and passes its records to `see`.
pub fn run(
    programs: &[Program],
    arguments: &[OsString],
    dir: &Path,
    phase: Phase,
    limit: Duration,
    see: &mut dyn FnMut(Record),
) -> Result<(), String> {
    let release = rustix::system::uname();
    see(Record::Boot(
        release.release().to_string_lossy().into_owned(),
    ));
    see(Record::Phase(phase.name.to_owned()));
    for program in programs {
        see(Record::Start(program.name.clone()));
        let child = Command::new(&program.path)
            .args(arguments)
            .current_dir(dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.path.display()))?;
        let (status, [out, err]) = wait(child, limit);
        see(Record::Out(out));
        see(Record::Err(err));
        see(Record::Exit(status?));
    }
    see(Record::End);
    Ok(())
}

/// Waits for a program and its output. Kills it, and the processes that it left in its group.
fn wait(mut child: Child, limit: Duration) -> (Result<Status, String>, [Vec<u8>; 2]) {
    const STEP: Duration = Duration::from_millis(20);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let group = Pid::from_child(&child);
    let deadline = Instant::now() + limit;
    std::thread::scope(|scope| {
        let [out, err] = [scope.spawn(|| read(out)), scope.spawn(|| read(err))];
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    break Ok(match (status.code(), status.signal()) {
                        (Some(code), _) => Status::Code(code),
                        (None, signal) => Status::Signal(signal.unwrap_or_default()),
                    });
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(STEP),
                Ok(None) => break Ok(Status::Late),
                Err(error) => break Err(format!("wait: {error}")),
            }
        };
        // ESRCH: no process is left in the group.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
        let output = [out, err].map(|thread| thread.join().expect("reading does not panic"));
        (status, output)
    })
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = vec![];
    if let Some(mut pipe) = pipe {
        // An error ends the output.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(script: &str, limit: Duration) -> Vec<Record> {
        let dir = std::env::temp_dir();
        let program = Program {
            name: "tests/sh".into(),
            path: "/bin/sh".into(),
        };
        let arguments = ["-c", script].map(OsString::from);
        let mut records = vec![];
        let phase = find("root").unwrap();
        run(&[program], &arguments, &dir, phase, limit, &mut |record| {
            records.push(record);
        })
        .unwrap();
        records.split_off(3)
    }

    #[test]
    fn output_and_status_become_records() {
        let expected = [
            Record::Out(b"a\n".to_vec()),
            Record::Err(b"b\n".to_vec()),
            Record::Exit(Status::Code(3)),
            Record::End,
        ];
        let script = "echo a; echo b >&2; exit 3";
        assert_eq!(records(script, Duration::from_secs(20)), expected);
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let begun = Instant::now();
        let records = records("sleep 60 & wait", Duration::from_millis(200));
        assert!(records.contains(&Record::Exit(Status::Late)));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
