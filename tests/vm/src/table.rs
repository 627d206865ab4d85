//! The table of all guests, with skips and failures below it.

use crate::report::GuestReport;
use guest::phase::Phase;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The whole report. Its last line holds the sums.
pub fn render(guests: &[GuestReport], phases: &[Phase]) -> String {
    let mut text = String::from("\n");
    push_table(&mut text, guests, phases);
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

/// The sums of each guest as a Markdown table.
pub fn markdown(guests: &[GuestReport]) -> String {
    let mut text =
        String::from("| machine | kernel | passed | skipped | failed |\n|---|---|---|---|---|\n");
    for guest in guests {
        let [passed, failed, skipped] = guest.sums();
        let (name, kernel) = (guest.target.name, guest.kernel());
        let _ = writeln!(
            text,
            "| {name} | {kernel} | {passed} | {skipped} | {failed} |"
        );
    }
    text
}

/// Passed, failed, skipped over all guests.
pub fn sums(guests: &[GuestReport]) -> [usize; 3] {
    guests
        .iter()
        .map(GuestReport::sums)
        .fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z])
}

fn push_table(text: &mut String, guests: &[GuestReport], phases: &[Phase]) {
    let mut rows = vec![vec![
        "passed/skipped/failed".to_owned(),
        "kernel".to_owned(),
    ]];
    rows[0].extend(phases.iter().map(|phase| phase.name.to_owned()));
    for guest in guests {
        let mut row = vec![guest.target.name.to_owned(), guest.kernel()];
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
    let widths: Vec<_> = (0..phases.len() + 3).map(width).collect();
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
    let mut reasons: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    let mut count = |reason: String, label: String| {
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
                .for_each(|reason| count(reason.clone(), guest.title()));
            if let Some(why) = &report.refused {
                count(format!("phase {}: {why}", report.phase.name), guest.title());
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
                let where_and_what = format!("{} {}: {how_much}", guest.title(), report.phase.name);
                tests.entry(test).or_default().push(where_and_what);
            }
        }
    }
    if !tests.is_empty() {
        let _ = writeln!(text, "\nleft out of tests that ran:");
    }
    for (test, parts) in tests {
        let _ = writeln!(text, "        {test}  ({})", parts.join(", "));
    }
}

fn failures(text: &mut String, guests: &[GuestReport]) {
    for guest in guests {
        for fault in &guest.faults {
            let _ = writeln!(text, "\nFAILED {}\n{}", guest.title(), indent(fault));
        }
        for report in &guest.phases {
            for failure in &report.verdict.failed {
                let head = format!(
                    "FAILED {} {} {}",
                    guest.title(),
                    report.phase.name,
                    failure.name
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
    use crate::report::PhaseReport;
    use crate::target::{OWN, TARGETS};
    use crate::verdict::{Failure, Verdict};
    use guest::phase::PHASES;

    #[test]
    fn the_report_holds_every_count_and_failure() {
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
        let mut good = GuestReport::new(OWN, "6.1");
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
        let mut bad = GuestReport::new(&TARGETS[2], "6.12");
        bad.faults.push("the guest was not done".into());

        let expected = "
passed/skipped/failed  kernel                root    cap_bpf  none/0
x86_64                 6.1.0-50-cloud-amd64  12/3/1  -        refused
s390x                  6.12                  -       -        -        FAILED

skipped:
     2  needs Linux 6.5  (x86_64 6.1: 2)
     1  needs root  (x86_64 6.1: 1)
     1  phase none/0: not permitted  (x86_64 6.1: 1)

left out of tests that ran:
        killed_amid  (x86_64 6.1 root: 3 of 12 stops)

FAILED x86_64 6.1 root tests/pin a
    oh
    no

FAILED s390x 6.12
    the guest was not done

12 passed, 2 failed, 4 skipped
";
        let guests = [good, bad];
        assert_eq!(render(&guests, &PHASES[..3]), expected);
        let rows = "\
| x86_64 | 6.1.0-50-cloud-amd64 | 12 | 4 | 1 |
| s390x | 6.12 | 0 | 0 | 1 |
";
        assert!(markdown(&guests).ends_with(rows));
    }
}
