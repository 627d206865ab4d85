//! `cargo vm`: boots Linux kernels in QEMU and runs this workspace's tests in each.
//!
//! The tests are built as static programs and packed with init, a static program too, into an initramfs: the whole
//! user space of a guest. Init runs every program in every phase of privileges and sends what it sees over a serial
//! port; here that is judged and made a table of.

mod apt;
mod args;
mod harness;
mod initramfs;
mod judge;
mod kernel;
mod programs;
mod qemu;
mod report;
mod sources;
mod table;

use args::{Args, Command};
use guest::plan::{Job, Plan};
use guest::wire::{Record, Status};
use initramfs::Contents;
use kernel::{Cellar, Kernel};
use programs::{Programs, Workspace};
use qemu::Machine;
use report::GuestReport;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

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
        Command::Test => test(&args),
        Command::Run { .. } | Command::Shell => alone(&args),
    };
    done.unwrap_or_else(|why| {
        eprintln!("error: {why}");
        ExitCode::FAILURE
    })
}

fn list(args: &Args) -> Result<ExitCode, String> {
    let state = Workspace::find()?.state;
    let mut cellar = Cellar::open(&state, args.refresh)?;
    let mut code = ExitCode::SUCCESS;
    for slot in cellar.slots(&args.kernels)? {
        match cellar.describe(&slot) {
            Ok(line) => println!("{line}"),
            Err(why) => {
                println!("{slot:8} missing: {why}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The kernels asked for; where one cannot be had, a report that says so.
fn kernels(args: &Args, state: &Path) -> Result<Vec<Result<Kernel, GuestReport>>, String> {
    let mut found: Vec<Result<Kernel, GuestReport>> = vec![];
    for image in &args.images {
        found.push(Ok(kernel::own(image)?));
    }
    if args.images.is_empty() || !args.kernels.is_empty() {
        let mut cellar = Cellar::open(state, args.refresh)?;
        for slot in cellar.slots(&args.kernels)? {
            match cellar.get(&slot) {
                Ok(kernel)
                    if found
                        .iter()
                        .flatten()
                        .any(|known| known.version == kernel.version) =>
                {
                    eprintln!("{slot} is {}, which is there already", kernel.version);
                }
                Ok(kernel) => found.push(Ok(kernel)),
                Err(why) => {
                    let mut report = GuestReport::new(&slot);
                    report.faults.push(format!("no kernel: {why}"));
                    found.push(Err(report));
                }
            }
        }
    }
    Ok(found)
}

fn test(args: &Args) -> Result<ExitCode, String> {
    qemu::check()?;
    let workspace = Workspace::find()?;
    let programs = workspace.build()?;
    let kernels = kernels(args, &workspace.state)?;
    let job = Job::Test {
        phases: args.phases.clone(),
        programs: programs
            .tests
            .iter()
            .map(|program| program.name.clone())
            .collect(),
    };
    let scratch = Scratch::new(&workspace.state)?;
    let contents = Programs {
        examples: vec![],
        ..programs
    };
    let machine = scratch.machine(args, &contents, job, &args.filter, None)?;
    let logs = workspace.state.join("log");
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;

    let queue = Mutex::new(kernels.into_iter().enumerate());
    let done = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic while it is held").next();
                    let Some((number, kernel)) = next else { return };
                    let report = kernel.map_or_else(
                        |missing| missing,
                        |kernel| boot(args, &kernel, &machine, &scratch.0, &logs),
                    );
                    done.lock()
                        .expect("no panic while it is held")
                        .push((number, report));
                }
            });
        }
    });
    let mut reports = done.into_inner().expect("no panic while it was held");
    reports.sort_by_key(|(number, _)| *number);
    let reports: Vec<_> = reports.into_iter().map(|(_, report)| report).collect();

    print!("{}", table::render(&reports, &args.phases));
    let [_, failed, _] = table::sums(&reports);
    Ok(if failed == 0 && !reports.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn boot(
    args: &Args,
    kernel: &Kernel,
    machine: &Machine,
    scratch: &Path,
    logs: &Path,
) -> GuestReport {
    let machine = Machine {
        kernel: kernel.image.clone(),
        ..machine.clone()
    };
    let name = format!("{}.console", kernel.label);
    let console = scratch.join(&name);
    let mut report = GuestReport::new(&kernel.label);
    let begun = Instant::now();
    let ended = machine
        .run(&console, args.timeout, &mut |record| report.see(record))
        .map_err(|why| {
            let log = std::fs::read(&console).unwrap_or_default();
            format!(
                "{why}\nthe end of {name}:\n{}",
                judge::tail(&String::from_utf8_lossy(&log))
            )
        });
    report.end(ended, &args.phases, !args.filter.is_empty());
    let seconds = begun.elapsed().as_secs_f32();
    let [passed, failed, skipped] = report.sums();
    let slowest = report.slowest(8);
    eprintln!(
        "{}: {passed} passed, {failed} failed, {skipped} skipped in {seconds:.1} s; longest: {slowest}",
        kernel.label
    );
    // At once: the rest may take long, and the outputs come with the table.
    for phase in &report.phases {
        for failure in &phase.verdict.failed {
            eprintln!(
                "{}: {} failed ({})",
                kernel.label, failure.name, phase.phase.name
            );
        }
    }
    // The log of another run may go; half of one may not stay.
    if let Err(error) = std::fs::rename(&console, logs.join(&name)) {
        eprintln!("{}: {error}", console.display());
    }
    report
}

/// One guest for an example or a shell.
fn alone(args: &Args) -> Result<ExitCode, String> {
    qemu::check()?;
    let is_shell = args.command == Command::Shell;
    let busybox = if is_shell {
        Some(initramfs::busybox()?)
    } else {
        None
    };
    let workspace = Workspace::find()?;
    let programs = workspace.build()?;
    let (job, arguments) = match &args.command {
        Command::Run { example, args } => {
            if !programs
                .examples
                .iter()
                .any(|program| program.name == *example)
            {
                let names: Vec<_> = programs
                    .examples
                    .iter()
                    .map(|program| program.name.as_str())
                    .collect();
                return Err(format!(
                    "no example {example}; there are {}",
                    names.join(", ")
                ));
            }
            (Job::Run(example.clone()), args.as_slice())
        }
        _ => (Job::Shell, &[][..]),
    };
    let newest = Args {
        kernels: vec!["newest".to_owned()],
        ..Args::parse([]).expect("no arguments are fine")
    };
    let wanted = if args.kernels.is_empty() && args.images.is_empty() {
        Args {
            refresh: args.refresh,
            ..newest
        }
    } else {
        Args {
            kernels: args.kernels.clone(),
            images: args.images.clone(),
            refresh: args.refresh,
            ..newest
        }
    };
    let mut kernels = kernels(&wanted, &workspace.state)?;
    let kernel = match (kernels.pop(), kernels.is_empty()) {
        (Some(Ok(kernel)), true) => kernel,
        (Some(Err(missing)), true) => return Err(missing.faults.join("\n")),
        _ => return Err("one kernel, please".to_owned()),
    };
    let scratch = Scratch::new(&workspace.state)?;
    let machine = scratch.machine(args, &programs, job, arguments, busybox)?;
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

/// Passes on what the example writes, and its exit status as a shell would.
fn run_example(args: &Args, machine: &Machine, console: &Path) -> Result<ExitCode, String> {
    let (mut status, mut faults) = (None, vec![]);
    let ended = machine.run(console, args.timeout, &mut |record| match record {
        // A closed pipe is no reason to leave the guest behind.
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
            judge::tail(&String::from_utf8_lossy(&log))
        ));
    }
    match status {
        Some(status) if faults.is_empty() => Ok(ExitCode::from(status)),
        _ => Err(faults.join("\n")),
    }
}

/// A directory for this process: two runs at once do not write each other's files.
struct Scratch(PathBuf);

impl Scratch {
    fn new(state: &Path) -> Result<Self, String> {
        let run = state.join("run");
        // What a run that was killed left behind.
        for entry in run.read_dir().into_iter().flatten().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let dir = run.join(std::process::id().to_string());
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self(dir))
    }

    /// A machine with the job's initramfs, but no kernel yet.
    fn machine(
        &self,
        args: &Args,
        programs: &Programs,
        job: Job,
        arguments: &[OsString],
        busybox: Option<PathBuf>,
    ) -> Result<Machine, String> {
        // A few programs that hang are still told by name before the guest's own time is over.
        let limit = match job {
            Job::Test { .. } => args.timeout / 5,
            Job::Run(_) | Job::Shell => args.timeout,
        };
        let plan = Plan {
            job,
            limit,
            args: arguments.iter().map(|arg| arg.clone().into_vec()).collect(),
        };
        let initramfs = self.0.join("initramfs.cpio");
        let contents = Contents {
            init: &programs.init,
            tests: &programs.tests,
            examples: &programs.examples,
            busybox,
            plan: &plan,
        };
        let size = initramfs::write(&initramfs, &contents)?;
        // The archive lies in memory twice while it is unpacked, and the root file system is half the memory.
        let memory_mib = (512 + 3 * (size >> 20)).max(1024);
        Ok(Machine {
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
