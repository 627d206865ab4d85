//! One run: its options and its results.

use std::process::Command;
use std::time::Duration;

use crate::pairs::{Budget, Contender, Goal, Measured, Notes, Row, measure};
use crate::place::Place;
use crate::report;
use crate::{Failure, machine};

/// Options of the command line.
#[derive(Default)]
pub struct Options {
    /// Fewer rounds and smaller sizes, to check that everything works.
    pub quick: bool,
    /// Only rows with one of these in their names; all rows if empty.
    pub only: Vec<String>,
    /// Writes BENCHMARKS.md and its picture.
    pub record: bool,
    /// Measures the build of each library alone.
    pub builds: bool,
    /// Compares the exact figures with their bounds.
    pub check: bool,
}

impl Options {
    /// Fails unless the run measures everything that the page has.
    pub fn is_whole(&self) -> Result<(), Failure> {
        let bpftool = Command::new("bpftool").args(["map", "show"]).output();
        let has_bpftool = bpftool.is_ok_and(|output| output.status.success());
        let lacking = [
            (self.quick, "all rounds, without --quick"),
            (!self.only.is_empty(), "all rows, without a name"),
            (!self.builds, "--builds"),
            (cfg!(not(feature = "libbpf-rs")), "--features libbpf-rs"),
            (!has_bpftool, "a bpftool that can list maps"),
        ];
        let lacking = lacking.into_iter().filter(|(lacks, _)| *lacks);
        let lacking: Vec<_> = lacking.map(|(_, what)| what).collect();
        match lacking.is_empty() {
            true => Ok(()),
            false => Err(format!("--record needs {}", lacking.join("; ")).into()),
        }
    }
}

pub struct Bench {
    pub options: Options,
    pub place: Place,
    pub measured: Vec<Measured>,
    /// The names of all rows, also of those that were not selected.
    pub names: Vec<String>,
    /// Other results, as name and text.
    pub facts: Vec<(String, String)>,
    /// The load average of the machine before the run.
    pub load: String,
}

impl Bench {
    pub fn new(options: Options) -> Result<Self, Failure> {
        let place = Place::new()?;
        Ok(Self {
            options,
            place,
            measured: Vec::new(),
            names: Vec::new(),
            facts: Vec::new(),
            load: machine::load(),
        })
    }

    pub fn fact(&mut self, name: &str, text: String) {
        println!("\n{name}: {text}");
        self.facts.push((name.into(), text));
    }

    /// The size of a row: `quick` in a quick run, else `full`.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.options.quick { quick } else { full }
    }

    pub fn wants(&mut self, name: &str) -> bool {
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.into());
        }
        let only = &self.options.only;
        only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Fails if a selection matches no row.
    pub fn has_all(&self) -> Result<(), Failure> {
        let is_known = |part: &&String| self.names.iter().any(|name| name.contains(part.as_str()));
        match self.options.only.iter().find(|part| !is_known(part)) {
            Some(part) => Err(format!(
                "no row has {part:?} in its name; there are\n  {}",
                self.names.join("\n  ")
            )
            .into()),
            None => Ok(()),
        }
    }

    /// Measures one call.
    pub fn call(
        &mut self,
        name: &str,
        contenders: Vec<Contender<'_>>,
        goals: Vec<Goal>,
        notes: Notes,
    ) {
        self.row(Row {
            name: name.into(),
            contenders,
            goals,
            is_call: true,
            notes,
        });
    }

    /// Measures work of many calls.
    pub fn work(
        &mut self,
        name: &str,
        contenders: Vec<Contender<'_>>,
        goals: Vec<Goal>,
        notes: Notes,
    ) {
        self.row(Row {
            name: name.into(),
            contenders,
            goals,
            is_call: false,
            notes,
        });
    }

    fn row(&mut self, row: Row<'_>) {
        if !self.wants(&row.name) {
            return;
        }
        let budget = match (self.options.quick, row.is_call) {
            (true, _) => (Duration::from_millis(40), 3),
            (false, true) => (Duration::from_secs(4), 3),
            (false, false) => (Duration::from_secs(8), 7),
        };
        let (time_per_row, min_rounds) = budget;
        let budget = Budget {
            time_per_row,
            min_rounds,
        };
        let measured = measure(row, budget);
        report::print(&measured);
        self.measured.push(measured);
    }
}
