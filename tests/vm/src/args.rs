//! The command line.

use crate::target::{self, DEFAULT, OWN, TARGETS, Target};
use guest::phase::{self, PHASES, Phase};
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
Boots Linux kernels in QEMU and runs this workspace's tests in each. Needs no root.

usage: cargo vm [OPTIONS] [-- FILTER...]     runs the tests; FILTER and what follows goes to every test program
       cargo vm [OPTIONS] --run EXAMPLE...   runs one example as root, with its arguments, and exits as it does
       cargo vm [OPTIONS] --shell            opens a shell as root (needs busybox-static); ^A x ends the guest
       cargo vm [OPTIONS] --list             lists the kernels it would boot
       cargo vm [OPTIONS] --cargo COMMAND... runs cargo with Rust 1.85 for each target, as in --cargo check

  --target TRIPLE   build for this target; may be repeated (x86_64-unknown-linux-gnu); all means every target but
                    riscv64gc and powerpc64le
  --kernel SERIES   only kernels of this series: 6.1, newest, or host for this machine's kernel without a guest;
                    may be repeated; any series of the archive works, not only the default ones
  --image PATH      a kernel image of your own; may be repeated; without --kernel no other kernel is booted
  --phase PHASE     root, cap_bpf, none/0, none/2 or none/1; may be repeated
  --test NAME       only this program of bpf-pin-tests; may be repeated; builds no other
  --append PARAMS   more kernel parameters, as lockdown=integrity
  --refresh         look in the archive for a newer kernel of each series
  --jobs N          guests at a time (2)
  --timeout SECONDS the time limit of a guest (900; none for a shell); a program has a fifth of it
  --accel NAME      QEMU's accelerator (tcg); kvm hangs under some nested hypervisors
  --markdown PATH   also write the table to this file, as Markdown
  --help            this text
";

/// The command to execute.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Test,
    Run {
        example: String,
        args: Vec<OsString>,
    },
    Shell,
    List,
    /// Cargo's subcommand and its arguments.
    Cargo(Vec<OsString>),
    Help,
}

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    pub command: Command,
    /// At least one.
    pub targets: Vec<&'static Target>,
    pub kernels: Vec<String>,
    pub images: Vec<PathBuf>,
    pub phases: Vec<Phase>,
    /// Programs of bpf-pin-tests; none means all.
    pub tests: Vec<String>,
    /// The arguments after `--`.
    pub filter: Vec<OsString>,
    pub append: String,
    pub refresh: bool,
    pub jobs: usize,
    pub timeout: Duration,
    pub accel: String,
    pub markdown: Option<PathBuf>,
}

impl Args {
    /// Parses arguments without the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut parsed = Self {
            command: Command::Test,
            targets: vec![],
            kernels: vec![],
            images: vec![],
            phases: vec![],
            tests: vec![],
            filter: vec![],
            append: String::new(),
            refresh: false,
            jobs: 2,
            timeout: Duration::from_secs(900),
            accel: "tcg".to_owned(),
            markdown: None,
        };
        let mut parser = lexopt::Parser::from_args(args);
        loop {
            // lexopt drops `--`, and what follows is for the test programs.
            if let Some(mut raw) = parser.try_raw_args() {
                if raw.next_if(|arg| arg == "--").is_some() {
                    parsed.filter = raw.collect();
                    break;
                }
            }
            let Some(arg) = parser.next()? else { break };
            match arg {
                Long("target") => {
                    let name = parser.value()?.string()?;
                    match target::find(&name) {
                        Some(target) => parsed.targets.push(target),
                        None if name == "all" => parsed.targets.extend(&TARGETS[..DEFAULT]),
                        None => {
                            let triples = TARGETS.each_ref().map(|target| target.triple);
                            return Err(format!(
                                "--target {name}: not one of {}",
                                triples.join(", ")
                            )
                            .into());
                        }
                    }
                }
                Long("test") => parsed.tests.push(parser.value()?.string()?),
                Long("markdown") => parsed.markdown = Some(parser.value()?.into()),
                Long("cargo") => parsed.command = Command::Cargo(parser.raw_args()?.collect()),
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
        if parsed.targets.is_empty() {
            parsed.targets.push(OWN);
        }
        let mut seen: Vec<&str> = vec![];
        parsed.targets.retain(|target| {
            let is_new = !seen.contains(&target.triple);
            seen.push(target.triple);
            is_new
        });
        // In the table's order: none/0 cannot follow none/1.
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
    fn no_arguments_select_everything() {
        let args = parse("").unwrap();
        assert_eq!(args.command, Command::Test);
        assert_eq!(args.phases, PHASES);
        assert_eq!(args.targets, [OWN]);
        assert!(args.kernels.is_empty() && args.images.is_empty() && args.filter.is_empty());
    }

    #[test]
    fn arguments_after_two_dashes_are_for_the_tests() {
        let args = parse("--kernel 6.1 --kernel=6.12 -- pin --exact -- x").unwrap();
        assert_eq!(args.kernels, ["6.1", "6.12"]);
        assert_eq!(args.filter, ["pin", "--exact", "--", "x"]);
    }

    #[test]
    fn arguments_after_an_example_are_for_the_example() {
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
    fn targets_are_unique_and_all_omits_the_slowest() {
        let args =
            parse("--target s390x-unknown-linux-gnu --target all --cargo check -p x").unwrap();
        let names: Vec<_> = args.targets.iter().map(|target| target.name).collect();
        assert_eq!(names, ["s390x", "x86_64", "aarch64", "armv7", "i686"]);
        let rest = ["check", "-p", "x"].map(OsString::from).to_vec();
        assert_eq!(args.command, Command::Cargo(rest));
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
    fn unknown_arguments_are_rejected() {
        for line in [
            "pin",
            "--dance",
            "--target avr-none",
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
