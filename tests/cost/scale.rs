//! A hundred thousand pins in one directory cost as much as ten.

use std::time::{Duration, Instant};

use bpf_pin::dir::EntryType;
use bpf_pin::{Map, PinDir};
use common::*;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

const FEW: usize = 10;
const SOME: usize = 10_000;
const MOST: usize = 100_000;
/// The least number of pins that a slow guest creates, and the time limit.
const LEAST: usize = 30_000;
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a call. Returns what it allocates and how long it takes.
fn measure(call: impl FnOnce()) -> (Allocations, Duration) {
    let begun = Instant::now();
    let ((), used) = count_allocations(call);
    assert_eq!(used.bytes, 0, "all memory is freed");
    (used, begun.elapsed())
}

fn pin_name(number: usize) -> String {
    format!("pin{number:06}")
}

/// Creates a directory with that many pins, or as many as the time allows.
fn directory_with(
    parent: &PinDir,
    of: &str,
    most: usize,
) -> Result<(PinDir, usize), bpf_pin::Error> {
    let dir = parent.create_dir(of, 0o700)?;
    let map = hash();
    let begun = Instant::now();
    for number in 0..most {
        // One in ten has its own inode.
        match number % 10 {
            0 => dir.pin(&map, pin_name(number))?,
            _ => dir.link(pin_name(number - number % 10), pin_name(number))?,
        }
        if number >= LEAST && number % 1000 == 999 && begun.elapsed() > PATIENCE {
            return Ok((dir, number + 1));
        }
    }
    Ok((dir, most))
}

#[common::test(PINS)]
fn a_hundred_thousand_pins_cost_no_more_than_ten() -> Outcome {
    let fs = TestFs::new();
    let root = PinDir::create(fs.at("scale"), 0o700)?;
    let (few, _) = directory_with(&root, "few", FEW)?;
    let (some, _) = directory_with(&root, "some", SOME)?;
    let begun = Instant::now();
    let (many, most) = directory_with(&root, "many", MOST)?;
    println!("made {most} pins in {:?}", begun.elapsed());
    assert!(most >= LEAST);
    compare_opens(&few, &many, most)?;
    compare_reads(&some, &many, most);
    compare_walks(&root, most)?;
    drop((few, some, many));
    compare_removals(&root, most);
    assert_eq!(root.entries()?.count(), 1, "the few are left");
    drop(root);
    PinDir::open(fs.root())?.remove_dir_all("scale")?;
    assert!(fs.names().is_empty());
    Ok(())
}

/// Compares medians of alternating opens, so that load on the machine affects both.
fn compare_opens(few: &PinDir, many: &PinDir, most: usize) -> Outcome {
    const OPENS: usize = 1000;
    const TRIES: usize = 5;
    const BOUND: f64 = 2.0;

    // Far apart, and each time another one.
    let stride = 7919;
    let names: Vec<_> = (0..OPENS)
        .map(|n| (pin_name(n % FEW), pin_name(n * stride % most)))
        .collect();
    let open = |dir: &PinDir, name: &str| {
        let begun = Instant::now();
        dir.get::<Map>(name).map(|map| (begun.elapsed(), map))
    };
    let mut ratio = f64::INFINITY;
    for _ in 0..TRIES {
        let (mut of_few, mut for_many) = (Vec::new(), Vec::new());
        for (a, b) in &names {
            of_few.push(open(few, a)?.0);
            for_many.push(open(many, b)?.0);
        }
        let (of_few, for_many) = (median(of_few), median(for_many));
        ratio = for_many.as_secs_f64() / of_few.as_secs_f64();
        println!("open among {FEW}: {of_few:?}, among {most}: {for_many:?}, {ratio:.2} times");
        if ratio <= BOUND {
            return Ok(());
        }
    }
    panic!("an open among {most} takes {ratio:.2} times what it takes among {FEW}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The number in a name of this test, without allocating.
fn pin_number(name: &std::ffi::OsStr) -> usize {
    let digits = name.to_str().and_then(|name| name.strip_prefix("pin"));
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a name of this test")
}

fn compare_reads(some: &PinDir, many: &PinDir, most: usize) {
    let read = |dir: &PinDir, most: usize| {
        let mut seen = vec![false; most];
        let (used, time) = measure(|| {
            for entry in dir.entries().expect("a readable directory") {
                let entry = entry.expect("an entry");
                assert_eq!(entry.entry_type(), EntryType::Pin);
                let number = pin_number(entry.name());
                assert!(!seen[number], "{number} is seen twice");
                seen[number] = true;
            }
        });
        assert!(seen.iter().all(|&is_seen| is_seen));
        println!("entries() of {most}: {used:?}, {time:?}");
        used
    };
    let for_some = read(some, SOME);
    assert_eq!(read(many, most), for_some);
    assert!(for_some.peak_bytes < 128 * 1024, "{for_some:?}");
}

/// Walks twice: everything, and without the largest directory.
fn compare_walks(root: &PinDir, most: usize) -> Outcome {
    let walk = |skipped: Option<&str>, expected: usize| {
        let mut count = 0;
        let (used, time) = measure(|| {
            let mut walk = root.walk().expect("a readable directory");
            while let Some(entry) = walk.next() {
                let entry = entry.expect("an entry");
                if skipped.is_some_and(|name| entry.name() == name) {
                    walk.skip_dir();
                }
                count += usize::from(entry.entry_type() == EntryType::Pin);
            }
        });
        assert_eq!(count, expected);
        println!("walk() of {expected}: {used:?}, {time:?}");
        used
    };
    let for_some = walk(Some("many"), FEW + SOME);
    let for_many = walk(Some("some"), FEW + most);
    assert_eq!(for_many, for_some);
    let for_all = walk(None, FEW + SOME + most);
    assert_eq!(for_all.peak_bytes, for_some.peak_bytes);
    Ok(())
}

fn compare_removals(root: &PinDir, most: usize) {
    let remove = |name: &str, count: usize| {
        let (used, time) = measure(|| root.remove_dir_all(name).expect("a removable directory"));
        println!("remove_dir_all() of {count}: {used:?}, {time:?}");
        used
    };
    let (for_some, for_many) = (remove("some", SOME), remove("many", most));
    assert_eq!(for_many.peak_bytes, for_some.peak_bytes);
    // Batches end in different places, because names are removed while they are read.
    assert!(for_many.count <= for_some.count + 4);
}
