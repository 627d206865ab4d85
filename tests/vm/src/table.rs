//! The table of all guests, and below it what a reader has to know.

use crate::report::GuestReport;
use guest::phase::Phase;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The whole report, its last line the sums.
pub fn render(guests: &[GuestReport], phases: &[Phase]) -> String {
    let mut text = String::from("\n");
    grid(&mut text, guests, phases);
    skips(&mut text, guests);
    left_out(&mut text, guests);
    failures(&mut text, guests);
    let [passed, failed, skipped] = sums(guests);
    let _ = writeln!(
        text,
        "\n{passed} passed, {failed} failed, {skipped} skipped"
    );
    text
}

/// Passed, failed, skipped over all guests.
pub fn sums(guests: &[GuestReport]) -> [usize; 3] {
    guests
        .iter()
        .map(GuestReport::sums)
        .fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z])
}

fn grid(text: &mut String, guests: &[GuestReport], phases: &[Phase]) {
    let mut rows = vec![vec!["passed/skipped/failed".to_owned()]];
    rows[0].extend(phases.iter().map(|phase| phase.name.to_owned()));
    for guest in guests {
        let mut row = vec![guest.release.clone().unwrap_or_else(|| guest.label.clone())];
        for phase in phases {
            row.push(
                match guest.phases.iter().find(|report| report.phase == *phase) {
                    None => "-".to_owned(),
                    Some(report) if report.refused.is_some() => "refused".to_owned(),
                    Some(report) => {
                        let verdict = &report.verdict;
                        format!(
                            "{}/{}/{}",
                            verdict.passed,
                            verdict.skipped.len(),
                            verdict.failed.len()
                        )
                    }
                },
            );
        }
        row.push(if guest.faults.is_empty() {
            String::new()
        } else {
            "FAILED".to_owned()
        });
        rows.push(row);
    }
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..phases.len() + 2).map(width).collect();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

fn skips(text: &mut String, guests: &[GuestReport]) {
    // By reason, then by kernel in the table's order.
    let mut reasons: BTreeMap<String, Vec<(&str, usize)>> = BTreeMap::new();
    let mut count = |reason: String, label| {
        let kernels = reasons.entry(reason).or_default();
        match kernels.last_mut() {
            Some((last, number)) if *last == label => *number += 1,
            _ => kernels.push((label, 1)),
        }
    };
    for guest in guests {
        for report in &guest.phases {
            report
                .verdict
                .skipped
                .iter()
                .for_each(|reason| count(reason.clone(), guest.label.as_str()));
            if let Some(why) = &report.refused {
                count(format!("phase {}: {why}", report.phase.name), &guest.label);
            }
        }
    }
    if !reasons.is_empty() {
        let _ = writeln!(text, "\nskipped:");
    }
    for (reason, kernels) in reasons {
        let total: usize = kernels.iter().map(|(_, number)| number).sum();
        let kernels: Vec<_> = kernels
            .iter()
            .map(|(label, number)| format!("{label}: {number}"))
            .collect();
        let _ = writeln!(text, "{total:6}  {reason}  ({})", kernels.join(", "));
    }
}

/// By test, then by kernel and phase in the table's order.
fn left_out(text: &mut String, guests: &[GuestReport]) {
    let mut tests: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for guest in guests {
        for report in &guest.phases {
            for (test, how_much) in &report.verdict.left_out {
                let where_and_what = format!("{} {}: {how_much}", guest.label, report.phase.name);
                tests.entry(test).or_default().push(where_and_what);
            }
        }
    }
    if !tests.is_empty() {
        let _ = writeln!(text, "\nleft out of what was run:");
    }
    for (test, parts) in tests {
        let _ = writeln!(text, "        {test}  ({})", parts.join(", "));
    }
}

fn failures(text: &mut String, guests: &[GuestReport]) {
    for guest in guests {
        for fault in &guest.faults {
            let _ = writeln!(text, "\nFAILED {}\n{}", guest.label, indent(fault));
        }
        for report in &guest.phases {
            for failure in &report.verdict.failed {
                let head = format!(
                    "FAILED {} {} {}",
                    guest.label, report.phase.name, failure.name
                );
                let _ = writeln!(text, "\n{head}\n{}", indent(&failure.output));
            }
        }
    }
}

fn indent(output: &str) -> String {
    output
        .lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Failure, Verdict};
    use crate::report::PhaseReport;
    use guest::phase::PHASES;

    #[test]
    fn says_everything_once() {
        let verdict = Verdict {
            passed: 12,
            skipped: vec![
                "needs Linux 6.5".into(),
                "needs root".into(),
                "needs Linux 6.5".into(),
            ],
            left_out: vec![("killed_amid".into(), "3 of 12 stops".into())],
            failed: vec![Failure {
                name: "tests/pin a".into(),
                output: "oh\nno".into(),
            }],
        };
        let mut good = GuestReport::new("6.1");
        good.release = Some("6.1.0-50-cloud-amd64".into());
        good.phases.push(PhaseReport {
            phase: PHASES[0],
            verdict,
            refused: None,
        });
        let refused = Some("not permitted".to_owned());
        good.phases.push(PhaseReport {
            phase: PHASES[2],
            verdict: Verdict::default(),
            refused,
        });
        let mut bad = GuestReport::new("6.12");
        bad.faults.push("the guest was not done".into());

        let expected = "
passed/skipped/failed  root    cap_bpf  none/0
6.1.0-50-cloud-amd64   12/3/1  -        refused
6.12                   -       -        -        FAILED

skipped:
     2  needs Linux 6.5  (6.1: 2)
     1  needs root  (6.1: 1)
     1  phase none/0: not permitted  (6.1: 1)

left out of what was run:
        killed_amid  (6.1 root: 3 of 12 stops)

FAILED 6.1 root tests/pin a
    oh
    no

FAILED 6.12
    the guest was not done

12 passed, 2 failed, 4 skipped
";
        assert_eq!(render(&[good, bad], &PHASES[..3]), expected);
    }
}
