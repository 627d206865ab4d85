//! The results as text, as JSON, and as a page with a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::pairs::{Figures, Measured, Outcome, Ratio, Verdict};
use crate::{Failure, machine, picture};

/// The contenders with a column in the page's tables.
const COLUMNS: [&str; 5] = ["raw", "bpf-pin", "aya", "libbpf-rs", "libbpf"];

/// Prints one row.
pub fn print(measured: &Measured) {
    println!("\n{} ({} rounds)", measured.name, measured.rounds);
    for figures in &measured.figures {
        let (time, ratio) = (time(figures.seconds), figures.ratio);
        print!("  {:22} {time:>10} {:>24}", figures.name, spread(ratio));
        if let Some(counts) = &figures.counts {
            let (allocations, syscalls) = (counts.allocations, counts.syscalls.len());
            let instructions = counts.instructions;
            print!("  {allocations} allocations, {syscalls} syscalls, {instructions} instructions");
        }
        println!();
    }
    for verdict in &measured.verdicts {
        let is = match verdict.outcome() {
            Outcome::Reached => "reached",
            Outcome::Undecided => "undecided",
            Outcome::Missed => "MISSED",
        };
        println!("    {}: {is}", goal(verdict));
    }
}

/// Prints the machine and the versions.
pub fn head() {
    for (name, is) in machine::facts() {
        println!("{name}: {is}");
    }
    if cfg!(not(feature = "libbpf-rs")) {
        println!(
            "libbpf-rs and libbpf are left out, because they are built from C. To include them: apt-get install \
             gcc make pkg-config libelf-dev zlib1g-dev; cargo bench -p bpf-pin-bench --features libbpf-rs"
        );
    }
}

/// Writes the JSON, and with --record the page.
pub fn finish(bench: &Bench) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(&as_json(bench))?;
    // Check that it can be read.
    let read: Value = serde_json::from_str(&json)?;
    if read["rows"].as_array().map(Vec::len) != Some(bench.measured.len()) {
        return Err("the JSON lacks rows".into());
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bpf-pin-bench.json");
    fs::write(&path, &json)?;
    println!("\nas JSON: {}", path.display());
    if bench.options.record {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::write(
            directory.join("benchmarks.svg"),
            picture::draw(&bench.measured),
        )?;
        let path = directory.join("BENCHMARKS.md");
        let page = fs::read_to_string(&path)?;
        let (before, rest) = page.split_once(BEGIN).ok_or("no begin mark")?;
        let (_, after) = rest.split_once(END).ok_or("no end mark")?;
        let table = table(bench);
        fs::write(path, format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))?;
    }
    Ok(())
}

const BEGIN: &str = "<!-- measured: from here to the end mark it is written by the bench -->";
const END: &str = "<!-- end -->";

fn as_json(bench: &Bench) -> Value {
    let facts: serde_json::Map<_, _> = machine::facts()
        .into_iter()
        .map(|(name, is)| (name.to_owned(), json!(is)))
        .collect();
    let ratio =
        |ratio: Ratio| json!({ "low": ratio.low, "median": ratio.median, "high": ratio.high });
    let figures = |it: &Figures| {
        let counts = it.counts.as_ref().map(|counts| {
            json!({
                "allocations": counts.allocations,
                "syscalls": counts.syscalls,
                "instructions": counts.instructions,
            })
        });
        json!({
            "name": it.name,
            "seconds": it.seconds,
            "ratio": ratio(it.ratio),
            "counts": counts,
        })
    };
    let verdict = |it: &Verdict| {
        json!({
            "of": it.goal.of,
            "to": it.goal.to,
            "most": it.goal.most,
            "ratio": ratio(it.ratio),
            "outcome": format!("{:?}", it.outcome()),
        })
    };
    let rows = bench.measured.iter().map(|row| {
        json!({
            "name": row.name,
            "rounds": row.rounds,
            "figures": row.figures.iter().map(figures).collect::<Vec<_>>(),
            "goals": row.verdicts.iter().map(verdict).collect::<Vec<_>>(),
        })
    });
    let rows: Vec<_> = rows.collect();
    let results: serde_json::Map<_, _> = bench
        .facts
        .iter()
        .map(|(name, text)| (name.clone(), json!(text)))
        .collect();
    let busy = json!({ "before": bench.load, "after": machine::load() });
    json!({ "machine": facts, "load": busy, "rows": rows, "facts": results })
}

/// The generated part of the page.
fn table(bench: &Bench) -> String {
    let mut text = String::new();
    let facts = machine::facts();
    let facts: Vec<_> = facts
        .iter()
        .map(|(name, is)| format!("{name} {is}"))
        .collect();
    let (before, after) = (&bench.load, machine::load());
    text += &format!(
        "{}; load average before {before}, after {after}.\n\n",
        facts.join("; ")
    );
    text += "| work | raw | bpf-pin | aya | libbpf-rs | libbpf | others | rounds \
     |\n|---|---|---|---|---|---|---|---|\n";
    for row in &bench.measured {
        let cell = |name: &str| match row.figures.iter().find(|it| it.name == name) {
            None => String::new(),
            Some(it) if it.name == row.figures[0].name => time(it.seconds),
            Some(it) => spread(it.ratio),
        };
        let others = row.figures.iter().filter(|it| !COLUMNS.contains(&it.name));
        let others: Vec<_> = others
            .map(|it| format!("{} {}", it.name, spread(it.ratio)))
            .collect();
        let cells = COLUMNS.map(cell).join(" | ");
        let (others, rounds) = (others.join("; "), row.rounds);
        let _ = writeln!(text, "| {} | {cells} | {others} | {rounds} |", row.name);
    }
    text += "\nAllocations / syscalls / user-space instructions of one call:\n\n";
    text += "| call | raw | bpf-pin | aya | libbpf-rs | libbpf | others |\n|---|---|---|---|---|---|---|\n";
    for row in &bench.measured {
        let counts = |figures: &Figures| {
            let counts = figures.counts.as_ref()?;
            let (allocations, syscalls) = (counts.allocations, counts.syscalls.len());
            Some(format!(
                "{allocations} / {syscalls} / {}",
                counts.instructions
            ))
        };
        let of = |name: &str| {
            row.figures
                .iter()
                .find(|it| it.name == name)
                .and_then(counts)
        };
        if of("raw").is_some() {
            let cells = COLUMNS.map(|name| of(name).unwrap_or_default()).join(" | ");
            let others = row.figures.iter().filter(|it| !COLUMNS.contains(&it.name));
            let others: Vec<_> = others
                .filter_map(|it| Some(format!("{} {}", it.name, counts(it)?)))
                .collect();
            let others = others.join("; ");
            let _ = writeln!(text, "| {} | {cells} | {others} |", row.name);
        }
    }
    text += &instructions(bench);
    text += "\n";
    for (name, result) in &bench.facts {
        let _ = writeln!(text, "- {name}: {result}");
    }
    let verdicts = bench.measured.iter().flat_map(|row| &row.verdicts);
    let all = verdicts.clone().count();
    let count = |outcome| {
        let those = verdicts.clone().filter(|it| it.outcome() == outcome);
        those.count()
    };
    let [reached, missed] = [Outcome::Reached, Outcome::Missed].map(count);
    let undecided = all - reached - missed;
    let _ = writeln!(
        text,
        "\n{reached} of {all} time goals are reached, {missed} are missed and {undecided} are undecided: the \
         middle half of the rounds lies on both sides of the goal.\n"
    );
    let mut before = None;
    for row in &bench.measured {
        let is_as_above = before.replace(row.notes) == Some(row.notes);
        let said = |outcome: Outcome, how: &str| {
            let those = row.verdicts.iter().filter(|it| it.outcome() == outcome);
            let those: Vec<_> = those.map(goal).collect();
            (!those.is_empty()).then(|| format!("{how}: {}. ", those.join("; ")))
        };
        let missed = said(Outcome::Missed, "**Missed**");
        let why = match missed {
            Some(_) if is_as_above => "Why: as above.",
            Some(_) => row.notes.why,
            None => "",
        };
        let all: Vec<_> = [
            said(Outcome::Reached, "Reached"),
            said(Outcome::Undecided, "Undecided"),
            missed,
        ]
        .into_iter()
        .flatten()
        .collect();
        let raw = if is_as_above {
            "as above"
        } else {
            row.notes.raw
        };
        let line = format!("- **{}**. raw: {raw}. {}{why}", row.name, all.concat());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The instructions of the calls that open by path, beside their goal.
fn instructions(bench: &Bench) -> String {
    let opens = bench
        .measured
        .iter()
        .filter(|row| row.name.starts_with("open a "));
    let opens = opens.filter_map(|row| {
        let figures = row.figures.iter().find(|it| it.name == "bpf-pin")?;
        let count = figures.counts.as_ref()?.instructions;
        Some(format!("{} {count}", row.name))
    });
    let opens: Vec<_> = opens.collect();
    format!(
        "\nGoal for opening by path, at most {INSTRUCTIONS} instructions: {}. See below, under How.\n",
        opens.join("; ")
    )
}

/// The goal for a call that opens by path.
const INSTRUCTIONS: u64 = 150;

/// "bpf-pin 1.01 × raw (at most 1.02)"
fn goal(verdict: &Verdict) -> String {
    let Verdict { goal, ratio } = verdict;
    let (of, to, most) = (goal.of, goal.to, goal.most);
    let median = match ratio.median {
        median @ ..0.01 => digits(median),
        median => format!("{median:.3}"),
    };
    format!("{of} {median} × {to} (at most {most})")
}

pub fn digits(ratio: f64) -> String {
    match ratio {
        ..0.01 => format!("{ratio:.4}"),
        _ => format!("{ratio:.2}"),
    }
}

/// "0.96 (0.95–0.97)"
fn spread(ratio: Ratio) -> String {
    let [low, median, high] = [ratio.low, ratio.median, ratio.high].map(digits);
    format!("{median} ({low}–{high})")
}

fn time(seconds: f64) -> String {
    match seconds {
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{:.2} µs", seconds * 1e6),
        ..1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}
