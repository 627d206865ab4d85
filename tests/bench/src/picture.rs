//! The picture: of each row, what each contender takes, as so many times what the raw calls take.

use std::fmt::Write as _;

use crate::pairs::Measured;
use crate::report;

const COLOURS: [(&str, &str); 6] = [
    ("bpf-pin", "#c0392b"),
    ("aya", "#2980b9"),
    ("libbpf-rs", "#27ae60"),
    ("libbpf", "#8e44ad"),
    ("bpftool", "#e67e22"),
    ("others", "#95a5a6"),
];
const LEFT: f64 = 430.0;
const WIDTH: f64 = 520.0;
const TOP: f64 = 46.0;
const LINE: f64 = 22.0;
/// The ends of the scale, which is logarithmic.
const LEAST: f64 = 0.5;
const MOST: f64 = 16.0;

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
    for (number, (who, colour)) in COLOURS.iter().enumerate() {
        text(
            (LEFT + 88.0 * number as f64, 18.0),
            "start",
            colour,
            &format!("● {who}"),
        );
    }
    let ticks = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
    for tick in ticks {
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
    for tick in ticks {
        let (x, colour) = (x(tick), if tick == 1.0 { "black" } else { "#dddddd" });
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{colour}\"/>"
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + LINE * number as f64 + LINE / 2.0;
        // Ours last, so that it is on top.
        for figures in row.figures.iter().skip(1).rev() {
            let known = COLOURS.iter().find(|(who, _)| *who == figures.who);
            let (_, colour) = known.unwrap_or(&COLOURS[5]);
            let ratio = figures.ratio;
            let (low, at, high) = (x(ratio.low), x(ratio.median), x(ratio.high));
            let _ = writeln!(
                svg,
                "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" \
                 stroke-width=\"3\"/><circle cx=\"{at:.1}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\">\
                 <title>{} {:.2}</title></circle>",
                figures.who, ratio.median
            );
            if !(LEAST..=MOST).contains(&ratio.median) {
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                    at + 8.0,
                    y + 4.0,
                    report::digits(ratio.median)
                );
            }
        }
    }
    svg + "</svg>\n"
}
