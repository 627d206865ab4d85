//! Stress tests. Each runs in its own process, so that its descriptors can be counted.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::Read;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::Identity;
use common::*;

/// The environment variable with the name of the stress test or worker.
const NAME: &str = "BPF_PIN_TEST_STRESS";
/// The environment variable with the root of a worker's bpffs.
const ROOT: &str = "BPF_PIN_TEST_ROOT";
/// If set, every stress test runs to its end, without a time limit.
const LONG: &str = "BPF_PIN_TESTS_LONG";

/// The name of a stress test or worker, and its function.
pub type StressTest = (&'static str, fn() -> Outcome);

/// Runs the function that this process was started for, if any.
pub fn run_requested(tests: &[StressTest]) -> Option<ExitCode> {
    let name = env::var(NAME).ok()?;
    let (_, test) = tests.iter().find(|(known, _)| *known == name)?;
    let before = descriptors();
    let outcome = panic::catch_unwind(test);
    let failed = match outcome {
        Ok(Ok(())) if descriptors() == before => return Some(ExitCode::SUCCESS),
        Ok(Ok(())) => format!("descriptors: {:?}, before {before:?}", descriptors()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it panicked".into(),
    };
    eprintln!("{name}: {failed}");
    Some(ExitCode::FAILURE)
}

/// Runs a stress test in its own process, which must not leave a descriptor open.
pub fn run(name: &str) -> Outcome {
    let output = command(name)?.stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name}: {}\n{stderr}",
        output.status
    );
    // The report of the test, visible with --nocapture.
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn command(name: &str) -> std::io::Result<Command> {
    let mut command = common::command(env::current_exe()?);
    command.env(NAME, name);
    Ok(command)
}

/// A process that takes part in a stress test. It ends when this is dropped.
pub struct Worker(Child);

impl Worker {
    /// Starts the process on the same bpffs.
    pub fn start(part: &str, fs: &TestFs) -> std::io::Result<Self> {
        let of_this_process = format!("/proc/{}/", std::process::id());
        let root = fs.root().to_str().expect("a path of ASCII");
        let root = root.replacen("/proc/self/", &of_this_process, 1);
        let child = command(part)?
            .env(ROOT, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Lets the process finish and returns its output.
    pub fn finish(mut self) -> std::io::Result<String> {
        // A worker in `repeat_until_released` stops when its standard input closes.
        drop(self.0.stdin.take());
        let mut report = String::new();
        if let Some(mut out) = self.0.stdout.take() {
            out.read_to_string(&mut report)?;
        }
        let status = self.0.wait()?;
        assert!(status.success(), "{status}: {report}");
        Ok(report)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The root of the bpffs on which a worker runs.
pub fn worker_root() -> PathBuf {
    PathBuf::from(env::var_os(ROOT).expect("started by a stress test"))
}

/// Repeats `act` until the test releases the worker.
pub fn repeat_until_released(mut act: impl FnMut() -> Outcome) -> Outcome {
    let mut waiting = std::io::stdin();
    thread::scope(|scope| {
        let test = scope.spawn(move || waiting.read(&mut [0]));
        while !test.is_finished() {
            act()?;
        }
        Ok(())
    })
}

/// The number of repetitions of a step: as many as fit into the time limit, but at least `least`, enough to expose a
/// race, and at most `most`.
pub struct Repetitions {
    least: u32,
    most: u32,
    end: Option<Instant>,
}

impl Repetitions {
    pub fn new(least: u32, most: u32, time: Duration) -> Self {
        let is_long = env::var_os(LONG).is_some();
        let end = (!is_long).then(|| Instant::now() + time);
        Self { least, most, end }
    }

    pub fn continue_after(&self, done: u32) -> bool {
        let is_time = || self.end.is_none_or(|end| Instant::now() < end);
        done < self.least || done < self.most && is_time()
    }
}

/// Runs the writers to their end and the readers meanwhile. Returns the results of the writers and
/// the sum of the readers' counts.
pub fn write_and_read<T: Send>(
    writers: usize,
    write: impl Fn(usize) -> T + Sync,
    readers: usize,
    read: impl Fn(usize) -> u32 + Sync,
) -> (Vec<T>, u32) {
    let all_write = || {
        thread::scope(|scope| {
            let write = &write;
            let writers: Vec<_> = (0..writers)
                .map(|writer| scope.spawn(move || write(writer)))
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        })
    };
    read_during(all_write, readers, read)
}

/// Repeats the reads until `act` is over, and once more after that.
pub fn read_during<T: Send>(
    act: impl FnOnce() -> T + Send,
    readers: usize,
    read: impl Fn(usize) -> u32 + Sync,
) -> (T, u32) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (is_over, read) = (&is_over, &read);
        let read_to_the_end = |reader| {
            let mut sum = 0;
            loop {
                let is_last = is_over.load(Relaxed);
                sum += read(reader);
                if is_last {
                    return sum;
                }
            }
        };
        let readers: Vec<_> = (0..readers)
            .map(|reader| scope.spawn(move || read_to_the_end(reader)))
            .collect();
        // On its own thread, so that the readers stop even if it panics.
        let acted = scope.spawn(act).join();
        is_over.store(true, Relaxed);
        let read: Vec<_> = readers.into_iter().map(|r| r.join()).collect();
        let sum = read.into_iter().map(Result::unwrap).sum();
        (acted.unwrap(), sum)
    })
}

/// All objects that have had the name.
#[derive(Default)]
pub struct PastObjects(Mutex<HashSet<Identity>>);

impl PastObjects {
    /// To be called before the object gets the name.
    pub fn insert(&self, identity: Identity) {
        self.0.lock().unwrap().insert(identity);
    }

    #[track_caller]
    pub fn assert_contains(&self, identity: Identity) {
        assert!(self.0.lock().unwrap().contains(&identity), "{identity}");
    }
}

/// The open descriptors of this process, as the files that they refer to.
fn descriptors() -> Vec<PathBuf> {
    let path = Path::new("/proc/self/fd");
    let entries = fs::read_dir(path).expect("/proc");
    let of = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut of: Vec<_> = of.collect();
    of.sort();
    of
}

/// Returns true if bpffs supports RENAME_EXCHANGE (Linux 5.17).
pub fn has_exchange() -> bool {
    kernel(5, 17).unmet().is_none()
}
