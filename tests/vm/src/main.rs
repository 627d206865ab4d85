//! `cargo vm`: boots Linux kernels in QEMU and runs this workspace's tests in each.
//!
//! Tests and init are static programs in an initramfs, which is a guest's whole user space. Init runs every program
//! with the privileges of every phase and sends records over a port of its own; this side evaluates them and prints a table.

#![allow(clippy::disallowed_methods, reason = "not a test")]

mod apt;
mod args;
mod candidates;
mod harness;
mod initramfs;
mod kernel;
mod native;
mod programs;
mod qemu;
mod report;
mod sources;
mod table;
mod target;
mod toolchain;
mod verdict;

use args::{Args, Command};
use guest::plan::{Job, Plan};
use guest::wire::{Record, Status};
use initramfs::Contents;
use kernel::{Kernel, KernelStore};
use programs::{Programs, Wanted, Workspace};
use qemu::Machine;
use report::GuestReport;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;
use target::{HOST, Target};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    let done = match args.command {
        Command::Help => {
            print!("{}", args::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Command::List => list(&args),
        Command::Cargo(ref arguments) => cargo(&args, arguments),
        Command::Test => test(&args),
        Command::Run { .. } | Command::Shell => alone(&args),
    };
    done.unwrap_or_else(|why| {
        eprintln!("error: {why}");
        ExitCode::FAILURE
    })
}

/// Locks a directory until the file is closed.
fn lock(dir: &Path) -> Result<File, String> {
    let path = dir.join("lock");
    let at = |error: std::io::Error| format!("{}: {error}", path.display());
    let lock = File::create(&path).map_err(at)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| at(error.into()))?;
    Ok(lock)
}

fn list(args: &Args) -> Result<ExitCode, String> {
    let state = Workspace::find()?.state;
    let mut code = ExitCode::SUCCESS;
    for &target in &args.targets {
        let mut kernel_store = KernelStore::open(&state, target, args.refresh)?;
        for slot in kernel_store.slots(&args.kernels)? {
            if slot == HOST {
                println!("{:12} {slot:8} this machine's", target.name);
                continue;
            }
            match kernel_store.describe(&slot) {
                Ok(line) => println!("{:12} {line}", target.name),
                Err(why) => {
                    println!("{:12} {slot:8} missing: {why}", target.name);
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    Ok(code)
}

/// Runs cargo with Rust 1.85 for each target, up to the first failure.
fn cargo(args: &Args, arguments: &[OsString]) -> Result<ExitCode, String> {
    let state = Workspace::find()?.state;
    let subcommand = arguments.first().and_then(|word| word.to_str());
    let links = !matches!(subcommand, Some("check" | "clippy" | "doc" | "tree"));
    for target in &args.targets {
        target.check(links, false)?;
    }
    for target in &args.targets {
        if !programs::run_cargo(&state, target, arguments)? {
            return Err(format!("cargo failed for {}", target.triple));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The kernels for a target, or reports on those that are missing.
fn kernels(
    args: &Args,
    target: &'static Target,
    state: &Path,
) -> Result<Vec<Result<Kernel, Box<GuestReport>>>, String> {
    let mut found: Vec<Result<Kernel, Box<GuestReport>>> = vec![];
    for image in &args.images {
        found.push(Ok(kernel::kernel_from_file(image)?));
    }
    if !args.images.is_empty() && args.kernels.is_empty() {
        return Ok(found);
    }
    let mut kernel_store = KernelStore::open(state, target, args.refresh)?;
    for slot in kernel_store.slots(&args.kernels)? {
        if slot == HOST {
            found.push(if target.is_native() {
                Ok(kernel::host())
            } else {
                let mut report = GuestReport::new(target, &slot);
                let why = "this machine's processor does not run its programs";
                report.faults.push(why.to_owned());
                Err(Box::new(report))
            });
            continue;
        }
        match kernel_store.get(&slot) {
            Ok(kernel)
                if found
                    .iter()
                    .flatten()
                    .any(|known| known.version == kernel.version) =>
            {
                eprintln!("{slot} is {}, which is already selected", kernel.version);
            }
            Ok(kernel) => found.push(Ok(kernel)),
            Err(why) => {
                let mut report = GuestReport::new(target, &slot);
                report.faults.push(format!("no kernel: {why}"));
                found.push(Err(Box::new(report)));
            }
        }
    }
    Ok(found)
}

/// A target's programs, and the machine that runs them.
struct Prepared {
    target: &'static Target,
    programs: Programs,
    machine: Machine,
}

fn test(args: &Args) -> Result<ExitCode, String> {
    let workspace = Workspace::find()?;
    for target in &args.targets {
        target.check(
            true,
            args.kernels.iter().any(|kernel| kernel != HOST) || args.kernels.is_empty(),
        )?;
    }
    let scratch = Scratch::new(&workspace.state)?;
    let (mut prepared, mut queue) = (vec![], vec![]);
    for &target in &args.targets {
        match prepare(args, target, &workspace, &scratch) {
            Ok(one) => {
                let number = prepared.len();
                prepared.push(one);
                let kernels = kernels(args, target, &workspace.state)?;
                queue.extend(
                    kernels
                        .into_iter()
                        .map(|kernel| kernel.map(|kernel| (number, kernel))),
                );
            }
            // The other targets are still tested.
            Err(why) => {
                let mut report = GuestReport::new(target, "-");
                report.faults.push(why);
                queue.push(Err(Box::new(report)));
            }
        }
    }
    let logs = workspace.state.join("log");
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;

    let queue = Mutex::new(queue.into_iter().enumerate());
    let done = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic while it is held").next();
                    let Some((place, kernel)) = next else { return };
                    let report = match kernel {
                        Ok((number, kernel)) => {
                            boot(args, &prepared[number], &kernel, &scratch.0, &logs)
                        }
                        Err(missing) => *missing,
                    };
                    done.lock()
                        .expect("no panic while it is held")
                        .push((place, report));
                }
            });
        }
    });
    let mut reports = done.into_inner().expect("no panic while it was held");
    reports.sort_by_key(|(place, _)| *place);
    let reports: Vec<_> = reports.into_iter().map(|(_, report)| report).collect();

    print!("{}", table::render(&reports, &args.phases));
    if let Some(path) = &args.markdown {
        std::fs::write(path, table::markdown(&reports))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let [_, failed, _] = table::sums(&reports);
    Ok(if failed == 0 && !reports.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds a target's tests and packs them.
fn prepare(
    args: &Args,
    target: &'static Target,
    workspace: &Workspace,
    scratch: &Scratch,
) -> Result<Prepared, String> {
    let programs = workspace.build(target, &Wanted::Tests(args.tests.clone()))?;
    let job = Job::Test {
        phases: args.phases.clone(),
        programs: programs
            .tests
            .iter()
            .map(|program| program.name.clone())
            .collect(),
    };
    let machine = scratch.machine(args, target, &programs, job, &args.filter, None)?;
    Ok(Prepared {
        target,
        programs,
        machine,
    })
}

/// Runs the tests on one kernel: in a guest, or natively.
fn boot(
    args: &Args,
    prepared: &Prepared,
    kernel: &Kernel,
    scratch: &Path,
    logs: &Path,
) -> GuestReport {
    let name = format!("{}-{}.console", prepared.target.name, kernel.label);
    let console = scratch.join(&name);
    let mut report = GuestReport::new(prepared.target, &kernel.label);
    let begun = Instant::now();
    let mut see = |record| report.add_record(record);
    let (ended, phases) = if kernel.label == HOST {
        let (ended, phase) = run_natively(args, prepared, scratch, &mut see);
        (ended, Vec::from_iter(phase))
    } else {
        let machine = Machine {
            kernel: kernel.image.clone(),
            ..prepared.machine.clone()
        };
        let ended = machine
            .run(&console, args.timeout, &mut see)
            .map_err(|why| {
                let log = std::fs::read(&console).unwrap_or_default();
                format!(
                    "{why}\nthe end of {name}:\n{}",
                    verdict::tail(&String::from_utf8_lossy(&log))
                )
            });
        // The log of an earlier run may go, but half a log must not stay.
        if let Err(error) = std::fs::rename(&console, logs.join(&name)) {
            eprintln!("{}: {error}", console.display());
        }
        (ended, args.phases.clone())
    };
    report.end(ended, &phases, !args.filter.is_empty());
    let seconds = begun.elapsed().as_secs_f32();
    let [passed, failed, skipped] = report.sums();
    let (title, slowest) = (report.title(), report.slowest(8));
    eprintln!(
        "{title}: {passed} passed, {failed} failed, {skipped} skipped in {seconds:.1} s; longest: {slowest}"
    );
    for line in report.phase_times() {
        eprintln!("{title}: {line}");
    }
    // Failures are named at once, since the other guests may take long. Their output comes with the table.
    for phase in &report.phases {
        for failure in &phase.verdict.failed {
            eprintln!("{title}: {} failed ({})", failure.name, phase.phase.name);
        }
    }
    report
}

fn run_natively(
    args: &Args,
    prepared: &Prepared,
    scratch: &Path,
    see: &mut dyn FnMut(Record),
) -> (Result<(), String>, Option<guest::phase::Phase>) {
    let dir = scratch.join("native");
    let phase = native::phase().and_then(|phase| match std::fs::create_dir_all(&dir) {
        Ok(()) => Ok(phase),
        Err(error) => Err(format!("{}: {error}", dir.display())),
    });
    match phase {
        Ok(phase) => {
            let tests = &prepared.programs.tests;
            let limit = args.timeout / 5;
            let ended = native::run(tests, &args.filter, &dir, phase, limit, see);
            (ended, Some(phase))
        }
        Err(why) => (Err(why), None),
    }
}

/// Boots one guest for an example or a shell.
fn alone(args: &Args) -> Result<ExitCode, String> {
    let &[target] = args.targets.as_slice() else {
        return Err("an example or a shell runs on one target".to_owned());
    };
    target.check(true, true)?;
    let is_shell = args.command == Command::Shell;
    let busybox = match (is_shell, target.is_native()) {
        (false, _) => None,
        (true, true) => Some(initramfs::busybox()?),
        (true, false) => return Err(format!("a shell needs a busybox for {}", target.triple)),
    };
    let workspace = Workspace::find()?;
    let (wanted, job, arguments) = match &args.command {
        Command::Run { example, args } => (
            Wanted::Example(example.clone()),
            Job::Run(example.clone()),
            args.as_slice(),
        ),
        _ => (Wanted::Everything, Job::Shell, &[][..]),
    };
    let programs = workspace.build(target, &wanted)?;
    let mut selected = args.kernels.clone();
    if selected.is_empty() && args.images.is_empty() {
        // The last of the default slots is the newest.
        selected.extend(target.slots.last().map(|&slot| slot.to_owned()));
    }
    let selected = Args {
        kernels: selected,
        images: args.images.clone(),
        refresh: args.refresh,
        ..Args::parse([]).expect("no arguments are valid")
    };
    let mut kernels = kernels(&selected, target, &workspace.state)?;
    let kernel = match (kernels.pop(), kernels.is_empty()) {
        (Some(Ok(kernel)), true) if kernel.label != HOST => kernel,
        (Some(Err(missing)), true) => return Err(missing.faults.join("\n")),
        _ => return Err("an example or a shell runs on one kernel, in a guest".to_owned()),
    };
    let scratch = Scratch::new(&workspace.state)?;
    let machine = scratch.machine(args, target, &programs, job, arguments, busybox)?;
    let machine = Machine {
        kernel: kernel.image,
        ..machine
    };
    if is_shell {
        let status = machine.run_here()?;
        return if status.success() {
            Ok(ExitCode::SUCCESS)
        } else {
            Err(format!("QEMU: {status}"))
        };
    }
    run_example(args, &machine, &scratch.0.join("console"))
}

/// Passes on the example's output, and its exit status as a shell would.
fn run_example(args: &Args, machine: &Machine, console: &Path) -> Result<ExitCode, String> {
    let (mut status, mut faults) = (None, vec![]);
    let ended = machine.run(console, args.timeout, &mut |record| match record {
        // The guest goes on after a closed pipe.
        Record::Out(bytes) => drop(std::io::stdout().write_all(&bytes)),
        Record::Err(bytes) => drop(std::io::stderr().write_all(&bytes)),
        Record::Exit(Status::Code(code)) => status = u8::try_from(code).ok(),
        Record::Exit(Status::Signal(signal)) => status = u8::try_from(128 + signal).ok(),
        Record::Exit(Status::Late) => faults.push("the example took too long".to_owned()),
        Record::Fault(why) => faults.push(why),
        _ => {}
    });
    let _ = std::io::stdout().flush();
    if let Err(why) = ended {
        let log = std::fs::read(console).unwrap_or_default();
        faults.push(format!(
            "{why}\nthe end of its console:\n{}",
            verdict::tail(&String::from_utf8_lossy(&log))
        ));
    }
    match status {
        Some(status) if faults.is_empty() => Ok(ExitCode::from(status)),
        _ => Err(faults.join("\n")),
    }
}

/// A directory for this process, so that runs in parallel do not share files.
struct Scratch(PathBuf);

impl Scratch {
    fn new(state: &Path) -> Result<Self, String> {
        let run = state.join("run");
        // Leftovers of runs that were killed.
        for entry in run.read_dir().into_iter().flatten().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let dir = run.join(std::process::id().to_string());
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self(dir))
    }

    /// A machine with the job's initramfs, without a kernel.
    fn machine(
        &self,
        args: &Args,
        target: &'static Target,
        programs: &Programs,
        job: Job,
        arguments: &[OsString],
        busybox: Option<PathBuf>,
    ) -> Result<Machine, String> {
        // A few programs may hang before the guest's own limit passes.
        let limit = match job {
            Job::Test { .. } => args.timeout / 5,
            Job::Run(_) | Job::Shell => args.timeout,
        };
        let plan = Plan {
            job,
            limit,
            args: arguments.iter().map(|arg| arg.clone().into_vec()).collect(),
            ttys: target.kernel.ttys.map(str::to_owned),
        };
        let initramfs = self.0.join(format!("{}.cpio", target.name));
        let contents = Contents {
            init: &programs.init,
            tests: &programs.tests,
            examples: &programs.examples,
            busybox,
            plan: &plan,
        };
        let size = initramfs::write(&initramfs, &contents)?;
        // While it is unpacked the archive is in memory twice, and the root file system may use half the memory.
        let memory_mib = (512 + 3 * (size >> 20)).max(1024);
        Ok(Machine {
            platform: target.kernel,
            kernel: PathBuf::new(),
            initramfs,
            memory_mib,
            accel: args.accel.clone(),
            append: args.append.clone(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
