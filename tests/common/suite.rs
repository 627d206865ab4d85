//! The harness: prints what libtest prints, plus skipped tests with their reasons, and parts that passed tests
//! have omitted.

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use rustix::thread::CapabilitySet;

use crate::namespace::{as_user, without_capabilities};
use crate::{Need, Outcome, cap, cleanup, run_in_own_process};

/// The result of a test.
pub type TestResult = Outcome;

/// A function that `#[common::test]` registered.
pub struct Test {
    pub module: &'static str,
    pub name: &'static str,
    pub needs: &'static [Need],
    pub run: fn() -> Outcome,
}

/// A function that `#[common::test_alone]` registered.
pub struct TestAlone {
    pub module: &'static str,
    pub name: &'static str,
    pub needs: &'static [Need],
    pub run: fn(),
}

/// A table of tests that each run in their own process: see [`cases_alone`](crate::cases_alone).
pub struct CasesAlone {
    pub module: &'static str,
    pub cases: fn() -> Vec<(&'static str, &'static [Need])>,
    pub run: fn(&str),
}

/// A function that `#[common::child]` registered.
pub struct Child(pub fn() -> Option<ExitCode>);

inventory::collect!(Test);
inventory::collect!(TestAlone);
inventory::collect!(CasesAlone);
inventory::collect!(Child);

/// Registers a table of tests that each run in their own process: their names and needs, and a function that runs
/// the test of a name.
#[macro_export]
macro_rules! cases_alone {
    ($cases:expr, $run:expr) => {
        $crate::inventory::submit! {
            $crate::CasesAlone { module: module_path!(), cases: $cases, run: $run }
        }
    };
}

/// The environment variable with the name of the test that a process was started for.
const ALONE: &str = "BPF_PIN_TEST_ALONE";

/// The main function of a test program: does the work of a child if this process is one, or runs all registered
/// tests.
pub fn run_tests() -> ExitCode {
    if let Some(code) = inventory::iter::<Child>().find_map(|child| child.0()) {
        return code;
    }
    if let Ok(name) = std::env::var(ALONE) {
        return run_alone(&name);
    }
    let mut suite = Suite::new();
    for test in inventory::iter::<Test>() {
        suite = suite.test(full_name(test.module, test.name), test.needs, test.run);
    }
    for test in inventory::iter::<TestAlone>() {
        let name = full_name(test.module, test.name);
        suite = suite.test(name.clone(), test.needs, move || {
            run_in_own_process(ALONE, &name)
        });
    }
    for family in inventory::iter::<CasesAlone>() {
        for (name, needs) in (family.cases)() {
            let name = full_name(family.module, name);
            suite = suite.test(name.clone(), needs, move || {
                run_in_own_process(ALONE, &name)
            });
        }
    }
    suite.trials.sort_by(|a, b| a.name().cmp(b.name()));
    suite.run()
}

/// Runs one test, and panics if it fails.
fn run_alone(name: &str) -> ExitCode {
    let test = inventory::iter::<TestAlone>().find(|it| full_name(it.module, it.name) == name);
    if let Some(test) = test {
        (test.run)();
        return ExitCode::SUCCESS;
    }
    for family in inventory::iter::<CasesAlone>() {
        let cases = (family.cases)();
        if let Some((case, _)) = cases
            .iter()
            .find(|it| full_name(family.module, it.0) == name)
        {
            (family.run)(case);
            return ExitCode::SUCCESS;
        }
    }
    panic!("no test is called {name}");
}

/// The path of the function below the root module.
fn full_name(module: &str, name: &str) -> String {
    match module.split_once("::") {
        Some((_, module)) => format!("{module}::{name}"),
        None => name.to_owned(),
    }
}

/// The tests of a program.
#[derive(Default)]
pub struct Suite {
    trials: Vec<Trial>,
}

/// The tests that were skipped, with their reasons.
static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The parts that tests have omitted.
static LEFT_OUT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Records that a part of a test was omitted, or fails if nothing may be skipped.
pub(crate) fn leave_out(what: &str) -> Outcome {
    if is_required() {
        return Err(format!("may not be left out: {what}").into());
    }
    lines_of(&LEFT_OUT).push(what.to_owned());
    Ok(())
}

/// True if nothing may be skipped.
fn is_required() -> bool {
    std::env::var_os("BPF_PIN_TESTS").is_some_and(|value| value == "require")
}

fn lines_of(lines: &'static Mutex<Vec<String>>) -> MutexGuard<'static, Vec<String>> {
    lines.lock().unwrap_or_else(|e| e.into_inner())
}

impl Suite {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a test that runs if all of `needs` are met. Otherwise it is skipped, or fails if BPF_PIN_TESTS is
    /// "require" and it lacks more than a [`Need::Release`].
    pub fn test(
        mut self,
        name: impl Into<String>,
        needs: &'static [Need],
        run: impl FnOnce() -> Outcome + Send + 'static,
    ) -> Self {
        let name = name.into();
        self.trials
            .push(Trial::ignorable_test(name.clone(), move || {
                let lacks = needs.iter().filter(|need| need.unmet().is_some());
                let excused = lacks.clone().all(|need| need.is_optional());
                let unmet: Vec<_> = lacks.filter_map(|need| need.unmet()).collect();
                if unmet.is_empty() {
                    let outcome = match needs.iter().any(|need| need.drops_privileges()) {
                        true => without_privileges(run),
                        false => run(),
                    };
                    return match outcome {
                        Ok(()) => Ok(Completion::Completed),
                        Err(error) => Err(Failed::from(chain(&*error))),
                    };
                }
                let reason = unmet.join(", ");
                if is_required() && !excused {
                    return Err(Failed::from(format!("may not be skipped: {reason}")));
                }
                lines_of(&SKIPPED).push(format!("{name}: {reason}"));
                Ok(Completion::ignored_with(reason))
            }));
        self
    }

    /// Runs the tests that the command line selects.
    pub fn run(self) -> ExitCode {
        raise_memlock();
        let _place = cleanup::start_cleanup().expect("a directory for temporary files");
        let conclusion = libtest_mimic::run(&Arguments::from_args(), self.trials);
        for (lines, what) in [(&SKIPPED, "skipped"), (&LEFT_OUT, "left out")] {
            let lines = lines_of(lines);
            for line in lines.iter() {
                println!("{what} {line}");
            }
            if !lines.is_empty() {
                println!("{} {what}", lines.len());
            }
        }
        conclusion.exit_code()
    }
}

/// Runs a test without capabilities, and as an ordinary user if this thread may become one.
fn without_privileges(run: impl FnOnce() -> Outcome + Send) -> Outcome {
    match cap::SETUID.unmet() {
        None => as_user(CapabilitySet::empty(), run),
        Some(_) => without_capabilities(run),
    }
}

/// Raises RLIMIT_MEMLOCK. Before Linux 5.11 all maps and programs of a user are charged to it, and tests run
/// concurrently.
fn raise_memlock() {
    let limits = getrlimit(Resource::Memlock);
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let most = Rlimit {
        current: limits.maximum,
        ..limits
    };
    // Without CAP_SYS_RESOURCE the maximum is the limit. If that is too low, tests fail.
    let _ = setrlimit(Resource::Memlock, unlimited).or_else(|_| setrlimit(Resource::Memlock, most));
}

/// The messages of an error and its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str("\n  because: ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
