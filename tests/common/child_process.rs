//! A child process of this program, which does one task and holds its objects until it is released.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::TestFs;

const TASK: &str = "BPF_PIN_TEST_TASK";

/// The task of this process, if it is such a child. Its arguments are those of the command line.
pub fn task() -> Option<String> {
    std::env::var(TASK).ok()
}

/// In the child: sends a line to the parent.
pub fn send_line(line: impl std::fmt::Display) {
    println!("{line}");
}

/// In the child: waits until the parent releases it or ends.
pub fn wait_for_release() {
    let _ = io::stdin().read(&mut [0]);
}

/// The child process. It is killed on drop.
pub struct ChildProcess {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl ChildProcess {
    /// Starts the child. Paths in `fs` are valid in it.
    pub fn start<A: AsRef<OsStr>>(
        fs: &TestFs,
        task: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(TASK, task).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mount = fs.mount().map(AsRawFd::as_raw_fd);
        // SAFETY: fcntl is async-signal-safe, and the descriptor is open for as long as fs lives.
        unsafe {
            command.pre_exec(move || match mount {
                Some(mount) if libc::fcntl(mount, libc::F_SETFD, 0) == -1 => {
                    Err(io::Error::last_os_error())
                }
                _ => Ok(()),
            });
        }
        let mut child = command.spawn().expect("another process");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// Starts the child, and waits for its line "ready".
    pub fn start_ready<A: AsRef<OsStr>>(
        fs: &TestFs,
        task: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut this = Self::start(fs, task, args);
        assert_eq!(this.read_line(), "ready", "{task}");
        this
    }

    /// The next line from the child.
    pub fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("its output");
        line.trim_end().to_owned()
    }

    /// Releases the child.
    pub fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Releases the child, and waits until it has ended successfully.
    pub fn finish(mut self) {
        self.release();
        assert!(self.child.wait().expect("its end").success());
    }

    /// Kills the child and waits for its end.
    #[allow(dead_code, reason = "not every program kills")]
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.end();
    }
}
