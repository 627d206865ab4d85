//! Bounds on the exact figures of the calls: a change that makes one more expensive fails.

use crate::Failure;
use crate::bench::Bench;

/// Allocations, syscalls and instructions of a call.
struct Bound {
    row: &'static str,
    contender: &'static str,
    allocations: u64,
    syscalls: usize,
    instructions: u64,
}

const fn bound(
    row: &'static str,
    contender: &'static str,
    syscalls: usize,
    instructions: u64,
) -> Bound {
    Bound {
        row,
        contender,
        allocations: 0,
        syscalls,
        instructions,
    }
}

/// Compilers differ slightly, and the C library's copy varies with the alignment of its source.
const MARGIN: f64 = 1.1;

/// Instructions were counted on x86-64. About 80 instructions of a call by path or name are the check and the copy by
/// the standard library, which process few bytes at a time. Compared with the system calls, their time is not
/// measurable.
const BOUNDS: &[Bound] = &[
    bound("open a map, prove its kind, close", "bpf-pin", 3, 254),
    bound("open a program, prove its kind, close", "bpf-pin", 3, 287),
    bound("open a link, prove its kind, close", "bpf-pin", 3, 285),
    bound("pin a map, unpin it", "bpf-pin", 7, 808),
    bound("PinDir::pin, unpin", "bpf-pin", 7, 824),
    bound("PinDir::pin, unpin", "bpf-pin, no check", 2, 441),
    bound("PinDir::get, in a directory six deep", "bpf-pin", 4, 345),
    bound(
        "PinDir::get, in a directory six deep",
        "bpf-pin by path",
        3,
        272,
    ),
    bound("PinDir::get, on a nosymfollow mount", "bpf-pin", 3, 323),
    bound("PinDir::replace", "bpf-pin", 2, 940),
    bound(
        "PinDir::open_or_create of a map that fits",
        "bpf-pin",
        4,
        900,
    ),
    bound(
        "PinDir::open_or_create of a map that fits, on a nosymfollow mount",
        "bpf-pin",
        3,
        875,
    ),
    bound("look up an element", "bpf-pin", 1, 64),
    bound("update an element", "bpf-pin", 1, 86),
    // All elements, without a syscall.
    bound(
        "read a memory-mapped array of 4096 elements",
        "bpf-pin",
        0,
        9767,
    ),
];

pub fn bounds(bench: &Bench) -> Result<(), Failure> {
    let mut broken = Vec::new();
    // Only rows that were selected.
    let only = |bound: &&Bound| {
        let parts = &bench.options.only;
        parts.is_empty() || bench.measured.iter().any(|row| row.name == bound.row)
    };
    for bound in BOUNDS.iter().filter(only) {
        let row = bench.measured.iter().find(|row| row.name == bound.row);
        let figures = row.and_then(|row| row.figures.iter().find(|it| it.name == bound.contender));
        let Some(counts) = figures.and_then(|figures| figures.counts.as_ref()) else {
            broken.push(format!("{}, {}: not measured", bound.row, bound.contender));
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
                let (row, contender) = (bound.row, bound.contender);
                broken.push(format!(
                    "{row}, {contender}: {found} {what}, at most {most}"
                ));
            }
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("more expensive than before:\n{}", broken.join("\n")).into()),
    }
}
