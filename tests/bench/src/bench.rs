//! One run: what was asked for, and what has been measured.

use std::process::Command;
use std::time::Duration;

use crate::pairs::{Contender, Goal, Measured, Patience, Row, measure};
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
        let bpftool = Command::new("bpftool").arg("version").output();
        let lacking = [
            (self.quick, "not --quick"),
            (!self.only.is_empty(), "all rows"),
            (!self.builds, "--builds"),
            (cfg!(not(feature = "libbpf-rs")), "--features libbpf-rs"),
            (bpftool.is_err(), "bpftool"),
        ];
        match lacking.into_iter().find(|(lacks, _)| *lacks) {
            Some((_, what)) => Err(format!("--record takes {what}").into()),
            None => Ok(()),
        }
    }
}

pub struct Bench {
    pub options: Options,
    pub place: Place,
    pub measured: Vec<Measured>,
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

    pub fn wants(&self, name: &str) -> bool {
        let only = &self.options.only;
        only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Of a call.
    pub fn call(
        &mut self,
        name: &str,
        contenders: Vec<Contender<'_>>,
        goals: Vec<Goal>,
        why: &'static str,
    ) {
        self.row(Row {
            name: name.into(),
            contenders,
            goals,
            is_call: true,
            why,
        });
    }

    /// Of work that takes many calls.
    pub fn work(
        &mut self,
        name: &str,
        contenders: Vec<Contender<'_>>,
        goals: Vec<Goal>,
        why: &'static str,
    ) {
        self.row(Row {
            name: name.into(),
            contenders,
            goals,
            is_call: false,
            why,
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
