//! Child processes, which are killed when the thread that started them ends, even if the test program is killed.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{
    Pid, Signal, getpid, getppid, parent_process_death_signal, set_parent_process_death_signal,
};

use crate::TestFs;

const TASK: &str = "BPF_PIN_TEST_TASK";

/// A command. Its process is killed when the thread that starts it ends.
///
/// The kernel forgets the signal if the program gains privileges as it starts.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    #[allow(clippy::disallowed_methods, reason = "sets the signal")]
    let mut command = Command::new(program);
    let parent = getpid();
    // SAFETY: prctl, getppid and _exit are async-signal-safe.
    unsafe { command.pre_exec(move || die_with(parent)) };
    command
}

/// fork(2). The child is killed when the thread that forked it ends.
///
/// # Safety
///
/// The child must not wait for a lock of another thread.
pub unsafe fn fork() -> libc::pid_t {
    let parent = getpid();
    // SAFETY: the child waits for no lock, as the caller says.
    #[allow(clippy::disallowed_methods, reason = "sets the signal")]
    let pid = unsafe { libc::fork() };
    if pid == 0 && die_with(parent).is_err() {
        // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
        unsafe { libc::_exit(101) }
    }
    pid
}

/// In the child: requests SIGKILL when the parent's thread ends, and exits if the parent has ended already.
fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    exit_without(Some(parent));
    Ok(())
}

/// Exits if this process has another parent. A parent in another PID namespace is `None`.
fn exit_without(parent: Option<Pid>) {
    let now = getppid();
    if now.is_some() && now != parent {
        // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
        unsafe { libc::_exit(101) }
    }
}

/// Runs `change`, which may clear this thread's death signal as a change of user does, and sets the signal again.
pub fn with_same_death_signal<T>(change: impl FnOnce() -> T) -> T {
    let parent = getppid();
    let signal = parent_process_death_signal().expect("the death signal");
    let result = change();
    if signal.is_some() {
        set_parent_process_death_signal(signal).expect("the same death signal");
        exit_without(parent);
    }
    result
}

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

/// A child process of this program, which does one task and holds its objects until it is released. It is killed on
/// drop.
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
        let mut command = command(std::env::current_exe().expect("this program"));
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
