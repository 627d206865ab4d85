//! The exact figures of the calls, held: a change that makes one dearer fails.

use crate::Failure;
use crate::bench::Bench;

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

/// Compilers differ a little, and so does how long the C library takes for a copy, by where it stands.
const MARGIN: f64 = 1.1;

/// Instructions as they were counted on x86-64. Of those of a call by path or name some 80 are its check
/// and copy by the standard library, which look at few bytes at once and take no measurable time beside
/// the system calls.
const BOUNDS: &[Bound] = &[
    bound("open a map, prove its kind, close", "bpf-pin", 3, 254),
    bound("open a program, prove its kind, close", "bpf-pin", 3, 287),
    bound("open a link, prove its kind, close", "bpf-pin", 3, 285),
    bound("pin a map, unpin it", "bpf-pin", 7, 808),
    bound("PinDir::pin, remove", "bpf-pin", 7, 824),
    bound("PinDir::pin, remove", "bpf-pin, no check", 2, 441),
    bound("PinDir::get, in a directory six deep", "bpf-pin", 4, 345),
    bound(
        "PinDir::get, in a directory six deep",
        "bpf-pin by path",
        3,
        272,
    ),
    bound(
        "PinDir::get, the same on a mount that is nosymfollow",
        "bpf-pin",
        3,
        323,
    ),
    bound("PinDir::replace", "bpf-pin", 2, 660),
    bound(
        "PinDir::open_or_create of a map that fits",
        "bpf-pin",
        4,
        772,
    ),
    bound(
        "PinDir::open_or_create of a map that fits, on a mount that is nosymfollow",
        "bpf-pin",
        3,
        752,
    ),
    bound("look an element up", "bpf-pin", 1, 64),
    bound("update an element", "bpf-pin", 1, 86),
    // All of them, and not one syscall.
    bound(
        "read an array of 4096 elements that is mapped",
        "bpf-pin",
        0,
        9767,
    ),
];

pub fn bounds(bench: &Bench) -> Result<(), Failure> {
    let mut broken = Vec::new();
    // Rows that were not asked for are not held.
    let only = |bound: &&Bound| {
        let parts = &bench.options.only;
        parts.is_empty() || bench.measured.iter().any(|row| row.name == bound.row)
    };
    for bound in BOUNDS.iter().filter(only) {
        let row = bench.measured.iter().find(|row| row.name == bound.row);
        let figures = row.and_then(|row| row.figures.iter().find(|it| it.who == bound.who));
        let Some(counts) = figures.and_then(|figures| figures.counts.as_ref()) else {
            broken.push(format!("{}, {}: not measured", bound.row, bound.who));
            continue;
        };
        let most = match cfg!(target_arch = "x86_64") {
            true => (bound.instructions as f64 * MARGIN) as u64,
            false => u64::MAX,
        };
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
