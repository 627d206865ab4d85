//! Contenders measured in turn, in one process, and compared round by round: what slows the machine
//! down slows them all.
//!
//! Not tango-bench, which pairs one benchmark of two executables, in two processes: these are many
//! functions of one, and some leave and need state in the kernel that is the process's.

use std::time::{Duration, Instant};

use crate::count::{self, Counts};

/// One way of doing a row's work.
pub struct Contender<'s> {
    pub who: &'static str,
    work: Work<'s>,
}

enum Work<'s> {
    /// So many times.
    Plain(Box<dyn FnMut(u32) + 's>),
    /// Once, and how long what counts of it took.
    Timed(Box<dyn FnMut() -> Duration + 's>),
}

impl<'s> Contender<'s> {
    pub fn new(who: &'static str, mut call: impl FnMut() + 's) -> Self {
        let work = Work::Plain(Box::new(move |times| {
            for _ in 0..times {
                call();
            }
        }));
        Self { who, work }
    }

    /// Of work that needs some more, which is not measured: it measures itself.
    pub fn timed(who: &'static str, call: impl FnMut() -> Duration + 's) -> Self {
        let work = Work::Timed(Box::new(call));
        Self { who, work }
    }

    /// The same, with something made ready each time, which is not measured.
    pub fn with_ready(self, mut ready: impl FnMut() + 's) -> Self {
        let Self { who, mut work } = self;
        let call = move || {
            ready();
            work.run(1)
        };
        Self::timed(who, call)
    }

    fn run(&mut self, times: u32) -> Duration {
        self.work.run(times)
    }

    /// Once, without a look at the clock.
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

/// What a row is to show: that one contender takes at most so many times what another takes.
pub struct Goal {
    pub of: &'static str,
    pub to: &'static str,
    pub most: f64,
}

pub const fn goal(of: &'static str, to: &'static str, most: f64) -> Goal {
    Goal { of, to, most }
}

/// Some work, and who does it. The first contender is what the others are compared with.
pub struct Row<'s> {
    pub name: String,
    pub contenders: Vec<Contender<'s>>,
    pub goals: Vec<Goal>,
    /// Whether it is one call, of which allocations, syscalls and instructions are told.
    pub is_call: bool,
    pub words: Words,
}

/// What is said of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// What the raw contenders do.
    pub raw: &'static str,
    /// Why it falls short, where it is known to.
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
    pub who: &'static str,
    /// The median of one call's.
    pub seconds: f64,
    /// To the first contender.
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
    pub words: Words,
}

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Patience {
    pub each_row: Duration,
    pub least_rounds: usize,
}

/// What a contender does before the clock is looked at again, if it is that quick.
const SLICE: Duration = Duration::from_micros(150);

pub fn measure(mut row: Row<'_>, patience: Patience) -> Measured {
    let times = row.contenders.iter_mut().map(|contender| {
        let once = contender.run(1).min(contender.run(1));
        let times = SLICE.as_secs_f64() / once.as_secs_f64().max(1e-9);
        (times as u32).max(1)
    });
    let times: Vec<_> = times.collect();
    let all = row.contenders.len();
    let mut samples = vec![Vec::new(); all];
    let (mut order, mut dice): (Vec<_>, _) = ((0..all).collect(), Dice::new());
    let begun = Instant::now();
    while begun.elapsed() < patience.each_row || samples[0].len() < patience.least_rounds {
        // So that nobody always comes after the same one.
        dice.shuffle(&mut order);
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
    let who = |name: &str| row.contenders.iter().position(|it| it.who == name);
    let verdicts = row.goals.into_iter().filter_map(|goal| {
        // A peer may be missing.
        let ratio = ratio(who(goal.of)?, who(goal.to)?);
        Some(Verdict { goal, ratio })
    });
    let verdicts = verdicts.collect();
    let figures = row
        .contenders
        .iter_mut()
        .enumerate()
        .map(|(i, contender)| Figures {
            who: contender.who,
            seconds: median(&samples[i]),
            ratio: ratio(i, 0),
            counts: row.is_call.then(|| counts(contender)),
        });
    Measured {
        figures: figures.collect(),
        name: row.name,
        rounds: samples[0].len(),
        verdicts,
        words: row.words,
    }
}

/// An order that is another each round, and the same in each run: xorshift.
struct Dice(u64);

impl Dice {
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
    // What is around the call, and not of it.
    let mut nothing = Contender::new("nothing", || ());
    count::of(&mut || contender.call(), &mut || nothing.call())
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
