//! Measures contenders in turn, in one process, and compares them round by round, so that other load on the machine
//! affects all of them.
//!
//! tango-bench compares one benchmark of two executables, in two processes. Here one executable has many functions,
//! and some need state of the process in the kernel.

use std::time::{Duration, Instant};

use crate::count::{self, Counts};

/// One way of doing a row's work.
pub struct Contender<'s> {
    pub name: &'static str,
    work: Work<'s>,
}

enum Work<'s> {
    /// Runs the work this many times.
    Plain(Box<dyn FnMut(u32) + 's>),
    /// Runs the work once and returns the time of its measured part.
    Timed(Box<dyn FnMut() -> Duration + 's>),
}

impl<'s> Contender<'s> {
    pub fn new(name: &'static str, mut call: impl FnMut() + 's) -> Self {
        let work = Work::Plain(Box::new(move |times| {
            for _ in 0..times {
                call();
            }
        }));
        Self { name, work }
    }

    /// Work that measures itself, because a part of it does not count.
    pub fn timed(name: &'static str, call: impl FnMut() -> Duration + 's) -> Self {
        let work = Work::Timed(Box::new(call));
        Self { name, work }
    }

    /// Adds a preparation before each run, which is not measured.
    pub fn with_ready(self, mut ready: impl FnMut() + 's) -> Self {
        let Self { name, mut work } = self;
        let call = move || {
            ready();
            work.run(1)
        };
        Self::timed(name, call)
    }

    fn run(&mut self, times: u32) -> Duration {
        self.work.run(times)
    }

    /// Runs the work once, without reading the clock.
    fn call(&mut self) {
        match &mut self.work {
            Work::Plain(calls) => calls(1),
            Work::Timed(call) => drop(call()),
        }
    }
}

impl Work<'_> {
    fn run(&mut self, times: u32) -> Duration {
        match self {
            Self::Plain(calls) => {
                let begun = Instant::now();
                calls(times);
                begun.elapsed()
            }
            Self::Timed(call) => (0..times).map(|_| call()).sum(),
        }
    }
}

/// The expected result of a row: the time of one contender relative to another's is at most this ratio.
pub struct Goal {
    pub of: &'static str,
    pub to: &'static str,
    pub most: f64,
}

pub const fn goal(of: &'static str, to: &'static str, most: f64) -> Goal {
    Goal { of, to, most }
}

/// A piece of work and its contenders. The others are compared with the first.
pub struct Row<'s> {
    pub name: String,
    pub contenders: Vec<Contender<'s>>,
    pub goals: Vec<Goal>,
    /// For one call, allocations, syscalls and instructions are reported.
    pub is_call: bool,
    pub notes: Notes,
}

/// The explanations of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Notes {
    /// The calls of the raw contenders.
    pub raw: &'static str,
    /// Why a goal is missed, if known.
    pub why: &'static str,
}

/// A ratio: the middle half of all rounds, and the median.
#[derive(Clone, Copy)]
pub struct Ratio {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

pub struct Figures {
    pub name: &'static str,
    /// The median time of one call.
    pub seconds: f64,
    /// The ratio to the first contender.
    pub ratio: Ratio,
    pub counts: Option<Counts>,
}

pub struct Verdict {
    pub goal: Goal,
    pub ratio: Ratio,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Reached,
    /// The middle half of the rounds lies on both sides of the goal.
    Undecided,
    Missed,
}

impl Verdict {
    pub fn outcome(&self) -> Outcome {
        let Ratio { low, high, .. } = self.ratio;
        match self.goal.most {
            most if most < low => Outcome::Missed,
            most if most < high => Outcome::Undecided,
            _ => Outcome::Reached,
        }
    }
}

pub struct Measured {
    pub name: String,
    pub rounds: usize,
    pub figures: Vec<Figures>,
    pub verdicts: Vec<Verdict>,
    pub notes: Notes,
}

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Budget {
    pub time_per_row: Duration,
    pub min_rounds: usize,
}

/// Least time of a sample. A faster contender runs several times per sample.
const SLICE: Duration = Duration::from_micros(150);

pub fn measure(mut row: Row<'_>, budget: Budget) -> Measured {
    let times = row.contenders.iter_mut().map(|contender| {
        let once = contender.run(1).min(contender.run(1));
        let times = SLICE.as_secs_f64() / once.as_secs_f64().max(1e-9);
        (times as u32).max(1)
    });
    let times: Vec<_> = times.collect();
    let all = row.contenders.len();
    let mut samples = vec![Vec::new(); all];
    let (mut order, mut rng): (Vec<_>, _) = ((0..all).collect(), Rng::new());
    let begun = Instant::now();
    while begun.elapsed() < budget.time_per_row || samples[0].len() < budget.min_rounds {
        // A fixed order would let each contender always follow the same one.
        rng.shuffle(&mut order);
        for &i in &order {
            let took = row.contenders[i].run(times[i]);
            samples[i].push(took.as_secs_f64() / f64::from(times[i]));
        }
    }
    let ratio = |of: usize, to: usize| {
        let rounds = samples[of].iter().zip(&samples[to]);
        let mut ratios: Vec<_> = rounds.map(|(of, to)| of / to).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |part: f64| ratios[(part * (ratios.len() - 1) as f64).round() as usize];
        let (low, median, high) = (at(0.25), at(0.5), at(0.75));
        Ratio { low, median, high }
    };
    let index = |name: &str| row.contenders.iter().position(|it| it.name == name);
    let verdicts = row.goals.into_iter().filter_map(|goal| {
        // A peer may be missing.
        let ratio = ratio(index(goal.of)?, index(goal.to)?);
        Some(Verdict { goal, ratio })
    });
    let verdicts = verdicts.collect();
    let figures = row
        .contenders
        .iter_mut()
        .enumerate()
        .map(|(i, contender)| Figures {
            name: contender.name,
            seconds: median(&samples[i]),
            ratio: ratio(i, 0),
            counts: row.is_call.then(|| counts(contender)),
        });
    Measured {
        figures: figures.collect(),
        name: row.name,
        rounds: samples[0].len(),
        verdicts,
        notes: row.notes,
    }
}

/// A random order for each round, the same in every run: xorshift.
struct Rng(u64);

impl Rng {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            order.swap(last, (self.0 % (last as u64 + 1)) as usize);
        }
    }
}

fn counts(contender: &mut Contender<'_>) -> Counts {
    // The instructions around the call.
    let mut nothing = Contender::new("nothing", || ());
    count::of(&mut || contender.call(), &mut || nothing.call())
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
