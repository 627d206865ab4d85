//! One run: what was asked for, and what has been measured.

use std::process::Command;
use std::time::Duration;

use crate::pairs::{Contender, Goal, Measured, Patience, Row, Words, measure};
use crate::place::Place;
use crate::report;
use crate::{Failure, machine};

/// From the command line.
#[derive(Default)]
pub struct Options {
    /// Fewer rounds, smaller numbers: to see that all of it works.
    pub quick: bool,
    /// Rows with one of these in their names; all, if there is none.
    pub only: Vec<String>,
    /// Writes BENCHMARKS.md and its picture.
    pub record: bool,
    /// Builds each library alone.
    pub builds: bool,
    /// Holds what is exact against its bounds.
    pub check: bool,
}

impl Options {
    /// Whether the run has all that the page tells: else it would be a poorer one.
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
            false => Err(format!("--record wants {}", lacking.join("; ")).into()),
        }
    }
}

pub struct Bench {
    pub options: Options,
    pub place: Place,
    pub measured: Vec<Measured>,
    /// Of those that were not asked for, too.
    pub names: Vec<String>,
    /// What is told in words, with what it is about.
    pub facts: Vec<(String, String)>,
    /// Of the machine, before.
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

    pub fn fact(&mut self, name: &str, words: String) {
        println!("\n{name}: {words}");
        self.facts.push((name.into(), words));
    }

    /// So much of something; a part of it in a quick run.
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

    /// Rows that were asked for by a name that none has.
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

    /// Of a call.
    pub fn call(
        &mut self,
        name: &str,
        contenders: Vec<Contender<'_>>,
        goals: Vec<Goal>,
        words: Words,
    ) {
        self.row(Row {
            name: name.into(),
            contenders,
            goals,
            is_call: true,
            words,
        });
    }

    /// Of work that takes many calls.
    pub fn work(
        &mut self,
        name: &str,
        contenders: Vec<Contender<'_>>,
        goals: Vec<Goal>,
        words: Words,
    ) {
        self.row(Row {
            name: name.into(),
            contenders,
            goals,
            is_call: false,
            words,
        });
    }

    fn row(&mut self, row: Row<'_>) {
        if !self.wants(&row.name) {
            return;
        }
        let patience = match (self.options.quick, row.is_call) {
            (true, _) => (Duration::from_millis(40), 3),
            (false, true) => (Duration::from_secs(4), 3),
            (false, false) => (Duration::from_secs(8), 7),
        };
        let (each_row, least_rounds) = patience;
        let patience = Patience {
            each_row,
            least_rounds,
        };
        let measured = measure(row, patience);
        report::print(&measured);
        self.measured.push(measured);
    }
}
