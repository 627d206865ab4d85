//! What a call costs, in syscalls, allocations and descriptors: exact counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use bpf_pin::{
    Access, ElemFlags, Link, Map, Object, Pinned, PinnedLink, PinnedMap, PinnedProg, Prog, abi,
};
use common::*;

const F_GETFD: u64 = libc::F_GETFD as u64;

const CHILD: &str = "BPF_PIN_TEST_COST";

fn main() -> ExitCode {
    match std::env::var(CHILD).as_deref() {
        Ok("descriptors") => return no_descriptor_leaks(),
        Ok(operation) => return run_marked(operation),
        Err(_) => {}
    }
    const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
    Suite::new()
        .test("syscalls_of_every_success_path", ROOT, syscalls)
        .test("success_paths_allocate_nothing", ROOT, allocations)
        .test("failing_calls_leak_no_descriptor", ROOT, descriptors)
        .run()
}

/// The objects that the measured calls are about.
struct Scene {
    fs: TestFs,
    map: Map,
    prog: Prog,
}

impl Scene {
    fn new() -> Self {
        let fs = TestFs::new();
        let (map, prog) = (hash(), prog());
        map.typed::<u32, u64>()
            .and_then(|elems| elems.update(&1, &1, ElemFlags::ANY))
            .expect("an element");
        map.try_clone().unwrap().pin(fs.at("map")).expect("a pin");
        prog.try_clone().unwrap().pin(fs.at("prog")).expect("a pin");
        link().pin(fs.at("link")).expect("a pin");
        Self { fs, map, prog }
    }
}

/// A call, ready to be made, and the syscalls that it may take.
struct Measured {
    name: &'static str,
    expected: &'static [&'static str],
    prepare: fn(&Scene) -> Box<dyn FnOnce() + '_>,
}

const OPEN: &[&str] = &["OBJ_GET", "MAP_LOOKUP_BATCH", "close"];
const OPEN_BY_INFO: &[&str] = &["OBJ_GET", "OBJ_GET_INFO_BY_FD", "close"];
const UNPIN: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "lstat",
    "OBJ_GET",
    "OBJ_GET_INFO_BY_FD",
    "unlink",
    "close",
];

macro_rules! measured {
    ($($name:ident => $expected:expr, |$scene:ident| $prepare:block $call:expr;)*) => {
        &[$(Measured {
            name: stringify!($name),
            expected: $expected,
            prepare: |$scene| {
                #[allow(clippy::let_unit_value)]
                let ready = $prepare;
                let call = $call;
                Box::new(move || call(ready))
            },
        },)*]
    };
}

const MEASURED: &[Measured] = measured! {
    open_map => OPEN, |scene| { scene.fs.at("map") } |path| drop(Map::open(path).unwrap());
    open_prog => OPEN_BY_INFO, |scene| { scene.fs.at("prog") } |path| drop(Prog::open(path).unwrap());
    open_link => OPEN_BY_INFO, |scene| { scene.fs.at("link") } |path| drop(Link::open(path).unwrap());
    open_map_read_only => OPEN, |scene| { scene.fs.at("map") }
        |path| drop(Map::open_with(path, Access::ReadOnly).unwrap());
    open_any_map => OPEN_BY_INFO, |scene| { scene.fs.at("map") } |path| drop(Object::open(path).unwrap());
    open_any_prog => OPEN_BY_INFO, |scene| { scene.fs.at("prog") } |path| drop(Object::open(path).unwrap());
    open_any_link => OPEN_BY_INFO, |scene| { scene.fs.at("link") } |path| drop(Object::open(path).unwrap());
    open_pinned_map => OPEN, |scene| { scene.fs.at("map") } |path| drop(PinnedMap::open(path).unwrap());
    open_pinned_prog => OPEN_BY_INFO, |scene| { scene.fs.at("prog") }
        |path| drop(PinnedProg::open(path).unwrap());
    open_pinned_link => OPEN_BY_INFO, |scene| { scene.fs.at("link") }
        |path| drop(PinnedLink::open(path).unwrap());
    pin => &["OBJ_PIN"], |scene| { (scene.map.try_clone().unwrap(), scene.fs.at("new")) }
        |(map, path): (Map, std::path::PathBuf)| std::mem::forget(map.pin(path).unwrap());
    unpin => UNPIN, |scene| { PinnedMap::open(scene.fs.at("map")).unwrap() }
        |pinned: PinnedMap| std::mem::forget(pinned.unpin().unwrap());
    unpin_link => UNPIN, |scene| { PinnedLink::open(scene.fs.at("link")).unwrap() }
        |pinned: PinnedLink| std::mem::forget(pinned.unpin().unwrap());
    id => &["OBJ_GET_INFO_BY_FD"], |scene| { &scene.prog } |prog: &Prog| assert_ne!(prog.id().unwrap(), 0);
    info => &["OBJ_GET_INFO_BY_FD"], |scene| { &scene.map } |map: &Map| assert_ne!(map.info().unwrap().id, 0);
    lookup => &["MAP_LOOKUP_ELEM"], |scene| { scene.map.typed::<u32, u64>().unwrap() }
        |elems: bpf_pin::Typed<u32, u64, &Map>| assert_eq!(elems.lookup(&1).unwrap(), Some(1));
    update => &["MAP_UPDATE_ELEM"], |scene| { scene.map.typed::<u32, u64>().unwrap() }
        |elems: bpf_pin::Typed<u32, u64, &Map>| elems.update(&1, &1, ElemFlags::ANY).unwrap();
    delete => &["MAP_DELETE_ELEM"], |scene| { scene.map.typed::<u32, u64>().unwrap() }
        |elems: bpf_pin::Typed<u32, u64, &Map>| assert!(elems.delete(&1).unwrap());
    typed => &["OBJ_GET_INFO_BY_FD"], |scene| { &scene.map }
        |map: &Map| assert!(map.typed::<u32, u64>().is_ok());
    try_from => &["MAP_LOOKUP_BATCH"], |scene| { scene.map.try_clone().unwrap().into() }
        |fd: std::os::fd::OwnedFd| std::mem::forget(Map::try_from(fd).unwrap());
};

/// In a child that is traced: the call between two marks.
fn run_marked(operation: &str) -> ExitCode {
    let measured = MEASURED
        .iter()
        .find(|m| m.name == operation)
        .expect("a name");
    let scene = Scene::new();
    let call = (measured.prepare)(&scene);
    let _ = rustix::process::getppid();
    call();
    let _ = rustix::process::getppid();
    ExitCode::SUCCESS
}

fn syscalls() -> Outcome {
    for measured in MEASURED {
        let seen = trace(measured.name)?;
        assert_eq!(seen, measured.expected, "{}", measured.name);
    }
    Ok(())
}

/// The syscalls that the child makes between its marks.
fn trace(operation: &str) -> Result<Vec<String>, io::Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(CHILD, operation);
    // SAFETY: ptrace is async-signal-safe; the child stops at its exec.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.spawn()?;
    let pid = child.id() as libc::pid_t;
    let check = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    };
    let wait = || {
        let mut status = 0;
        // SAFETY: status is writable; pid is our child.
        check(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }.into()).map(|_| status)
    };
    wait()?;
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    // SAFETY: pid is our stopped child.
    check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) })?;
    let (mut marks, mut seen, mut signal) = (0, Vec::new(), 0);
    loop {
        // SAFETY: pid is our stopped child.
        check(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) })?;
        let status = wait()?;
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0, "{operation}");
            assert_eq!(marks, 2, "{operation}");
            return Ok(seen);
        }
        assert!(libc::WIFSTOPPED(status), "{operation}: ended by a signal");
        signal = match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => 0,
            libc::SIGTRAP => 0,
            other => other,
        };
        // SAFETY: all zeroes is a valid value of the struct.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        // SAFETY: info is as large as said; pid is our stopped child.
        check(unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                pid,
                size_of_val(&info),
                &raw mut info,
            )
        })?;
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            continue;
        }
        // SAFETY: the kernel says that it is an entry.
        let entry = unsafe { info.u.entry };
        match entry.nr as libc::c_long {
            libc::SYS_getppid => marks += 1,
            // The standard library looks, in debug builds, whether what it closes is open.
            libc::SYS_fcntl if cfg!(debug_assertions) && entry.args[1] == F_GETFD => {}
            nr if marks == 1 => seen.push(name(nr, entry.args[0])),
            _ => {}
        }
    }
}

fn name(nr: libc::c_long, first: u64) -> String {
    match nr {
        libc::SYS_bpf => {
            let cmd = abi::BPF_CMDS.iter().find(|cmd| cmd.value == first);
            cmd.expect("a command")
                .name
                .trim_start_matches("BPF_")
                .into()
        }
        libc::SYS_close => "close".into(),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => "unlink".into(),
        libc::SYS_unlinkat => "unlink".into(),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_lstat => "lstat".into(),
        libc::SYS_newfstatat | libc::SYS_statx => "lstat".into(),
        other => format!("syscall {other}"),
    }
}

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATED.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> Outcome {
    for measured in MEASURED {
        let scene = Scene::new();
        let call = (measured.prepare)(&scene);
        let before = ALLOCATED.get();
        call();
        assert_eq!(ALLOCATED.get() - before, 0, "{}", measured.name);
    }
    // The counter counts: a path of 256 bytes does not fit in place.
    let fs = TestFs::new();
    let long = fs.at(&"n".repeat(255));
    hash().pin(&long)?;
    let before = ALLOCATED.get();
    drop(Map::open(&long)?);
    assert_eq!(ALLOCATED.get() - before, 1);
    Ok(())
}

fn descriptors() -> Outcome {
    let status = Command::new(std::env::current_exe()?)
        .env(CHILD, "descriptors")
        .status()?;
    assert!(status.success());
    Ok(())
}

/// In a child with one thread: every failing call, and then as many descriptors as before.
fn no_descriptor_leaks() -> ExitCode {
    let scene = Scene::new();
    let at = |name| scene.fs.at(name);
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..50 {
        Map::open(at("prog")).unwrap_err();
        Prog::open(at("link")).unwrap_err();
        Link::open(at("map")).unwrap_err();
        Object::open(at("nothing")).unwrap_err();
        Object::open("/dev/null").unwrap_err();
        Link::open_with(at("link"), Access::ReadOnly).unwrap_err();
        PinnedLink::open(at("prog")).unwrap_err();
        Map::try_from(scene.prog.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
        Prog::from_id(u32::MAX).unwrap_err();
        hash().pin(at("map")).unwrap_err();
        hash().pin(at("a.b")).unwrap_err();
        hash().pin("/proc/self/map").unwrap_err();
        hash().typed::<u8, u8>().unwrap_err();
        let ours = hash().pin(at("ours")).unwrap();
        fs::remove_file(at("ours")).unwrap();
        let ours = ours.unpin().unwrap_err().into_object();
        let theirs = hash().pin(at("ours")).unwrap();
        ours.unpin().unwrap_err();
        theirs.unpin().unwrap();
        Pinned::<Object>::open(at("map")).unwrap();
    }
    assert_eq!(open(), before);
    ExitCode::SUCCESS
}
