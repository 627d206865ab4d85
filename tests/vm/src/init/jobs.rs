//! Running the plan.

use crate::link::Link;
use guest::phase::{Phase, UID, User, find};
use guest::plan::{BPFFS, BUSYBOX, EXAMPLES, Job, Plan, TESTS};
use guest::wire::{Record, Status};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use std::ffi::OsStr;
use std::fs::{Permissions, create_dir, set_permissions, write};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};

const SYSCTL: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
/// Records stay short, because the other end reads lines.
const PIECE: usize = 1024;

/// Runs the plan's programs and reports on each.
pub fn run(link: &Link, plan: &Plan) -> Result<(), String> {
    match &plan.job {
        Job::Test { phases, programs } => {
            for phase in phases {
                if let Err(why) = prepare(*phase) {
                    link.send(&Record::NoPhase(phase.name.to_owned(), why));
                    continue;
                }
                link.send(&Record::Phase(phase.name.to_owned()));
                for (number, program) in programs.iter().enumerate() {
                    run_job(
                        link,
                        *phase,
                        number,
                        program,
                        &Path::new(TESTS).join(program),
                        plan,
                    )?;
                }
            }
            Ok(())
        }
        Job::Run(example) => {
            let root = find("root").expect("root is a phase");
            run_job(
                link,
                root,
                0,
                example,
                &Path::new(EXAMPLES).join(example),
                plan,
            )
        }
        Job::Shell => Err("a shell sends no records".to_owned()),
    }
}

/// Sets the phase's sysctl. A kernel that is locked at 1 refuses, and one without the sysctl has no such phase.
fn prepare(phase: Phase) -> Result<(), String> {
    let Some(value) = phase.unprivileged_bpf_disabled else {
        return Ok(());
    };
    write(SYSCTL, value.to_string()).map_err(|error| {
        format!("kernel.unprivileged_bpf_disabled cannot be set to {value}: {error}")
    })
}

fn run_job(
    link: &Link,
    phase: Phase,
    number: usize,
    name: &str,
    program: &Path,
    plan: &Plan,
) -> Result<(), String> {
    let home = format!("/tmp/{}-{number}", phase.name.replace('/', "-"));
    let at = |error: std::io::Error| format!("{home}: {error}");
    create_dir(&home).map_err(at)?;
    // As open as /tmp: tests of root change their user and go on there.
    set_permissions(&home, Permissions::from_mode(0o1777)).map_err(at)?;
    if phase.user != User::Root {
        chown(&home, Some(UID), Some(UID)).map_err(at)?;
    }

    link.send(&Record::Start(name.to_owned()));
    let mut child = Command::new("/init")
        .args(["as", phase.name])
        .arg(program)
        .args(plan.args.iter().map(|arg| OsStr::from_bytes(arg)))
        .current_dir(&home)
        .env_clear()
        .env("PATH", "/bin")
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .env("BPF_PIN_TEST_BPFFS", BPFFS)
        .env("BPF_PIN_TEST_PHASE", phase.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let (out, err) = (
        child.stdout.take().expect("piped"),
        child.stderr.take().expect("piped"),
    );

    let late = AtomicBool::new(false);
    let (done, waiting) = channel::<()>();
    let pid = Pid::from_child(&child);
    let status = std::thread::scope(|scope| {
        let late = &late;
        scope.spawn(move || {
            if waiting.recv_timeout(plan.limit) == Err(RecvTimeoutError::Timeout) {
                late.store(true, Ordering::Relaxed);
                // ESRCH: it ended just now.
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        scope.spawn(|| forward(link, out, Record::Out));
        scope.spawn(|| forward(link, err, Record::Err));
        let status = child.wait();
        drop(done);
        // Processes that it left behind would hold the pipes open and disturb the next program.
        kill_all_others();
        status
    })
    .map_err(|error| format!("wait for {name}: {error}"))?;
    let status = match (status.code(), status.signal()) {
        _ if late.into_inner() => Status::Late,
        (Some(code), _) => Status::Code(code),
        (None, Some(signal)) => Status::Signal(signal),
        (None, None) => return Err(format!("{name}: neither exited nor killed: {status:?}")),
    };
    link.send(&Record::Exit(status));
    Ok(())
}

fn forward(link: &Link, mut pipe: impl Read, record: impl Fn(Vec<u8>) -> Record) {
    let mut piece = [0; PIECE];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => link.send(&record(piece[..length].to_vec())),
            Err(error) => return link.send(&Record::Fault(format!("pipe: {error}"))),
        }
    }
}

/// `kill(-1)`, which spares process 1 and the kernel's threads, and reaps them all.
fn kill_all_others() {
    // ESRCH: no process is left.
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
    // Until ECHILD.
    while wait(WaitOptions::empty()).is_ok() {}
}

/// Gives the console to a shell until it exits.
pub fn shell(tty: &str) -> Result<(), String> {
    let status = Command::new(BUSYBOX)
        .args(["--install", "-s", "/bin"])
        .status()
        .map_err(|error| format!("{BUSYBOX}: {error}"))?;
    if !status.success() {
        return Err(format!("{BUSYBOX} --install: {status}"));
    }
    println!(
        "\ntests in {TESTS}, examples in {EXAMPLES}, a bpffs on {BPFFS}; exit powers the guest off"
    );
    Command::new("/init")
        .args(["shell", tty, BUSYBOX, "sh"])
        .current_dir("/tmp")
        .env_clear()
        .env("PATH", "/bin:/examples")
        .env("HOME", "/tmp")
        .env("TERM", "vt100")
        .env("BPF_PIN_TEST_BPFFS", BPFFS)
        .env("BPF_PIN_TEST_PHASE", "root")
        .status()
        .map_err(|error| format!("shell: {error}"))?;
    Ok(())
}
