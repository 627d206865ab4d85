//! The lock of a directory: who it keeps out, for how long, and when it is let go.

mod holder;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{Cause, DirLock, DirOperation, ElemFlags, Error, Map, PinDir, Result};
use common::*;
use rustix::fs::{Mode, chmod};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{CapabilitySet, gettid};

use holder::Holder;

/// How long nobody should wait on any machine, and everybody does before it is called a failure.
const AGES: Duration = Duration::from_secs(40);
/// Not worth the wait.
const MOMENT: Duration = Duration::from_millis(60);

fn main() -> ExitCode {
    if let Some(task) = holder::task() {
        return child(&task);
    }
    const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
    const DIRS: &[Need] = &[Need::Bpffs];
    const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
    Suite::new()
        .test("who_keeps_out_whom", DIRS, who)
        .test("who_keeps_out_whom_in_another_process", DIRS, who_elsewhere)
        .test("of_many_threads_one_counts_at_a_time", PINS, threads_count)
        .test("of_many_processes_one_counts", PINS, processes_count)
        .test("readers_see_no_half_of_a_change", PINS, readers)
        .test("a_lock_ends_with_its_value", DIRS, released)
        .test("a_lock_ends_with_its_process", DIRS, killed)
        .test("a_bounded_wait_ends_in_time", DIRS, bounded)
        .test("a_bounded_wait_takes_what_becomes_free", DIRS, becomes_free)
        .test("a_wait_for_what_is_published_over", DIRS, published_over)
        .test("a_directory_that_is_elsewhere", DIRS, moved)
        .test("a_path_with_a_mount_on_it", &[cap::SYS_ADMIN], covered)
        .test("a_signal_ends_no_wait", DIRS, signals)
        .test("a_directory_that_may_not_be_read", USER, unreadable)
        .test("a_set_that_is_read_stays_whole", PINS, read_while_published)
        .test(
            "a_set_is_opened_and_locked_in_one_call",
            PINS,
            opened_and_locked,
        )
        .test(
            "a_lock_is_released_though_a_child_has_it",
            DIRS,
            released_beside_a_child,
        )
        .test("where_no_path_leads_nothing_has_moved", DIRS, no_path)
        .run()
}

fn child(task: &str) -> ExitCode {
    let path = std::env::args_os().nth(1).expect("a path");
    let dir = PinDir::open(&path).expect("the directory");
    match task {
        "lock" => {
            let _lock = dir.lock().expect("the lock");
            holder::say("ready");
            holder::wait();
        }
        "fork" => {
            fork_and_release(&dir).expect("a lock that is released");
            holder::say("ready");
            holder::wait();
        }
        "lock_shared" => {
            let _lock = dir.lock_shared().expect("the lock");
            holder::say("ready");
            holder::wait();
        }
        "count" => {
            holder::say("ready");
            holder::wait();
            holder::say(count(&dir, Duration::from_millis(300)));
        }
        "signals" => waits_on(&dir, Path::new(&path)),
        other => panic!("{other}"),
    }
    ExitCode::SUCCESS
}

fn app(fs: &TestFs) -> Result<PinDir> {
    PinDir::create(fs.at("app"), 0o700)
}

type Take = fn(&PinDir) -> Result<Option<DirLock>>;

const EXCLUSIVE: [Take; 3] = [
    |dir| dir.lock().map(Some),
    |dir| dir.lock_within(AGES),
    |dir| dir.try_lock(),
];
const SHARED: [Take; 3] = [
    |dir| dir.lock_shared().map(Some),
    |dir| dir.lock_shared_within(AGES),
    |dir| dir.try_lock_shared(),
];

fn all() -> impl Iterator<Item = Take> {
    EXCLUSIVE.into_iter().chain(SHARED)
}

/// Those that wait.
fn waits() -> impl Iterator<Item = Take> {
    EXCLUSIVE
        .into_iter()
        .take(2)
        .chain(SHARED.into_iter().take(2))
}

fn is_free(dir: &PinDir) -> bool {
    dir.try_lock().expect("the lock can be asked for").is_some()
}

fn is_free_for_readers(dir: &PinDir) -> bool {
    dir.try_lock_shared()
        .expect("the lock can be asked for")
        .is_some()
}

/// What was just let go is had: a process that is being started has a copy for a moment.
fn take_all(dir: &PinDir) -> DirLock {
    dir.lock_within(AGES)
        .expect("the lock")
        .expect("it is free")
}

fn who() -> Outcome {
    let fs = TestFs::new();
    let (ours, theirs) = (app(&fs)?, PinDir::open(fs.at("app"))?);
    for take in EXCLUSIVE {
        drop(take_all(&ours));
        let lock = take(&ours)?.expect("nobody holds it");
        // Another call is another holder, even of the same value.
        for dir in [&ours, &theirs, &ours.try_clone()?] {
            assert!(!is_free(dir) && !is_free_for_readers(dir));
        }
        drop(lock);
    }
    for take in SHARED {
        drop(take_all(&ours));
        let first = take(&ours)?.expect("nobody holds it");
        assert!(!is_free(&ours) && !is_free(&theirs));
        for take in SHARED {
            assert!(take(&theirs)?.is_some(), "any number may share it");
        }
        let second = take(&theirs)?.expect("any number may share it");
        drop(first);
        assert!(!is_free(&ours), "there is another holder");
        drop(second);
    }
    // A lock is the directory's, not the tree's.
    let inner = ours.create_dir("inner", 0o700)?;
    let _outer = take_all(&ours);
    drop(take_all(&inner));
    Ok(())
}

fn who_elsewhere() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let other = Holder::ready(&fs, "lock", [fs.at("app")]);
    assert!(!is_free(&dir) && !is_free_for_readers(&dir));
    assert!(dir.lock_within(MOMENT)?.is_none());
    assert!(dir.lock_shared_within(MOMENT)?.is_none());
    other.let_go();
    drop(take_all(&dir));

    let other = Holder::ready(&fs, "lock_shared", [fs.at("app")]);
    assert!(is_free_for_readers(&dir));
    assert!(!is_free(&dir));
    assert!(dir.lock_within(MOMENT)?.is_none());
    other.let_go();
    drop(take_all(&dir));
    Ok(())
}

/// Counts in a map, in two steps that only the lock keeps together, for so long.
fn count(dir: &PinDir, time: Duration) -> u64 {
    let map = dir.open_as::<Map>("counter").expect("the counter");
    let counter = map.typed::<u32, u64>().expect("its elements");
    let end = Instant::now() + time;
    let mut counted = 0;
    while Instant::now() < end {
        let _lock = dir.lock().expect("the lock");
        let before = counter.lookup(&0).expect("a look-up").unwrap_or(0);
        thread::yield_now();
        let after = before + 1;
        counter
            .update(&0, &after, ElemFlags::ANY)
            .expect("an update");
        counted += 1;
    }
    counted
}

fn counted(dir: &PinDir) -> Result<u64> {
    let map = dir.open_as::<Map>("counter")?;
    Ok(map.typed::<u32, u64>()?.lookup(&0)?.unwrap_or(0))
}

fn threads_count() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    dir.pin(hash(), "counter")?;
    let start = Barrier::new(8);
    let sum: u64 = thread::scope(|scope| {
        let counters: Vec<_> = (0..8)
            .map(|number| {
                let (dir, start, fs) = (&dir, &start, &fs);
                scope.spawn(move || {
                    let own = PinDir::open(fs.at("app")).expect("the directory");
                    start.wait();
                    let dir = if number % 2 == 0 { dir } else { &own };
                    count(dir, Duration::from_millis(300))
                })
            })
            .collect();
        counters.into_iter().map(|c| c.join().unwrap()).sum()
    });
    assert_eq!(counted(&dir)?, sum);
    assert!(sum > 8, "{sum}");
    Ok(())
}

fn processes_count() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    dir.pin(hash(), "counter")?;
    let mut others: Vec<_> = (0..4)
        .map(|_| Holder::ready(&fs, "count", [fs.at("app")]))
        .collect();
    for other in &mut others {
        other.begin();
    }
    let mut sum = count(&dir, Duration::from_millis(300));
    for mut other in others {
        sum += other.line().parse::<u64>()?;
        other.let_go();
    }
    assert_eq!(counted(&dir)?, sum);
    assert!(sum > 5, "{sum}");
    Ok(())
}

/// Two elements that agree whenever nobody holds the lock alone.
fn readers() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    let both = map.typed::<u32, u64>()?;
    both.update(&0, &0, ElemFlags::ANY)?;
    both.update(&1, &0, ElemFlags::ANY)?;
    let (looks, written) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let end = Instant::now() + Duration::from_millis(300);
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1.. {
                let _lock = dir.lock().unwrap();
                both.update(&0, &value, ElemFlags::ANY).unwrap();
                thread::yield_now();
                both.update(&1, &value, ElemFlags::ANY).unwrap();
                written.fetch_add(1, SeqCst);
                if Instant::now() >= end {
                    break;
                }
            }
        });
        for take in SHARED {
            let (both, dir, looks) = (&both, &dir, &looks);
            scope.spawn(move || {
                while Instant::now() < end {
                    let Some(_lock) = take(dir).unwrap() else {
                        continue;
                    };
                    let first = both.lookup(&0).unwrap();
                    thread::yield_now();
                    assert_eq!(first, both.lookup(&1).unwrap());
                    looks.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let (looks, written) = (looks.into_inner(), written.into_inner());
    assert!(looks > 0 && written > 0, "{looks}, {written}");
    Ok(())
}

fn released() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    for take in all() {
        drop(take_all(&dir));
        let lock = take(&dir)?.expect("nobody holds it");
        // It holds out by itself.
        let other = PinDir::open(fs.at("app"))?;
        drop(PinDir::open(fs.at("app"))?);
        assert!(!is_free(&other));
        drop(lock);
    }
    let lock = dir.lock()?;
    let other = PinDir::open(fs.at("app"))?;
    drop(dir);
    assert!(!is_free(&other), "the directory's value is not the lock");
    drop(lock);
    drop(take_all(&other));
    Ok(())
}

fn killed() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    for task in ["lock", "lock_shared"] {
        let other = Holder::ready(&fs, task, [fs.at("app")]);
        assert!(!is_free(&dir));
        let got = AtomicBool::new(false);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let lock = dir.lock();
                got.store(true, SeqCst);
                lock
            });
            thread::sleep(MOMENT);
            assert!(!got.load(SeqCst), "it is held");
            other.kill();
            waiter.join().unwrap().map(drop)
        })?;
        drop(take_all(&dir));
    }
    Ok(())
}

fn bounded() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    type Within = fn(&PinDir, Duration) -> Result<Option<DirLock>>;
    let (alone, shared): (Within, Within) = (
        |dir, time| dir.lock_within(time),
        |dir, time| dir.lock_shared_within(time),
    );
    let times = [0, 1, 15, 120].map(Duration::from_millis);
    let in_vain = |within: Within| -> Outcome {
        for time in times {
            let begun = Instant::now();
            assert!(within(&dir, time)?.is_none());
            let waited = begun.elapsed();
            assert!(waited >= time, "{waited:?} of {time:?}");
            assert!(waited < time + AGES, "{waited:?} of {time:?}");
        }
        Ok(())
    };
    let held = take_all(&dir);
    in_vain(alone)?;
    in_vain(shared)?;
    drop(held);
    drop(take_all(&dir));
    let _held = dir.lock_shared()?;
    in_vain(alone)?;
    // What is free is had at once, however short or long the wait might have been.
    for time in times.into_iter().chain([Duration::MAX]) {
        assert!(shared(&dir, time)?.is_some());
    }
    Ok(())
}

fn becomes_free() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let takes: [Take; 4] = [
        |dir| dir.lock_within(AGES),
        |dir| dir.lock_shared_within(AGES),
        |dir| dir.lock_within(Duration::MAX),
        |dir| dir.lock_shared_within(Duration::MAX),
    ];
    for take in takes {
        let held = take_all(&dir);
        let begun = Instant::now();
        let lock = thread::scope(|scope| {
            let waiter = scope.spawn(|| take(&dir));
            thread::sleep(MOMENT);
            assert!(!waiter.is_finished());
            drop(held);
            waiter.join().unwrap()
        })?;
        assert!(lock.is_some());
        assert!(begun.elapsed() < AGES / 2, "{:?}", begun.elapsed());
    }
    Ok(())
}

fn assert_moved(error: &Error, path: &Path) {
    let cause = Cause::Moved { path: path.into() };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    assert_eq!(error.raw_os_error(), None);
    let operation = DirOperation::Lock;
    assert!(
        matches!(error, Error::Directory { operation: o, path: p, to: None, .. } if *o == operation && p == path)
    );
    let at = path.display();
    assert_eq!(
        error.to_string(),
        format!("lock {at}: {at} leads to another directory by now, or to none")
    );
}

/// Until that thread sleeps, in the call that it said it would make.
fn until_asleep(thread: i32) {
    let begun = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        let stat = stat.expect("a thread of ours");
        let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
        if state == Some("S") {
            return;
        }
        assert!(begun.elapsed() < AGES, "{stat}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The id of a thread that is about to wait, told to another.
#[derive(Default)]
struct Waiting(AtomicI32);

impl Waiting {
    fn announce(&self) {
        self.0.store(gettid().as_raw_nonzero().get(), SeqCst);
    }

    fn until_asleep(&self) -> i32 {
        let begun = Instant::now();
        while self.0.load(SeqCst) == 0 {
            assert!(begun.elapsed() < AGES);
            thread::sleep(Duration::from_millis(1));
        }
        let thread = self.0.load(SeqCst);
        until_asleep(thread);
        thread
    }
}

fn published_over() -> Outcome {
    let fs = TestFs::new();
    let parent = app(&fs)?;
    parent.stage("set")?.publish().map_err(Error::from)?;
    let path = fs.at("app/set");
    for take in waits() {
        let set = PinDir::open(&path)?;
        let held = take_all(&set);
        let waiting = Waiting::default();
        let waited = thread::scope(|scope| -> Result<_> {
            let waiter = scope.spawn(|| {
                let set = PinDir::open(&path)?;
                waiting.announce();
                take(&set)
            });
            waiting.until_asleep();
            let published = parent.stage("set")?.publish().map_err(Error::from)?;
            assert_eq!(published.dir.path(), path);
            // Who holds its lock keeps the old one.
            drop(published);
            assert!(set.own_metadata()?.links() > 0);
            drop(held);
            waiter.join().unwrap().map(|lock| lock.is_some())
        });
        let error = waited.expect_err("a lock of what is no longer at its path");
        assert_moved(&error, &path);
        // Opened anew it can be had, and whoever is late learns it at once.
        drop(take_all(&PinDir::open(&path)?));
        for take in all() {
            assert_moved(&take(&set).unwrap_err(), &path);
        }
        until_clean(&parent, &["set"])?;
    }
    Ok(())
}

/// Sweeps until nothing but these names is left: a lock may be held by a process that is being started.
fn until_clean(dir: &PinDir, expected: &[&str]) -> Outcome {
    let begun = Instant::now();
    loop {
        let swept = dir.sweep_stale()?;
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        let names: Vec<_> = dir.entries()?.collect::<Result<_>>()?;
        let mut names: Vec<_> = names.iter().map(|entry| entry.name()).collect();
        names.sort();
        if names == expected {
            return Ok(());
        }
        assert!(begun.elapsed() < AGES, "{names:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn moved() -> Outcome {
    let fs = TestFs::new();
    let parent = app(&fs)?;
    let path = fs.at("app/set");

    let set = parent.create_dir("set", 0o700)?;
    parent.rename("set", "elsewhere")?;
    let elsewhere = PinDir::open(fs.at("app/elsewhere"))?;
    for take in all() {
        assert_moved(&take(&set).unwrap_err(), &path);
        // And nothing is held.
        drop(take_all(&elsewhere));
    }
    // Another one by that name is another one.
    let other = parent.create_dir("set", 0o700)?;
    for take in all() {
        assert_moved(&take(&set).unwrap_err(), &path);
        assert!(take(&other)?.is_some());
        drop(take_all(&other));
    }
    parent.remove_dir("set")?;
    for take in all() {
        assert_moved(&take(&other).unwrap_err(), &path);
    }
    // A pin, a link to elsewhere; and a link to the very same, which is where the path leads.
    for target in ["gone", "elsewhere/..", "."] {
        rustix::fs::symlink(target, &path)?;
        assert_moved(&set.lock().unwrap_err(), &path);
        parent.unlink("set")?;
    }
    rustix::fs::symlink("elsewhere", &path)?;
    drop(set.lock()?);
    parent.unlink("set")?;
    // It came back.
    parent.rename("elsewhere", "set")?;
    for take in all() {
        assert!(take(&set)?.is_some());
        drop(take_all(&set));
    }
    Ok(())
}

fn covered() -> Outcome {
    let place = tempfile::tempdir()?;
    own_mounts(|| -> Outcome {
        mount("bpf", place.path(), "bpf", MountFlags::empty(), None)?;
        let path = place.path().join("app");
        let dir = PinDir::create(&path, 0o700)?;
        drop(take_all(&dir));
        mount("bpf", &path, "bpf", MountFlags::empty(), None)?;
        assert_moved(&dir.lock().unwrap_err(), &path);
        assert_moved(&dir.try_lock_shared().unwrap_err(), &path);
        drop(PinDir::open(&path)?.lock()?);
        unmount(&path, UnmountFlags::empty())?;
        drop(take_all(&dir));
        Ok(())
    })
}

/// In a process of its own, for a handler is the whole process's.
fn signals() -> Outcome {
    let fs = TestFs::new();
    app(&fs)?;
    let mut other = Holder::ready(&fs, "signals", [fs.at("app")]);
    assert_eq!(other.line(), "done");
    other.let_go();
    Ok(())
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_: libc::c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

fn waits_on(dir: &PinDir, path: &Path) {
    const SIGNALS: usize = 30;

    // SAFETY: all zeroes is a struct sigaction: no flags, so no SA_RESTART, and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does what is async-signal-safe; the old action is not asked for.
    let done = unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
    assert_eq!(done, 0);
    holder::say("ready");
    for take in waits() {
        let held = take_all(dir);
        let waiting = Waiting::default();
        let lock = thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let own = PinDir::open(path)?;
                waiting.announce();
                take(&own)
            });
            let thread = waiting.until_asleep();
            for _ in 0..SIGNALS {
                let handled = HANDLED.load(SeqCst);
                // SAFETY: a thread of this process, which is joined later.
                let sent = unsafe {
                    let process = std::process::id() as libc::pid_t;
                    libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGALRM)
                };
                assert_eq!(sent, 0);
                let begun = Instant::now();
                while HANDLED.load(SeqCst) == handled {
                    assert!(begun.elapsed() < AGES, "the signal was not handled");
                    thread::sleep(Duration::from_micros(100));
                }
                until_asleep(thread);
                assert!(!waiter.is_finished(), "the wait has ended");
            }
            drop(held);
            waiter.join().expect("no panic")
        });
        assert!(lock.expect("no error").is_some());
    }
    holder::say("done");
    holder::wait();
}

fn unreadable() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = app(&fs)?;
    let path = fs.at("app");
    for (mode, wanted) in [(0o711, "read"), (0o733, "read"), (0o700, "search")] {
        chmod(&path, Mode::from_raw_mode(mode))?;
        as_user(CapabilitySet::empty(), || {
            for take in all() {
                let error = take(&dir).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
                let cause = Cause::Blocked {
                    path: path.clone(),
                    mode,
                    uid: 0,
                    wanted,
                    read_only_would_do: false,
                };
                assert_eq!(error.cause(), Some(&cause));
                let at = path.display();
                let because = format!(
                    "lock {at}: {at} (mode {mode:04o}, owner 0) does not let this user {wanted}"
                );
                assert_eq!(error.to_string(), because);
            }
        });
        drop(take_all(&dir));
    }
    // To read it is enough: the lock asks for no write permission.
    chmod(&path, Mode::from_raw_mode(0o755))?;
    as_user(CapabilitySet::empty(), || dir.lock().map(drop))?;
    Ok(())
}

/// Who holds the shared lock finds all pins of the set, however often it is replaced meanwhile.
fn read_while_published() -> Outcome {
    let fs = TestFs::new();
    let parent = app(&fs)?;
    let names = ["a", "b", "c", "d"];
    let publish = || -> Result<()> {
        let stage = parent.stage("set")?;
        for name in names {
            stage.pin(hash(), name)?;
        }
        stage.publish()?;
        Ok(())
    };
    publish()?;
    let path: PathBuf = fs.at("app/set");
    let end = Instant::now() + Duration::from_millis(400);
    let (read, again) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut read, mut again) = (0, 0);
            while Instant::now() < end || read == 0 {
                let set = match PinDir::open(&path) {
                    Ok(set) => set,
                    // On a kernel without RENAME_EXCHANGE there is a gap.
                    Err(error) if kernel(5, 17).unmet().is_some() => {
                        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                        again += 1;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let _lock = match set.lock_shared() {
                    Ok(lock) => lock,
                    Err(error) => {
                        assert_moved(&error, &path);
                        again += 1;
                        continue;
                    }
                };
                for name in names {
                    set.open_as::<Map>(name).expect("all of it");
                    thread::yield_now();
                }
                read += 1;
            }
            (read, again)
        });
        while Instant::now() < end {
            publish().expect("a new set");
        }
        reader.join().unwrap()
    });
    println!("read {read} sets, came {again} times in between");
    until_clean(&parent, &["set"])
}

/// While others publish without a pause: neither an error nor half a set.
fn opened_and_locked() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("app"), 0o700)?;
    let publish = |dir: &PinDir| -> Result<()> {
        let set = dir.stage("set")?;
        let map = hash();
        for name in ["a", "b", "c"] {
            set.pin(&map, name)?;
        }
        match set.publish()?.old {
            Some(old) => old.discard(),
            None => Ok(()),
        }
    };
    publish(&dir)?;
    // Without RENAME_EXCHANGE there are moments in which nothing has the name.
    let has_gaps = kernel(5, 17).unmet().is_some();
    let is_done = AtomicBool::new(false);
    let read = || -> Result<usize> {
        let dir = PinDir::open(fs.at("app"))?;
        let mut count = 0;
        while !is_done.load(SeqCst) {
            let (set, _lock) = match dir.open_dir_shared("set") {
                Err(error) if has_gaps && error.raw_os_error() == Some(libc::ENOENT) => continue,
                opened => opened?,
            };
            let ids: Result<Vec<_>> = ["a", "b", "c"]
                .iter()
                .map(|name| set.open_as::<Map>(name)?.id())
                .collect();
            let ids = ids?;
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
            count += 1;
        }
        Ok(count)
    };
    thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        let end = Instant::now() + Duration::from_millis(500);
        let mut published = Ok(());
        while published.is_ok() && Instant::now() < end {
            published = publish(&dir);
        }
        is_done.store(true, SeqCst);
        for reader in readers {
            assert!(reader.join().expect("a reader")? > 0);
        }
        published
    })?;
    assert!(dir.open_dir_shared("nothing").is_err());
    assert_eq!(PinDir::open(fs.at("app"))?.entries()?.count(), 1);
    Ok(())
}

/// In a process of its own, whose descriptors are no other test's.
fn released_beside_a_child() -> Outcome {
    let fs = TestFs::new();
    drop(PinDir::create(fs.at("app"), 0o700)?);
    Holder::ready(&fs, "fork", [fs.at("app")]).let_go();
    Ok(())
}

/// The child has a copy of every descriptor, and does nothing with them until it is told to end.
fn fork_and_release(dir: &PinDir) -> Outcome {
    let lock = dir.lock()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    // SAFETY: the child calls nothing but read and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut byte = 0u8;
        // SAFETY: the pipe is open; byte is one writable byte.
        unsafe {
            libc::close(std::os::fd::AsRawFd::as_raw_fd(&writer));
            libc::read(
                std::os::fd::AsRawFd::as_raw_fd(&reader),
                (&raw mut byte).cast(),
                1,
            );
            libc::_exit(0);
        }
    }
    assert!(child > 0);
    drop(lock);
    let taken = dir.try_lock();
    drop(writer);
    let mut status = 0;
    // SAFETY: status is writable; the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(taken?.is_some(), "the child has kept it");
    Ok(())
}

/// A directory that came as a descriptor has no path to be moved from, and neither has what is in it.
fn no_path() -> Outcome {
    let fs = TestFs::new();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let root = rustix::fs::open(fs.root(), flags, Mode::empty())?;
    let inner = PinDir::from_fd(root)
        .map_err(Error::from)?
        .create_dir("inner", 0o700)?;
    // The root's descriptor is closed, and its number may be another's.
    drop(inner.lock()?);
    drop(inner.try_clone()?.lock_shared()?);
    PinDir::open(fs.root())?.remove_dir("inner")?;
    let error = inner.lock().unwrap_err();
    assert!(
        matches!(error.cause(), Some(Cause::Removed { .. })),
        "{error}"
    );
    Ok(())
}
