//! The picture: the time of each contender of each row, relative to the raw calls.

use std::fmt::Write as _;

use crate::pairs::Measured;
use crate::report;

/// Contenders with filled marks. The last is drawn on top.
const COLOURS: [(&str, &str); 5] = [
    ("bpftool", "#e67e22"),
    ("libbpf", "#8e44ad"),
    ("libbpf-rs", "#27ae60"),
    ("aya", "#2980b9"),
    ("bpf-pin", "#c0392b"),
];
/// Hollow marks of variants, by the prefix of their names.
const VARIANTS: [(&str, &str); 3] = [("raw", "#555555"), ("bpf-pin", "#c0392b"), ("", "#95a5a6")];
const LEFT: f64 = 490.0;
const WIDTH: f64 = 760.0;
const TOP: f64 = 78.0;
const LINE: f64 = 34.0;
/// The ends of the scale. Marks beyond them are labelled with the ratio.
const LEAST: f64 = 0.7;
const MOST: f64 = 4.0;
/// Up to here the scale is linear and wide, because goals differ by hundredths. Beyond it is logarithmic.
const NEAR: f64 = 1.3;
const NEAR_WIDTH: f64 = 0.72 * WIDTH;
const TICKS: [f64; 10] = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 2.0, 3.0, 4.0];

fn x(ratio: f64) -> f64 {
    match ratio.clamp(LEAST, MOST) {
        near @ ..NEAR => LEFT + NEAR_WIDTH * (near - LEAST) / (NEAR - LEAST),
        far => LEFT + NEAR_WIDTH + (WIDTH - NEAR_WIDTH) * (far / NEAR).ln() / (MOST / NEAR).ln(),
    }
}

pub fn draw(rows: &[Measured]) -> String {
    let bottom = TOP + LINE * rows.len() as f64;
    let (width, height) = (LEFT + WIDTH + 40.0, bottom + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut text = |at: (f64, f64), anchor: &str, colour: &str, content: &str| {
        let content = content.replace('&', "&amp;").replace('<', "&lt;");
        let (x, y) = at;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{content}</text>"
        );
    };
    text(
        (8.0, 18.0),
        "start",
        "black",
        "time relative to the raw calls",
    );
    for (number, (name, colour)) in COLOURS.iter().rev().enumerate() {
        let at = (LEFT + 88.0 * number as f64, 18.0);
        text(at, "start", colour, &format!("● {name}"));
    }
    let legend = "○ a variant of the raw calls (dark grey), of bpf-pin (red) or of std (light grey); | a goal of \
     bpf-pin relative to raw. The scale is linear up to 1.3, then logarithmic.";
    text((8.0, 38.0), "start", "#555555", legend);
    for tick in TICKS {
        for y in [TOP - 8.0, bottom + 18.0] {
            text((x(tick), y), "middle", "black", &format!("{tick}"));
        }
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
        // Only goals relative to the first raw contender fit this scale.
        let goals = row.verdicts.iter().map(|verdict| &verdict.goal);
        let goals = goals.filter(|goal| goal.of.starts_with("bpf-pin") && goal.to == "raw");
        for goal in goals.filter(|goal| (LEAST..=MOST).contains(&goal.most)) {
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
            .map(|it| (rank(it.name), it))
            .collect();
        marks.sort_by_key(|(rank, _)| *rank);
        // Names of variants are placed above or below the line.
        let mut named = [LEFT, LEFT];
        for (rank, figures) in marks {
            let ratio = figures.ratio;
            let (low, at, high) = (x(ratio.low), x(ratio.median), x(ratio.high));
            let (colour, radius, fill) = match rank.checked_sub(COLOURS.len()) {
                None => (COLOURS[rank].1, 4.5, COLOURS[rank].1),
                // Larger, to stay visible around a filled mark.
                Some(rank) => (VARIANTS[rank].1, 7.0, "none"),
            };
            let _ = writeln!(
                svg,
                "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" \
                 stroke-width=\"2\"/><circle cx=\"{at:.1}\" cy=\"{y}\" r=\"{radius}\" stroke=\"{colour}\" \
                 stroke-width=\"1.5\" fill=\"{fill}\"><title>{} {:.2}</title></circle>",
                figures.name, ratio.median
            );
            if rank >= COLOURS.len() {
                // The colour shows the library.
                let name = ["bpf-pin", "raw"]
                    .iter()
                    .find_map(|library| figures.name.strip_prefix(library))
                    .unwrap_or(figures.name)
                    .trim_start_matches([',', ' ']);
                let width = 5.0 * name.len() as f64;
                let free = named.iter().position(|end| at - width / 2.0 > *end);
                // The place with less overlap.
                let place = free.unwrap_or(usize::from(named[1] < named[0]));
                named[place] = at + width / 2.0 + 4.0;
                let y = [y - 9.0, y + 15.0][place];
                let _ = writeln!(
                    svg,
                    "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" font-size=\"9\" \
                     fill=\"{colour}\">{name}</text>"
                );
            }
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

/// The drawing order: other libraries, bpf-pin, then the variants.
fn rank(name: &str) -> usize {
    let known = COLOURS.iter().position(|(known, _)| *known == name);
    known.unwrap_or_else(|| {
        let of = VARIANTS
            .iter()
            .position(|(begin, _)| name.starts_with(begin));
        COLOURS.len() + of.unwrap_or_default()
    })
}
