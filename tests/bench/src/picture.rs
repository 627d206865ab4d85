//! The picture: of each row, what each contender takes, as so many times what the raw calls take.

use std::fmt::Write as _;

use crate::pairs::Measured;
use crate::report;

/// Whose marks are filled; the last is on top.
const COLOURS: [(&str, &str); 5] = [
    ("bpftool", "#e67e22"),
    ("libbpf", "#8e44ad"),
    ("libbpf-rs", "#27ae60"),
    ("aya", "#2980b9"),
    ("bpf-pin", "#c0392b"),
];
/// Hollow marks, of other ways: by what their names begin with.
const VARIANTS: [(&str, &str); 3] = [("raw", "#555555"), ("bpf-pin", "#c0392b"), ("", "#95a5a6")];
const LEFT: f64 = 430.0;
const WIDTH: f64 = 640.0;
const TOP: f64 = 64.0;
const LINE: f64 = 30.0;
/// The ends of the scale, which is logarithmic. What is beyond them has its number written out.
const LEAST: f64 = 0.7;
const MOST: f64 = 4.0;
const TICKS: [f64; 9] = [0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0];

fn x(ratio: f64) -> f64 {
    LEFT + WIDTH * (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln()
}

pub fn draw(rows: &[Measured]) -> String {
    let bottom = TOP + LINE * rows.len() as f64;
    let (width, height) = (LEFT + WIDTH + 40.0, bottom + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut text = |at: (f64, f64), anchor: &str, colour: &str, words: &str| {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let (x, y) = at;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
        );
    };
    text(
        (8.0, 18.0),
        "start",
        "black",
        "times what the raw calls take",
    );
    for (number, (who, colour)) in COLOURS.iter().rev().enumerate() {
        let at = (LEFT + 88.0 * number as f64, 18.0);
        text(at, "start", colour, &format!("● {who}"));
    }
    let words = "○ another way of the raw calls (grey) or of bpf-pin (red); | what bpf-pin is to stay below";
    text((LEFT, 38.0), "start", "#555555", words);
    for tick in TICKS {
        text(
            (x(tick), bottom + 18.0),
            "middle",
            "black",
            &format!("{tick}"),
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + LINE * number as f64 + LINE / 2.0;
        text((LEFT - 12.0, y + 4.0), "end", "black", &row.name);
    }
    for tick in TICKS {
        let (x, colour) = (x(tick), if tick == 1.0 { "black" } else { "#dddddd" });
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{colour}\"/>"
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + LINE * number as f64 + LINE / 2.0;
        // Against the raw calls: other goals have no place on this scale.
        let goals = row.verdicts.iter().map(|verdict| &verdict.goal);
        for goal in goals.filter(|goal| (goal.of, goal.to) == ("bpf-pin", "raw")) {
            let (x, top, bottom) = (x(goal.most), y - 11.0, y + 11.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#c0392b\"/>"
            );
        }
        let mut marks: Vec<_> = row
            .figures
            .iter()
            .skip(1)
            .map(|it| (rank(it.who), it))
            .collect();
        marks.sort_by_key(|(rank, _)| *rank);
        for (rank, figures) in marks {
            let (colour, fill) = match rank.checked_sub(VARIANTS.len()) {
                Some(rank) => (COLOURS[rank].1, COLOURS[rank].1),
                None => (VARIANTS[VARIANTS.len() - 1 - rank].1, "white"),
            };
            let ratio = figures.ratio;
            let (low, at, high) = (x(ratio.low), x(ratio.median), x(ratio.high));
            let _ = writeln!(
                svg,
                "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" \
                 stroke-width=\"3\"/><circle cx=\"{at:.1}\" cy=\"{y}\" r=\"4.5\" stroke=\"{colour}\" \
                 fill=\"{fill}\"><title>{} {:.2}</title></circle>",
                figures.who, ratio.median
            );
            if !(LEAST..=MOST).contains(&ratio.median) {
                let (anchor, at) = match ratio.median < LEAST {
                    true => ("start", at + 8.0),
                    false => ("end", at - 8.0),
                };
                let _ = writeln!(
                    svg,
                    "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
                    y - 4.0,
                    report::digits(ratio.median)
                );
            }
        }
    }
    svg + "</svg>\n"
}

/// Who is drawn over whom: variants, then peers, and the library on top.
fn rank(who: &str) -> usize {
    match COLOURS.iter().position(|(known, _)| *known == who) {
        Some(known) => VARIANTS.len() + known,
        None => {
            let of = VARIANTS
                .iter()
                .position(|(begin, _)| who.starts_with(begin));
            VARIANTS.len() - 1 - of.unwrap_or_default()
        }
    }
}
