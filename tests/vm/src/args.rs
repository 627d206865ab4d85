//! The command line.

use guest::phase::{self, PHASES, Phase};
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
Boots Linux kernels in QEMU and runs this workspace's tests in each. Needs no root.

usage: cargo vm [OPTIONS] [-- FILTER...]     the tests; FILTER and what follows goes to every test program
       cargo vm [OPTIONS] --run EXAMPLE...   one example as root, with its arguments; its exit status is passed on
       cargo vm [OPTIONS] --shell            a shell as root (needs busybox-static); ^A x ends the guest
       cargo vm [OPTIONS] --list             the kernels it would use

  --kernel SERIES   only kernels of this series, as 6.1 or newest; may be repeated, and need not be one of the default
  --image PATH      a kernel image of your own; may be repeated; without --kernel no other kernel is booted
  --phase PHASE     root, cap_bpf, none/0, none/2 or none/1; may be repeated
  --append PARAMS   more kernel parameters, as lockdown=integrity
  --refresh         ask the archive again which kernel is the newest of its series
  --jobs N          guests at a time (2)
  --timeout SECONDS the longest a guest may take (900; none for a shell), and a program a fifth of that
  --accel NAME      QEMU's accelerator (tcg); kvm hangs under some nested hypervisors
  --help            this text
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Test,
    Run {
        example: String,
        args: Vec<OsString>,
    },
    Shell,
    List,
    Help,
}

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    pub command: Command,
    pub kernels: Vec<String>,
    pub images: Vec<PathBuf>,
    pub phases: Vec<Phase>,
    /// What follows `--`.
    pub filter: Vec<OsString>,
    pub append: String,
    pub refresh: bool,
    pub jobs: usize,
    pub timeout: Duration,
    pub accel: String,
}

impl Args {
    /// Parses arguments, the program's name not among them.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut parsed = Self {
            command: Command::Test,
            kernels: vec![],
            images: vec![],
            phases: vec![],
            filter: vec![],
            append: String::new(),
            refresh: false,
            jobs: 2,
            timeout: Duration::from_secs(900),
            accel: "tcg".to_owned(),
        };
        let mut parser = lexopt::Parser::from_args(args);
        loop {
            // lexopt swallows `--`, after which nothing is ours to read.
            if let Some(mut raw) = parser.try_raw_args() {
                if raw.next_if(|arg| arg == "--").is_some() {
                    parsed.filter = raw.collect();
                    break;
                }
            }
            let Some(arg) = parser.next()? else { break };
            match arg {
                Long("kernel") => parsed.kernels.push(parser.value()?.string()?),
                Long("image") => parsed.images.push(parser.value()?.into()),
                Long("phase") => {
                    let phase = parser
                        .value()?
                        .parse_with(|name| phase::find(name).ok_or("no such phase"))?;
                    parsed.phases.push(phase);
                }
                Long("append") => {
                    parsed.append.push(' ');
                    parsed.append.push_str(&parser.value()?.string()?);
                }
                Long("refresh") => parsed.refresh = true,
                Long("jobs") => {
                    parsed.jobs = parser.value()?.parse_with(|jobs| match jobs.parse() {
                        Ok(0) | Err(_) => Err("not a number of guests"),
                        Ok(jobs) => Ok(jobs),
                    })?;
                }
                Long("timeout") => parsed.timeout = Duration::from_secs(parser.value()?.parse()?),
                Long("accel") => parsed.accel = parser.value()?.string()?,
                Long("shell") => parsed.command = Command::Shell,
                Long("list") => parsed.command = Command::List,
                Long("help") | Short('h') => parsed.command = Command::Help,
                Long("run") => {
                    let example = parser.value()?.string()?;
                    parsed.command = Command::Run {
                        example,
                        args: parser.raw_args()?.collect(),
                    };
                }
                _ => return Err(arg.unexpected()),
            }
        }
        if parsed.phases.is_empty() {
            parsed.phases = PHASES.to_vec();
        }
        // In their own order: none/1 before none/0 could not work.
        parsed
            .phases
            .sort_by_key(|phase| PHASES.iter().position(|known| known == phase));
        parsed.phases.dedup();
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_means_all() {
        let args = parse("").unwrap();
        assert_eq!(args.command, Command::Test);
        assert_eq!(args.phases, PHASES);
        assert!(args.kernels.is_empty() && args.images.is_empty() && args.filter.is_empty());
    }

    #[test]
    fn what_follows_two_dashes_is_the_tests() {
        let args = parse("--kernel 6.1 --kernel=6.12 -- pin --exact -- x").unwrap();
        assert_eq!(args.kernels, ["6.1", "6.12"]);
        assert_eq!(args.filter, ["pin", "--exact", "--", "x"]);
    }

    #[test]
    fn what_follows_an_example_is_the_example_s() {
        let args = parse("--append a=b --append c --run pin_hash_map --kernel -- x").unwrap();
        let rest = ["--kernel", "--", "x"].map(OsString::from).to_vec();
        assert_eq!(
            args.command,
            Command::Run {
                example: "pin_hash_map".into(),
                args: rest
            }
        );
        assert_eq!(args.append, " a=b c");
        assert!(args.kernels.is_empty());
    }

    #[test]
    fn phases_keep_their_order() {
        let names: Vec<_> = parse("--phase none/1 --phase root --phase none/0 --phase root")
            .unwrap()
            .phases
            .iter()
            .map(|phase| phase.name)
            .collect();
        assert_eq!(names, ["root", "none/0", "none/1"]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for line in [
            "pin",
            "--dance",
            "--phase nobody",
            "--jobs 0",
            "--jobs x",
            "--timeout x",
            "--kernel",
            "--run",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
