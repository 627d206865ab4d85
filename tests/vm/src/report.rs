//! The result of a guest, gathered from its records.

use crate::target::{HOST, Target};
use crate::verdict::{Failure, Place, Verdict, evaluate};
use guest::phase::{Phase, find};
use guest::wire::{Record, Status};
use std::time::{Duration, Instant};

/// A phase in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseReport {
    pub phase: Phase,
    pub verdict: Verdict,
    /// Why the kernel did not allow the phase.
    pub refused: Option<String>,
}

/// A guest, or a kernel that could not boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestReport {
    pub target: &'static Target,
    pub label: String,
    /// The release string, after the boot.
    pub release: Option<String>,
    pub phases: Vec<PhaseReport>,
    /// Failures of the guest as a whole.
    pub faults: Vec<String>,
    /// The time of each program.
    pub times: Vec<(Duration, String)>,
    /// The time of each phase, in the order of `phases`.
    pub phase_times: Vec<Duration>,
    program: Option<Running>,
}

/// A program that has not ended yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    name: String,
    since: Instant,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl GuestReport {
    /// A guest before its first record.
    pub fn new(target: &'static Target, label: &str) -> Self {
        Self {
            target,
            label: label.to_owned(),
            release: None,
            phases: vec![],
            faults: vec![],
            times: vec![],
            phase_times: vec![],
            program: None,
        }
    }

    /// The kernel for the table: its release, or its label before the boot, marked if it is this machine's own.
    pub fn kernel(&self) -> String {
        let release = self.release.as_ref().unwrap_or(&self.label);
        match self.label == HOST {
            true => format!("{release} ({HOST})"),
            false => release.clone(),
        }
    }

    /// The machine and the kernel.
    pub fn title(&self) -> String {
        format!("{} {}", self.target.name, self.label)
    }

    /// Takes the next record.
    pub fn add_record(&mut self, record: Record) {
        match record {
            Record::Boot(release) => self.release = Some(release),
            Record::Phase(name) => self.enter(&name, None),
            Record::NoPhase(name, why) => self.enter(&name, Some(why)),
            Record::Start(name) => {
                let before = self.program.replace(Running {
                    name,
                    since: Instant::now(),
                    stdout: vec![],
                    stderr: vec![],
                });
                self.report_unfinished(before);
            }
            Record::Out(mut bytes) => self.running(|program| program.stdout.append(&mut bytes)),
            Record::Err(mut bytes) => self.running(|program| program.stderr.append(&mut bytes)),
            Record::Exit(status) => self.finish(status),
            Record::Fault(why) => self.faults.push(why),
            Record::End => {}
        }
    }

    /// Completes the report after the guest's end.
    pub fn end(&mut self, ended: Result<(), String>, phases: &[Phase], filtered: bool) {
        if let Err(why) = ended {
            self.faults.push(why);
        }
        let program = self.program.take();
        self.report_unfinished(program);
        self.count_what_ran(phases, filtered);
    }

    fn enter(&mut self, name: &str, refused: Option<String>) {
        match find(name) {
            Some(phase) => self.phases.push(PhaseReport {
                phase,
                verdict: Verdict::default(),
                refused,
            }),
            None => self.faults.push(format!("an unknown phase: {name}")),
        }
    }

    fn running(&mut self, act: impl FnOnce(&mut Running)) {
        match &mut self.program {
            Some(program) => act(program),
            None => self.faults.push("output without a program".to_owned()),
        }
    }

    fn report_unfinished(&mut self, program: Option<Running>) {
        let Some(Running {
            name,
            stdout,
            stderr,
            ..
        }) = program
        else {
            return;
        };
        let output = [stdout, stderr]
            .map(|bytes| crate::verdict::tail(&String::from_utf8_lossy(&bytes)))
            .join("\n");
        let phase = self
            .phases
            .last()
            .map_or("no phase", |report| report.phase.name);
        self.faults.push(
            format!("{name} was running ({phase})\n{}", output.trim())
                .trim_end()
                .to_owned(),
        );
    }

    fn finish(&mut self, status: Status) {
        self.phase_times.resize(self.phases.len(), Duration::ZERO);
        let (Some(program), Some(report), Some(release)) =
            (self.program.take(), self.phases.last_mut(), &self.release)
        else {
            self.faults.push("an end without a program".to_owned());
            return;
        };
        let name = format!("{} ({})", program.name, report.phase.name);
        let time = program.since.elapsed();
        self.times.push((time, name));
        *self.phase_times.last_mut().expect("a phase") += time;
        let place = Place {
            phase: report.phase,
            release,
            platform: (self.label != HOST).then_some(self.target.kernel),
        };
        let [stdout, stderr] = [program.stdout, program.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let verdict = evaluate(place, &program.name, &stdout, &stderr, status);
        report.verdict.passed += verdict.passed;
        report.verdict.skipped.extend(verdict.skipped);
        report.verdict.left_out.extend(verdict.left_out);
        report.verdict.failed.extend(verdict.failed);
    }

    /// A phase without a test proves nothing. A filter may leave a phase empty, but not the guest.
    fn count_what_ran(&mut self, phases: &[Phase], filtered: bool) {
        if !self.faults.is_empty() {
            return;
        }
        for phase in phases {
            let Some(report) = self.phases.iter_mut().find(|report| report.phase == *phase) else {
                self.faults
                    .push(format!("phase {} did not run", phase.name));
                continue;
            };
            let ran = report.verdict.passed + report.verdict.failed.len();
            if report.refused.is_none() && ran == 0 && !filtered {
                let output = format!("no test ran; {} were skipped", report.verdict.skipped.len());
                report.verdict.failed.push(Failure {
                    name: "the whole phase".to_owned(),
                    output,
                });
            }
        }
        let any =
            |verdict: &Verdict| verdict.passed + verdict.skipped.len() + verdict.failed.len() > 0;
        if filtered && !self.phases.iter().any(|report| any(&report.verdict)) {
            self.faults.push("the filter matches no test".to_owned());
        }
    }

    /// The phases and their times.
    pub fn phase_times(&self) -> Vec<String> {
        let phases = self.phases.iter().zip(&self.phase_times);
        phases
            .map(|(report, time)| format!("{} {:.1} s", report.phase.name, time.as_secs_f64()))
            .collect()
    }

    /// The slowest programs and their times.
    pub fn slowest(&self, count: usize) -> String {
        let mut times = self.times.clone();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let words: Vec<_> = times[..count.min(times.len())]
            .iter()
            .map(|(time, name)| format!("{name} {:.1} s", time.as_secs_f64()))
            .collect();
        words.join(", ")
    }

    /// Passed, failed, skipped. A refused phase counts as one skip, a fault of the guest as one failure.
    pub fn sums(&self) -> [usize; 3] {
        let mut sums = [0, self.faults.len(), 0];
        for report in &self.phases {
            sums[0] += report.verdict.passed;
            sums[1] += report.verdict.failed.len();
            sums[2] += report.verdict.skipped.len() + usize::from(report.refused.is_some());
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::OWN;
    use guest::phase::PHASES;

    const GOOD: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n";
    const EMPTY: &str = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured\n";

    fn program(stdout: &str) -> [Record; 4] {
        let (a, b) = stdout.split_at(stdout.len() / 2);
        [
            Record::Start("tests/pin".into()),
            Record::Out(a.into()),
            Record::Out(b.into()),
            Record::Exit(Status::Code(0)),
        ]
    }

    fn guest(records: impl IntoIterator<Item = Record>) -> GuestReport {
        let mut report = GuestReport::new(OWN, "6.1");
        report.add_record(Record::Boot("6.1.0-50-cloud-amd64".into()));
        records
            .into_iter()
            .for_each(|record| report.add_record(record));
        report
    }

    fn phases(programs: [&str; 2]) -> Vec<Record> {
        let mut records = vec![];
        for (phase, stdout) in PHASES.iter().zip(programs) {
            records.push(Record::Phase(phase.name.into()));
            records.extend(program(stdout));
        }
        records
    }

    #[test]
    fn counts_are_summed_over_phases() {
        let mut report = guest(phases([GOOD, GOOD]));
        report.add_record(Record::NoPhase("none/0".into(), "not permitted".into()));
        report.end(Ok(()), &PHASES[..3], false);
        assert_eq!(report.sums(), [4, 0, 1]);
        assert_eq!(report.faults, [""; 0]);
    }

    #[test]
    fn a_phase_without_tests_fails_unless_filtered() {
        let report = guest(phases([GOOD, EMPTY]));
        let end = |filtered| {
            let mut report = report.clone();
            report.end(Ok(()), &PHASES[..2], filtered);
            report.sums()
        };
        assert_eq!(end(false), [2, 1, 0]);
        assert_eq!(end(true), [2, 0, 0]);
    }

    #[test]
    fn a_filter_without_a_match_fails() {
        let mut report = guest(phases([EMPTY, EMPTY]));
        report.end(Ok(()), &PHASES[..2], true);
        assert_eq!(report.sums(), [0, 1, 0]);
    }

    #[test]
    fn a_phase_that_did_not_run_fails() {
        let mut report = guest(phases([GOOD, GOOD]));
        report.end(Ok(()), &PHASES[..3], false);
        assert_eq!(report.faults, ["phase none/0 did not run"]);
    }

    #[test]
    fn a_guest_that_dies_names_the_running_program() {
        let mut report = guest([Record::Phase("root".into())]);
        report.add_record(Record::Start("tests/pin".into()));
        report.add_record(Record::Err(b"last words\n".into()));
        report.end(Err("panic".into()), &PHASES, false);
        assert_eq!(
            report.faults,
            ["panic", "tests/pin was running (root)\nlast words"]
        );
        assert_eq!(report.sums(), [0, 2, 0]);
    }

    #[test]
    fn records_out_of_place_are_faults() {
        for record in [
            Record::Out(b"x".into()),
            Record::Exit(Status::Code(0)),
            Record::Phase("dance".into()),
        ] {
            let mut report = guest([]);
            report.add_record(record);
            assert_eq!(report.sums(), [0, 1, 0]);
        }
    }
}
