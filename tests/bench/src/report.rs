//! x
use crate::pairs::Measured;
pub fn print(measured: &Measured) {
    println!("\n{} ({} rounds)", measured.name, measured.rounds);
    for f in &measured.figures {
        let r = f.ratio;
        print!(
            "  {:22} {:>10} {:6.3} ({:.3}–{:.3})",
            f.who,
            time(f.seconds),
            r.median,
            r.low,
            r.high
        );
        if let Some(c) = &f.counts {
            print!(
                "  {} allocations, {} instructions, {} syscalls",
                c.allocations,
                c.instructions,
                c.syscalls.len()
            );
        }
        println!();
    }
    for v in &measured.verdicts {
        let r = v.ratio;
        println!(
            "    {} {} to {}: {:.3} ({:.3}–{:.3}), at most {}",
            if v.is_reached() { "ok  " } else { "MISS" },
            v.goal.of,
            v.goal.to,
            r.median,
            r.low,
            r.high,
            v.goal.most
        );
    }
}
pub fn time(s: f64) -> String {
    if s < 1e-6 {
        format!("{:.1} ns", s * 1e9)
    } else if s < 1e-3 {
        format!("{:.2} us", s * 1e6)
    } else if s < 1.0 {
        format!("{:.2} ms", s * 1e3)
    } else {
        format!("{:.2} s", s)
    }
}
