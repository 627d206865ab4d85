//! Traces a process with ptrace(2): it stops before and after each syscall.

use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

use bpf_pin::abi;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::Outcome;
use crate::stops::left_out;
use crate::suite::leave_out;

/// Runs this program in a new process with the variable set, and adopts its failure and its omissions.
///
/// The new process has one thread, so it may fork.
pub fn run_in_own_process(variable: &str, value: &str) -> Outcome {
    let output = crate::child_process::command(std::env::current_exe()?)
        .env(variable, value)
        .output()?;
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        return left_out(&text).try_for_each(leave_out);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{value}: {}\n{stderr}", output.status).into())
}

/// Numbers of syscalls with names that depend on the architecture.
pub mod syscalls {
    use libc::c_long;

    /// fstatat(2), with 64-bit sizes.
    #[cfg(target_pointer_width = "64")]
    pub const FSTATAT: c_long = libc::SYS_newfstatat;
    #[cfg(target_pointer_width = "32")]
    pub const FSTATAT: c_long = libc::SYS_fstatat64;

    /// fcntl(2) of byte locks with 64-bit offsets.
    #[cfg(target_pointer_width = "64")]
    pub const FCNTL: c_long = libc::SYS_fcntl;
    #[cfg(target_pointer_width = "32")]
    pub const FCNTL: c_long = libc::SYS_fcntl64;

    /// mmap(2), with an offset in pages on 32-bit architectures.
    #[cfg(target_pointer_width = "64")]
    pub const MMAP: c_long = libc::SYS_mmap;
    #[cfg(target_pointer_width = "32")]
    pub const MMAP: c_long = libc::SYS_mmap2;
}

/// A stop of a [`Tracee`].
#[derive(Clone, Copy)]
pub struct Stop {
    pub nr: libc::c_long,
    pub args: [u64; 6],
    /// The result or the negative errno after the call, `None` before it.
    pub result: Option<i64>,
}

impl Stop {
    pub fn is_entry(&self) -> bool {
        self.result.is_none()
    }

    /// True at the stop after a successful call of this name.
    pub fn is_success_of(&self, name: &str) -> bool {
        let name_is = |name: &str| self.name() == name;
        self.result.is_some_and(|result| match result {
            0.. => true,
            // The regular result if the file is no link.
            _ => result == -i64::from(libc::EINVAL) && name_is("readlink"),
        }) && name_is(name)
    }

    /// True at the stop before a call of this name.
    pub fn is_entry_of(&self, name: &str) -> bool {
        self.is_entry() && self.name() == name
    }

    /// True if the process waits by sleeping.
    pub fn is_sleep(&self) -> bool {
        [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&self.nr)
    }

    /// The name of the call in the manual, the same on every architecture. For bpf(2) the name of the command.
    pub fn name(&self) -> String {
        match self.nr {
            libc::SYS_bpf => {
                let cmd = abi::BPF_CMDS.iter().find(|cmd| cmd.value == self.args[0]);
                let name = cmd.expect("a command").name;
                name.trim_start_matches("BPF_").into()
            }
            libc::SYS_unlinkat if self.args[2] & libc::AT_REMOVEDIR as u64 != 0 => "rmdir".into(),
            syscalls::FSTATAT => stat_name(self.args[3]).into(),
            // rustix prefers it to fstatat(2) here, for times after 2038.
            #[cfg(target_pointer_width = "32")]
            libc::SYS_statx if self.args[3] == u64::from(libc::STATX_BASIC_STATS) => {
                stat_name(self.args[2]).into()
            }
            // On x86 one syscall does all calls on sockets.
            #[cfg(target_arch = "x86")]
            libc::SYS_socketcall => match self.args[0] {
                1 => "socket".into(),
                9 | 11 => "send".into(),
                10 | 12 => "recv".into(),
                16 => "sendmsg".into(),
                17 => "recvmsg".into(),
                number => format!("socketcall {number}"),
            },
            nr => {
                let mut names = NAMES.iter().chain(OLD_NAMES).chain(WIDE_NAMES);
                let known = names.find(|(number, _)| *number == nr);
                known.map_or_else(|| format!("syscall {nr}"), |(_, name)| (*name).into())
            }
        }
    }
}

/// The name of the call that fstatat(2) with these flags replaces.
fn stat_name(flags: u64) -> &'static str {
    let has = |flag: i32| flags & flag as u64 != 0;
    match (has(libc::AT_EMPTY_PATH), has(libc::AT_SYMLINK_NOFOLLOW)) {
        (true, _) => "fstat",
        (_, true) => "lstat",
        (_, false) => "stat",
    }
}

/// Writes "openat2" before the call and "openat2 = 3" after it.
impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match self.result {
            Some(result) => write!(f, " = {result}"),
            None => Ok(()),
        }
    }
}

const NAMES: &[(libc::c_long, &str)] = &[
    (libc::SYS_unlinkat, "unlink"),
    (libc::SYS_openat, "open"),
    (libc::SYS_close, "close"),
    (libc::SYS_read, "read"),
    (libc::SYS_write, "write"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_socket, "socket"),
    (libc::SYS_sendto, "send"),
    (libc::SYS_recvfrom, "recv"),
    #[cfg(target_arch = "arm")]
    (libc::SYS_send, "send"),
    #[cfg(target_arch = "arm")]
    (libc::SYS_recv, "recv"),
    (libc::SYS_fstat, "fstat"),
    (libc::SYS_fstatfs, "fstatfs"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_openat2, "openat2"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_readlinkat, "readlink"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_fcntl, "fcntl"),
    (syscalls::FCNTL, "fcntl"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchmodat, "fchmodat"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_getdents64, "getdents64"),
    (libc::SYS_getrandom, "getrandom"),
    (libc::SYS_geteuid, "geteuid"),
    (libc::SYS_getegid, "getegid"),
    (libc::SYS_getpid, "getpid"),
    (libc::SYS_prctl, "prctl"),
    (syscalls::MMAP, "mmap"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_ppoll, "poll"),
];

/// Calls without a directory, which newer architectures do not have.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "arm",
    target_arch = "s390x",
    target_arch = "powerpc64"
))]
const OLD_NAMES: &[(libc::c_long, &str)] = &[
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_lstat, "lstat"),
    (libc::SYS_readlink, "readlink"),
    (libc::SYS_stat, "stat"),
    (libc::SYS_open, "open"),
    (libc::SYS_poll, "poll"),
];
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "arm",
    target_arch = "s390x",
    target_arch = "powerpc64"
)))]
const OLD_NAMES: &[(libc::c_long, &str)] = &[];

/// The calls of 32-bit architectures with 64-bit sizes, or with ids of 32 bits.
#[cfg(target_pointer_width = "32")]
const WIDE_NAMES: &[(libc::c_long, &str)] = &[
    (libc::SYS_fstat64, "fstat"),
    (libc::SYS_lstat64, "lstat"),
    (libc::SYS_stat64, "stat"),
    (libc::SYS_fstatfs64, "fstatfs"),
    (libc::SYS__llseek, "lseek"),
    (libc::SYS_geteuid32, "geteuid"),
    (libc::SYS_getegid32, "getegid"),
];
#[cfg(target_pointer_width = "64")]
const WIDE_NAMES: &[(libc::c_long, &str)] = &[];

/// clock_gettime64(2), which has the same number on every 32-bit architecture.
#[cfg(target_pointer_width = "32")]
const CLOCK_GETTIME: libc::c_long = 403;
#[cfg(target_pointer_width = "64")]
const CLOCK_GETTIME: libc::c_long = libc::SYS_clock_gettime;

/// A traced child process. It is killed on drop.
pub struct Tracee {
    pid: libc::pid_t,
    /// The call that has entered the kernel and has not returned yet.
    inside: Option<Stop>,
    marks: u32,
    ended: Option<libc::c_int>,
}

impl Tracee {
    /// Forks. The child calls `ready` without stops, and then `run` with a stop at each syscall. It exits with the
    /// code that `run` returns, or 101 after a panic, and runs no destructors but those in `run`.
    pub fn fork<T>(ready: impl FnOnce() -> T, run: impl FnOnce(T) -> u8) -> io::Result<Self> {
        wait_until_alone();
        // SAFETY: this is the only thread, so the child waits for no lock.
        let pid = match check(unsafe { crate::child_process::fork() }.into())? {
            0 => be_traced(ready, run),
            pid => pid as libc::pid_t,
        };
        let mut this = Self {
            pid,
            inside: None,
            marks: 0,
            ended: None,
        };
        this.wait()?;
        if this.ended.is_none() {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
            // SAFETY: our stopped child.
            check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) })?;
        }
        Ok(this)
    }

    /// Continues the child until its next stop. `None` after `run` has returned.
    #[allow(clippy::should_implement_trait, reason = "it may fail")]
    pub fn next(&mut self) -> io::Result<Option<Stop>> {
        while self.marks < 2 && self.ended.is_none() {
            self.resume(libc::PTRACE_SYSCALL)?;
            if self.ended.is_some() {
                break;
            }
            let Some(stop) = self.stop()? else { continue };
            let is_mark = stop.nr == libc::SYS_getppid;
            if is_mark && stop.is_entry() {
                self.marks += 1;
            } else if self.marks == 1 && !is_mark && !is_of_std(&stop) {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }

    /// Continues the child to the first stop that matches. Panics if it ends before.
    pub fn run_to(&mut self, is_it: impl Fn(&Stop) -> bool) {
        while let Some(stop) = self.next().expect("a stop") {
            if is_it(&stop) {
                return;
            }
        }
        panic!("it ended without that stop");
    }

    /// Continues the child to its end, and returns its exit code.
    pub fn finish(mut self) -> io::Result<u8> {
        while self.ended.is_none() {
            self.resume(libc::PTRACE_CONT)?;
        }
        match self.ended {
            Some(status) if libc::WIFEXITED(status) => Ok(libc::WEXITSTATUS(status) as u8),
            status => Err(io::Error::other(format!("ended with status {status:?}"))),
        }
    }

    /// Duplicates a descriptor of the child, as a process has it that the child has forked. Linux 5.6.
    pub fn duplicate(&self, fd: RawFd) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).expect("a process");
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
    }

    /// Kills the child and waits until its descriptors and locks are released.
    pub fn kill(mut self) -> io::Result<()> {
        self.end()?;
        let status = self.ended.expect("an end");
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        // SAFETY: it is our child, which was not waited for yet.
        check(unsafe { libc::kill(self.pid, libc::SIGKILL) }.into())?;
        while self.ended.is_none() {
            self.wait()?;
        }
        Ok(())
    }

    fn resume(&mut self, how: libc::c_uint) -> io::Result<()> {
        // SAFETY: our stopped child.
        check(unsafe { libc::ptrace(how, self.pid, 0, 0) })?;
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut status = 0;
        // SAFETY: status is writable.
        check(unsafe { libc::waitpid(self.pid, &mut status, libc::__WALL) }.into())?;
        if !libc::WIFSTOPPED(status) {
            self.ended = Some(status);
        }
        Ok(())
    }

    /// The stop, or `None` if the child did not stop for a syscall.
    fn stop(&mut self) -> io::Result<Option<Stop>> {
        // SAFETY: all zeroes is a valid value of the struct.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        // SAFETY: info has the given size, and the child is ours and stopped.
        check(unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                self.pid,
                size_of_val(&info),
                &raw mut info,
            )
        })?;
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: the kernel says that it is an entry.
                let entry = unsafe { info.u.entry };
                let stop = Stop {
                    nr: entry.nr as libc::c_long,
                    args: entry.args,
                    result: None,
                };
                self.inside = Some(stop);
                Ok(Some(stop))
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: the kernel says that it is an exit.
                let result = Some(unsafe { info.u.exit }.sval);
                Ok(self.inside.take().map(|entry| Stop { result, ..entry }))
            }
            _ => Ok(None),
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.end();
        }
    }
}

/// In debug builds the standard library checks that what it closes is open. Reading the clock takes a system call only
/// without a vDSO.
fn is_of_std(stop: &Stop) -> bool {
    match stop.nr {
        libc::SYS_fcntl | syscalls::FCNTL if stop.args[1] == libc::F_GETFD as u64 => {
            cfg!(debug_assertions)
        }
        nr => nr == libc::SYS_clock_gettime || nr == CLOCK_GETTIME,
    }
}

fn be_traced<T>(ready: impl FnOnce() -> T, run: impl FnOnce(T) -> u8) -> ! {
    let marked = || {
        // SAFETY: the call takes no address.
        check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }).expect("a tracer");
        let ready = ready();
        // SAFETY: the call takes no address.
        unsafe { libc::raise(libc::SIGSTOP) };
        let _ = rustix::process::getppid();
        let code = run(ready);
        let _ = rustix::process::getppid();
        code
    };
    let code = catch_unwind(AssertUnwindSafe(marked)).unwrap_or(101);
    // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
    unsafe { libc::_exit(code.into()) }
}

/// Waits until joined threads have ended, which is some moments after join.
pub(crate) fn wait_until_alone() {
    for _ in 0..1000 {
        match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
            Ok(1) => return,
            _ => sleep(Duration::from_millis(1)),
        }
    }
    eprintln!("a process with threads must not be forked");
    exit(1)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}
