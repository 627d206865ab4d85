//! The plan: what the guest is to do, as a file in its initramfs.

use crate::phase::{self, Phase};
use crate::wire::{escape, unescape};
use std::time::Duration;

/// Where the plan lies in the guest.
pub const PATH: &str = "/plan";
/// Where the test programs lie, as `package/target`.
pub const TESTS: &str = "/tests";
/// Where the examples lie.
pub const EXAMPLES: &str = "/examples";
/// A bpffs of the guest's own; `/sys/fs/bpf` stays empty, as on many machines.
pub const BPFFS: &str = "/run/bpffs";
/// The shell's binary.
pub const BUSYBOX: &str = "/bin/busybox";

/// What a guest is booted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Every program, in every phase.
    Test {
        /// In the order of running.
        phases: Vec<Phase>,
        /// Names under [`TESTS`].
        programs: Vec<String>,
    },
    /// One example under [`EXAMPLES`], as root.
    Run(String),
    /// A shell on the console, as root.
    Shell,
}

/// A job and the arguments its programs get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub job: Job,
    /// Passed to each program.
    pub args: Vec<Vec<u8>>,
    /// A program that takes longer is killed, so that one that hangs does not hide the others.
    pub limit: Duration,
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
        text
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// A line that is not understood, or a job without its program.
    pub fn decode(text: &str) -> Result<Self, String> {
        let (mut job, mut limit) = (String::new(), 0);
        let (mut phases, mut programs, mut args) = (vec![], vec![], vec![]);
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
            "run" => Job::Run(programs.pop().ok_or("plan: nothing to run")?),
            "shell" => Job::Shell,
            other => return Err(format!("plan: no such job: {other:?}")),
        };
        Ok(Self {
            job,
            args,
            limit: Duration::from_secs(limit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::PHASES;

    #[test]
    fn comes_back_as_it_was() {
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
            };
            assert_eq!(Plan::decode(&plan.encode()), Ok(plan));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in [
            "",
            "job test\nphase nobody\n",
            "job run\n",
            "job dance\n",
            "job test\ncolour red\n",
        ] {
            assert!(Plan::decode(text).is_err(), "{text:?}");
        }
    }
}
