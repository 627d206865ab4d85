//! A guest: QEMU with a kernel, an initramfs and two serial ports, the console and the records'.

use crate::{judge, kernel};
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

const QEMU: &str = "qemu-system-x86_64";

/// What is booted, and how.
#[derive(Debug, Clone)]
pub struct Machine {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub memory_mib: u64,
    pub accel: String,
    /// Kernel parameters besides our own.
    pub append: String,
}

/// Whether QEMU can be started.
pub fn check() -> Result<(), String> {
    match Command::new(QEMU).arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{QEMU}: {error}; apt-get install qemu-system-x86")),
    }
}

impl Machine {
    /// QEMU 7.2 emulates cmpxchg16b with wrong flags, of which 6.12 dies in its allocator, often while it boots.
    /// Kernels up to there do as well without the instruction; 7.x cannot make an arena without.
    fn cpu(&self) -> &'static str {
        let version = kernel::release(&self.kernel).and_then(|text| judge::release(&text));
        match version {
            Some(version) if version < (6, 18) && self.accel.starts_with("tcg") => "max,cx16=off",
            _ => "max",
        }
    }

    fn command(&self) -> Command {
        // An oops leaves a guest that may hang. panic=-1 reboots at once, and -no-reboot makes an end of that.
        let parameters = format!("console=ttyS0 oops=panic panic=-1{}", self.append);
        let mut command = Command::new(QEMU);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
                "-cpu",
                self.cpu(),
                "-smp",
                "2",
            ])
            .args(["-accel", &self.accel, "-m", &self.memory_mib.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &parameters]);
        command
    }

    /// Boots, hands each record to `see`, and returns when the guest is gone. The console goes to a file.
    ///
    /// # Errors
    /// Whatever kept the guest from ending by itself with its last record said.
    pub fn run(
        &self,
        console: &Path,
        timeout: Duration,
        see: &mut dyn FnMut(Record),
    ) -> Result<(), String> {
        let complaints = console.with_extension("qemu");
        let errors = File::create(&complaints)
            .map_err(|error| format!("{}: {error}", complaints.display()))?;
        let mut command = self.command();
        command
            .arg("-chardev")
            .arg(chardev_file("console", console))
            .args([
                "-chardev",
                "stdio,id=records,signal=off",
                "-serial",
                "chardev:console",
                "-serial",
                "chardev:records",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe {
            // A guest must not outlive us, however we end.
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("{QEMU}: {error}"))?;
        let ended = listen(&mut child, timeout, see);
        let status = reap(&mut child, ended).map_err(|error| format!("{QEMU}: {error}"))?;

        let said = std::fs::read_to_string(&complaints).unwrap_or_default();
        let _ = std::fs::remove_file(&complaints);
        verdict(ended, status, said.trim())
    }

    /// Boots with the console on this terminal.
    pub fn run_here(&self) -> Result<ExitStatus, String> {
        let mut command = self.command();
        command.args(["-serial", "mon:stdio"]);
        command.status().map_err(|error| format!("{QEMU}: {error}"))
    }
}

/// How listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The last record came and QEMU closed its output.
    Well,
    /// QEMU closed its output too early.
    Early,
    /// The time was over.
    Late(Duration),
    /// This record was expected and another came, or none.
    Garbled(u64),
}

fn listen(child: &mut Child, timeout: Duration, see: &mut dyn FnMut(Record)) -> Ended {
    let deadline = Instant::now() + timeout;
    let mut port = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, receiver) = channel();
    // Ends by itself when QEMU's output does.
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
            // The guest died within a line.
            None if !line.ends_with(b"\n") => {}
            _ => return Ended::Garbled(expected),
        }
    }
}

/// Waits for QEMU, which closes its output a little before it ends; one that does not end is killed.
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

fn verdict(ended: Ended, status: ExitStatus, said: &str) -> Result<(), String> {
    let why = match ended {
        Ended::Well if status.success() => return Ok(()),
        Ended::Well => format!("QEMU ended with {status}"),
        Ended::Early => {
            format!("the guest ended before its work did (a panic, or QEMU failed: {status})")
        }
        Ended::Late(timeout) => format!("the guest was not done after {} s", timeout.as_secs()),
        Ended::Garbled(number) => format!("what came on the serial port was not record {number}"),
    };
    Err(if said.is_empty() {
        why
    } else {
        format!("{why}\n{said}")
    })
}

/// QEMU takes a comma in a value when it is doubled.
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

    /// Lets a shell play QEMU.
    fn play(script: &str, timeout: Duration) -> (Result<(), String>, Vec<Record>) {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut records = vec![];
        let ended = listen(&mut child, timeout, &mut |record| records.push(record));
        let status = reap(&mut child, ended).unwrap();
        (verdict(ended, status, "said"), records)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_guest_that_says_all_is_well() {
        let (ended, records) = play("echo '0 boot 6.1'; echo '1 end '", LONG);
        assert_eq!(ended, Ok(()));
        assert_eq!(records, [Record::Boot("6.1".into()), Record::End]);
    }

    #[test]
    fn everything_else_is_not() {
        for (script, why) in [
            ("", "before its work"),
            ("echo '0 boot 6.1'", "before its work"),
            ("echo '0 boot 6.1'; printf '1 en'", "before its work"),
            ("echo '0 boot 6.1'; echo '2 end '", "not record 1"),
            ("echo '0 boot 6.1'; echo hello", "not record 1"),
            ("echo '0 end '; echo '1 end '", "not record 1"),
            ("echo '0 end '; exit 3", "exit status: 3"),
            (
                "echo '0 end '; exec >&-; sleep 0.3; exit 3",
                "exit status: 3",
            ),
        ] {
            let (ended, _) = play(script, LONG);
            let said = ended.unwrap_err();
            assert!(
                said.contains(why) && said.contains("said"),
                "{script}: {said}"
            );
        }
    }

    #[test]
    fn a_guest_that_hangs_is_ended() {
        let begun = Instant::now();
        let (ended, records) = play(
            "echo '0 boot 6.1'; exec sleep 60",
            Duration::from_millis(500),
        );
        assert!(ended.unwrap_err().contains("not done"));
        assert_eq!(records.len(), 1);
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn commas_are_doubled() {
        assert_eq!(chardev_file("a", Path::new("/b,c")), "file,id=a,path=/b,,c");
    }
}
