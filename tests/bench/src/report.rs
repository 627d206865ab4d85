//! What was measured, as a table for people, as JSON, and as a page with a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::pairs::{Figures, Goal, Measured, Ratio, Verdict};
use crate::{Failure, machine, picture};

/// The contenders that have a column, in the page's tables.
const COLUMNS: [&str; 5] = ["raw", "bpf-pin", "aya", "libbpf-rs", "libbpf"];

/// One row, as soon as it is there.
pub fn print(measured: &Measured) {
    println!("\n{} ({} rounds)", measured.name, measured.rounds);
    for figures in &measured.figures {
        let (time, ratio) = (time(figures.seconds), figures.ratio);
        print!("  {:22} {time:>10} {:>24}", figures.who, spread(ratio));
        if let Some(counts) = &figures.counts {
            let (allocations, syscalls) = (counts.allocations, counts.syscalls.len());
            let instructions = counts.instructions;
            print!("  {allocations} allocations, {syscalls} syscalls, {instructions} instructions");
        }
        println!();
    }
    for verdict in &measured.verdicts {
        let is = match (verdict.is_reached(), verdict.is_close()) {
            (true, false) => "reached",
            (true, true) => "reached, within the spread",
            (false, true) => "NOT REACHED, within the spread",
            (false, false) => "NOT REACHED",
        };
        println!("    {}: {is}", goal(verdict));
    }
}

/// The machine and what is built in, as a head.
pub fn head() {
    for (name, is) in machine::facts() {
        println!("{name}: {is}");
    }
    if cfg!(not(feature = "libbpf-rs")) {
        println!(
            "libbpf-rs and libbpf are left out, for they are built from C. With them, if it is not there: \
             apt-get install gcc make pkg-config libelf-dev zlib1g-dev; \
             cargo bench -p bpf-pin-bench --features libbpf-rs"
        );
    }
}

/// Where the JSON is; and the page anew, where that was asked for.
pub fn finish(bench: &Bench) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(&as_json(bench))?;
    // What somebody reads is to be what was measured.
    let read: Value = serde_json::from_str(&json)?;
    if read["rows"].as_array().map(Vec::len) != Some(bench.measured.len()) {
        return Err("the JSON has not all rows".into());
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
        let (before, rest) = page.split_once(BEGIN).ok_or("no place for the table")?;
        let (_, after) = rest.split_once(END).ok_or("no end of the table")?;
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
            "who": it.who,
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
            "reached": it.is_reached(),
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
    let words: serde_json::Map<_, _> = bench
        .facts
        .iter()
        .map(|(name, words)| (name.clone(), json!(words)))
        .collect();
    let busy = json!({ "before": bench.load, "after": machine::load() });
    json!({ "machine": facts, "load": busy, "rows": rows, "facts": words })
}

/// The page's part that is measured.
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
    text += "| work | to reach | raw | bpf-pin | aya | libbpf-rs | libbpf | others |\n|---|---|---|---|---|---|---|---|\n";
    for row in &bench.measured {
        let cell = |who: &str| match row.figures.iter().find(|it| it.who == who) {
            None => String::new(),
            Some(it) if it.who == row.figures[0].who => time(it.seconds),
            Some(it) => spread(it.ratio),
        };
        let others = row.figures.iter().filter(|it| !COLUMNS.contains(&it.who));
        let others: Vec<_> = others
            .map(|it| format!("{} {}", it.who, spread(it.ratio)))
            .collect();
        let cells = COLUMNS.map(cell).join(" | ");
        let to_reach: Vec<_> = row.verdicts.iter().map(|it| to_reach(&it.goal)).collect();
        let (to_reach, others) = (to_reach.join("; "), others.join("; "));
        let _ = writeln!(text, "| {} | {to_reach} | {cells} | {others} |", row.name);
    }
    text += "\nOf one call, allocations / syscalls / instructions in user space:\n\n";
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
        let of = |who: &str| row.figures.iter().find(|it| it.who == who).and_then(counts);
        if of("raw").is_some() {
            let cells = COLUMNS.map(|who| of(who).unwrap_or_default()).join(" | ");
            let others = row.figures.iter().filter(|it| !COLUMNS.contains(&it.who));
            let others: Vec<_> = others
                .filter_map(|it| Some(format!("{} {}", it.who, counts(it)?)))
                .collect();
            let others = others.join("; ");
            let _ = writeln!(text, "| {} | {cells} | {others} |", row.name);
        }
    }
    text += &instructions(bench);
    text += "\n";
    for (name, words) in &bench.facts {
        let _ = writeln!(text, "- {name}: {words}");
    }
    let reached = bench.measured.iter().flat_map(|row| &row.verdicts);
    let (all, reached) = (
        reached.clone().count(),
        reached.filter(|it| it.is_reached()).count(),
    );
    let _ = writeln!(
        text,
        "\n{reached} of {all} goals of time are reached. These are not:\n"
    );
    for row in &bench.measured {
        let missed: Vec<_> = row.verdicts.iter().filter(|it| !it.is_reached()).collect();
        if !missed.is_empty() {
            let missed: Vec<_> = missed.into_iter().map(goal).collect();
            let why = row.why;
            let _ = writeln!(text, "- {}: {}. {why}", row.name, missed.join("; "));
        }
    }
    text
}

/// Which calls of the library take as few as was hoped for, and which do not.
fn instructions(bench: &Bench) -> String {
    let ours = bench.measured.iter().filter_map(|row| {
        let figures = row.figures.iter().find(|it| it.who == "bpf-pin")?;
        Some((&row.name, figures.counts.as_ref()?.instructions))
    });
    let (few, many): (Vec<_>, Vec<_>) = ours.partition(|(_, count)| *count <= INSTRUCTIONS);
    let all = few.len() + many.len();
    let many: Vec<_> = many
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    format!(
        "\n{} of {all} take the {INSTRUCTIONS} instructions or fewer that were to be reached. These do not: {}. \
         Why: below, under How.\n",
        few.len(),
        many.join("; ")
    )
}

/// The most that a call was to take.
const INSTRUCTIONS: u64 = 150;

fn goal(verdict: &Verdict) -> String {
    let Verdict { goal, ratio } = verdict;
    let (of, to, most) = (goal.of, goal.to, goal.most);
    let spread = match verdict.is_close() {
        true => ", within the spread",
        false => "",
    };
    format!("{of} to {to} {:.3}, at most {most}{spread}", ratio.median)
}

/// "≤ 1.02", of the library to raw; else with their names.
fn to_reach(goal: &Goal) -> String {
    match (goal.of, goal.to) {
        ("bpf-pin", "raw") => format!("≤ {}", goal.most),
        ("bpf-pin", to) => format!("≤ {} × {to}", goal.most),
        (of, to) => format!("{of} ≤ {} × {to}", goal.most),
    }
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
