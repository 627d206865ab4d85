//! A guest: QEMU with a kernel, an initramfs, a console and a port for the records.

use crate::target::{OWN, Platform};
use crate::{kernel, verdict};
use guest::wire::Record;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A guest's configuration.
#[derive(Debug, Clone)]
pub struct Machine {
    pub platform: &'static Platform,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub memory_mib: u64,
    pub accel: String,
    /// Further kernel parameters.
    pub append: String,
}

impl Machine {
    /// QEMU 7.2 emulates cmpxchg16b with wrong flags: 6.12 crashes in its allocator, often during boot. Kernels up to 6.12
    /// do not need the instruction; 7.x cannot create an arena without it.
    fn x86_processor(&self) -> &'static str {
        let version = kernel::release(&self.kernel).and_then(|text| verdict::release(&text));
        match version {
            Some(version) if version < (6, 18) && self.accel.starts_with("tcg") => "max,cx16=off",
            _ => "max",
        }
    }

    fn command(&self) -> Command {
        // A guest may hang after an oops. panic=-1 reboots at once, which -no-reboot turns into an end.
        let console = self.platform.ttys[0];
        let parameters = format!("console={console} oops=panic panic=-1{}", self.append);
        let mut command = Command::new(self.platform.qemu);
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-smp", "2"])
            .args(self.platform.machine);
        if self.platform == OWN.kernel {
            command.args(["-cpu", self.x86_processor()]);
        }
        command
            .args(["-accel", &self.accel, "-m", &self.memory_mib.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &parameters]);
        command
    }

    /// Boots, passes each record to `see`, and returns when the guest has ended. The console goes to a file.
    ///
    /// # Errors
    /// The guest ended before its last record, or took too long.
    pub fn run(
        &self,
        console: &Path,
        timeout: Duration,
        see: &mut dyn FnMut(Record),
    ) -> Result<(), String> {
        let stderr_file = console.with_extension("qemu");
        let errors = File::create(&stderr_file)
            .map_err(|error| format!("{}: {error}", stderr_file.display()))?;
        let mut command = self.command();
        command
            .arg("-chardev")
            .arg(chardev_file("console", console))
            .args(["-chardev", "stdio,id=records,signal=off"])
            .args(self.platform.devices)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe {
            // A guest must not outlive this process, however it ends.
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", self.platform.qemu))?;
        let ended = listen(&mut child, timeout, see);
        let status =
            reap(&mut child, ended).map_err(|error| format!("{}: {error}", self.platform.qemu))?;

        let stderr = std::fs::read_to_string(&stderr_file).unwrap_or_default();
        let _ = std::fs::remove_file(&stderr_file);
        verdict(ended, status, stderr.trim())
    }

    /// Boots with the console on this terminal.
    pub fn run_here(&self) -> Result<ExitStatus, String> {
        let mut command = self.command();
        command
            .args(["-chardev", "stdio,id=console,mux=on,signal=off"])
            .args(["-mon", "chardev=console", "-chardev", "null,id=records"])
            .args(self.platform.devices);
        command
            .status()
            .map_err(|error| format!("{}: {error}", self.platform.qemu))
    }
}

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The last record came and QEMU closed its output.
    Well,
    /// QEMU closed its output too early.
    Early,
    /// The time limit passed.
    Late(Duration),
    /// A line was not the record of this number.
    Garbled(u64),
}

fn listen(child: &mut Child, timeout: Duration, see: &mut dyn FnMut(Record)) -> Ended {
    let deadline = Instant::now() + timeout;
    let mut port = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, receiver) = channel();
    // Ends with QEMU's output.
    std::thread::spawn(move || {
        loop {
            let mut line = vec![];
            match port.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        }
    });

    let (mut expected, mut complete) = (0, false);
    loop {
        let line = match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => return Ended::Late(timeout),
            Err(RecvTimeoutError::Disconnected) => {
                return if complete { Ended::Well } else { Ended::Early };
            }
        };
        match std::str::from_utf8(&line).ok().and_then(Record::decode) {
            Some((number, record)) if number == expected && !complete => {
                expected += 1;
                complete = record == Record::End;
                see(record);
            }
            // The guest ended within a line.
            None if !line.ends_with(b"\n") => {}
            _ => return Ended::Garbled(expected),
        }
    }
}

/// Waits for QEMU, which closes its output shortly before it ends. Kills it if it does not end.
fn reap(child: &mut Child, ended: Ended) -> std::io::Result<ExitStatus> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + PATIENCE;
    while matches!(ended, Ended::Well | Ended::Early) && Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(STEP);
    }
    child.kill()?;
    child.wait()
}

fn verdict(ended: Ended, status: ExitStatus, stderr: &str) -> Result<(), String> {
    let why = match ended {
        Ended::Well if status.success() => return Ok(()),
        Ended::Well => format!("QEMU ended with {status}"),
        Ended::Early => {
            format!("the guest ended before its last record (a panic, or QEMU failed: {status})")
        }
        Ended::Late(timeout) => {
            format!("the guest was still running after {} s", timeout.as_secs())
        }
        Ended::Garbled(number) => format!("the port sent something other than record {number}"),
    };
    Err(if stderr.is_empty() {
        why
    } else {
        format!("{why}\n{stderr}")
    })
}

/// QEMU reads a doubled comma as a comma in a value.
fn chardev_file(id: &str, path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut value = format!("file,id={id},path=").into_bytes();
    for &byte in path.as_os_str().as_bytes() {
        value.push(byte);
        if byte == b',' {
            value.push(b',');
        }
    }
    OsString::from_vec(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in place of QEMU.
    fn run_script(script: &str, timeout: Duration) -> (Result<(), String>, Vec<Record>) {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut records = vec![];
        let ended = listen(&mut child, timeout, &mut |record| records.push(record));
        let status = reap(&mut child, ended).unwrap();
        (verdict(ended, status, "stderr"), records)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_guest_that_sends_its_last_record_succeeds() {
        let (ended, records) = run_script("echo '0 boot 6.1'; echo '1 end '", LONG);
        assert_eq!(ended, Ok(()));
        assert_eq!(records, [Record::Boot("6.1".into()), Record::End]);
    }

    #[test]
    fn every_other_end_is_an_error() {
        for (script, why) in [
            ("", "before its last record"),
            ("echo '0 boot 6.1'", "before its last record"),
            ("echo '0 boot 6.1'; printf '1 en'", "before its last record"),
            ("echo '0 boot 6.1'; echo '2 end '", "other than record 1"),
            ("echo '0 boot 6.1'; echo hello", "other than record 1"),
            ("echo '0 end '; echo '1 end '", "other than record 1"),
            ("echo '0 end '; exit 3", "exit status: 3"),
            (
                "echo '0 end '; exec >&-; sleep 0.3; exit 3",
                "exit status: 3",
            ),
        ] {
            let (ended, _) = run_script(script, LONG);
            let error = ended.unwrap_err();
            assert!(
                error.contains(why) && error.contains("stderr"),
                "{script}: {error}"
            );
        }
    }

    #[test]
    fn a_guest_that_hangs_is_killed() {
        let begun = Instant::now();
        let (ended, records) = run_script(
            "echo '0 boot 6.1'; exec sleep 60",
            Duration::from_millis(500),
        );
        assert!(ended.unwrap_err().contains("still running"));
        assert_eq!(records.len(), 1);
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn commas_are_doubled() {
        assert_eq!(chardev_file("a", Path::new("/b,c")), "file,id=a,path=/b,,c");
    }
}
