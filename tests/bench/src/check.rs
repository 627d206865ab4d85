//! The exact figures of the calls, held: a change that makes one dearer fails.

use crate::Failure;
use crate::pairs::Measured;

/// Allocations, syscalls and instructions of a call.
struct Bound {
    row: &'static str,
    who: &'static str,
    allocations: u64,
    syscalls: usize,
    instructions: u64,
}

const fn bound(row: &'static str, who: &'static str, syscalls: usize, instructions: u64) -> Bound {
    Bound {
        row,
        who,
        allocations: 0,
        syscalls,
        instructions,
    }
}

/// Compilers differ a little.
const MARGIN: f64 = 1.1;

const BOUNDS: &[Bound] = &[bound("open a map", "bpf-pin", 3, 232)];

pub fn bounds(measured: &[Measured]) -> Result<(), Failure> {
    let mut broken = Vec::new();
    for bound in BOUNDS {
        let row = measured.iter().find(|row| row.name.starts_with(bound.row));
        let figures = row.and_then(|row| row.figures.iter().find(|it| it.who == bound.who));
        let Some(counts) = figures.and_then(|figures| figures.counts.as_ref()) else {
            broken.push(format!("{}, {}: not measured", bound.row, bound.who));
            continue;
        };
        let most = (bound.instructions as f64 * MARGIN) as u64;
        for (what, found, most) in [
            ("allocations", counts.allocations, bound.allocations),
            (
                "syscalls",
                counts.syscalls.len() as u64,
                bound.syscalls as u64,
            ),
            ("instructions", counts.instructions, most),
        ] {
            if found > most {
                let (row, who) = (bound.row, bound.who);
                broken.push(format!("{row}, {who}: {found} {what}, at most {most}"));
            }
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("dearer than it was:\n{}", broken.join("\n")).into()),
    }
}
