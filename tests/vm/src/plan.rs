//! The plan: what the guest does, as a file in its initramfs.

use crate::phase::{self, Phase};
use crate::wire::{escape, unescape};
use std::time::Duration;

/// The plan in the guest.
pub const PATH: &str = "/plan";
/// The directory of the test programs, named `package/target`.
pub const TESTS: &str = "/tests";
/// The directory of the examples.
pub const EXAMPLES: &str = "/examples";
/// A bpffs for the tests. `/sys/fs/bpf` stays empty, as on many machines.
pub const BPFFS: &str = "/run/bpffs";
/// The shell's program.
pub const BUSYBOX: &str = "/bin/busybox";

/// The work of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Every program, in every phase.
    Test {
        /// In the order in which they run.
        phases: Vec<Phase>,
        /// Names under [`TESTS`].
        programs: Vec<String>,
    },
    /// One example under [`EXAMPLES`], as root.
    Run(String),
    /// A shell on the console, as root.
    Shell,
}

/// A job, the arguments of its programs, and the devices that init uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The work.
    pub job: Job,
    /// Arguments of each program.
    pub args: Vec<Vec<u8>>,
    /// A program that takes longer is killed, so that one that hangs does not hide the others.
    pub limit: Duration,
    /// The console and the port for the records, by their names under `/dev`.
    pub ttys: [String; 2],
}

impl Plan {
    /// The plan as text, one `key value` a line.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let mut line =
            |key: &str, value: &[u8]| text.push_str(&format!("{key} {}\n", escape(value)));
        match &self.job {
            Job::Test { phases, programs } => {
                line("job", b"test");
                phases
                    .iter()
                    .for_each(|phase| line("phase", phase.name.as_bytes()));
                programs
                    .iter()
                    .for_each(|program| line("program", program.as_bytes()));
            }
            Job::Run(example) => {
                line("job", b"run");
                line("program", example.as_bytes());
            }
            Job::Shell => line("job", b"shell"),
        }
        self.args.iter().for_each(|arg| line("arg", arg));
        line("limit", self.limit.as_secs().to_string().as_bytes());
        self.ttys.iter().for_each(|tty| line("tty", tty.as_bytes()));
        text
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// An unknown line, a job without its program, or not two terminals.
    pub fn decode(text: &str) -> Result<Self, String> {
        let (mut job, mut limit) = (String::new(), 0);
        let (mut phases, mut programs, mut args, mut ttys) = (vec![], vec![], vec![], vec![]);
        for line in text.lines() {
            let (key, value) = line
                .split_once(' ')
                .ok_or_else(|| format!("plan: no value in {line:?}"))?;
            let value = unescape(value).ok_or_else(|| format!("plan: bad escape in {line:?}"))?;
            let word = String::from_utf8_lossy(&value).into_owned();
            match key {
                "job" => job = word,
                "phase" => {
                    phases.push(phase::find(&word).ok_or_else(|| format!("plan: no phase {word}"))?)
                }
                "program" => programs.push(word),
                "tty" => ttys.push(word),
                "arg" => args.push(value),
                "limit" => {
                    limit = word
                        .parse()
                        .map_err(|error| format!("plan: limit {word}: {error}"))?
                }
                _ => return Err(format!("plan: no such key: {key}")),
            }
        }
        let job = match job.as_str() {
            "test" => Job::Test { phases, programs },
            "run" => Job::Run(programs.pop().ok_or("plan: no program to run")?),
            "shell" => Job::Shell,
            other => return Err(format!("plan: no such job: {other:?}")),
        };
        Ok(Self {
            job,
            args,
            limit: Duration::from_secs(limit),
            ttys: <[String; 2]>::try_from(ttys).map_err(|_| "plan: not two terminals")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::PHASES;

    #[test]
    fn decode_reverses_encode() {
        let args = vec![b"--exact".to_vec(), b"two words\n\xff".to_vec(), vec![]];
        let programs = vec!["bpf-pin-tests/pin".to_owned()];
        for job in [
            Job::Test {
                phases: PHASES.to_vec(),
                programs,
            },
            Job::Run("pin_hash_map".to_owned()),
            Job::Shell,
        ] {
            let plan = Plan {
                job,
                args: args.clone(),
                limit: Duration::from_secs(7),
                ttys: ["ttyAMA0", "hvc0"].map(str::to_owned),
            };
            assert_eq!(Plan::decode(&plan.encode()), Ok(plan));
        }
    }

    #[test]
    fn unknown_lines_are_rejected() {
        for text in [
            "",
            "job test\nphase nobody\n",
            "job run\n",
            "job dance\n",
            "job test\ncolour red\n",
            "job test\ntty hvc0\n",
        ] {
            assert!(Plan::decode(text).is_err(), "{text:?}");
        }
    }
}
