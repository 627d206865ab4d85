//! mountinfo is parsed completely, for all bytes and lengths.

mod reference;
mod seed;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::Bpffs;
use bpf_pin::bpffs::{Mount, MountOptions, Propagation};
use common::*;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};

use reference::{Random, ShortReads, reference_option, reference_parse};
use seed::each_seed;

const ROOT: &[Need] = &[cap::SYS_ADMIN];

#[track_caller]
fn parse(line: &[u8]) -> Mount {
    let found = Mount::parse(line);
    found.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(line)))
}

#[common::test]
fn parses_the_example_of_the_manual() -> Outcome {
    let line = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
    let mount = parse(line);
    assert_eq!((mount.mount_id, mount.parent_id), (36, 35));
    assert_eq!(mount.dev, libc::makedev(98, 0));
    assert_eq!(mount.root, Path::new("/mnt1"));
    assert_eq!(mount.mount_point, Path::new("/mnt2"));
    assert_eq!(mount.options, "rw,noatime");
    assert_eq!(mount.propagation.master, Some(1));
    assert_eq!(mount.propagation.shared, None);
    assert_eq!(mount.fs_type, "ext3");
    assert_eq!(mount.source, "/dev/root");
    assert_eq!(mount.super_options, "rw,errors=continue");
    assert!(!mount.is_bpffs() && !mount.propagation.is_private());
    Ok(())
}

#[common::test]
fn parses_unusual_fields() -> Outcome {
    // Optional fields: none, all, unknown ones, and in any order.
    let with = |fields: &str| {
        let line = format!("66 44 0:40 / /mnt rw {fields}- bpf src rw");
        parse(line.as_bytes()).propagation
    };
    assert_eq!(with(""), Propagation::default());
    assert!(with("").is_private());
    let all = with("shared:2 master:3 propagate_from:4 ");
    assert_eq!(
        (all.shared, all.master, all.propagate_from),
        (Some(2), Some(3), Some(4))
    );
    assert_eq!(with("propagate_from:4 new:9 other master:3 shared:2 "), all);
    assert!(with("unbindable ").unbindable && with("unbindable ").is_private());
    assert_eq!(with("shared:no -x shared "), Propagation::default());

    // Escapes in every field that may have one, and text that only resembles an escape.
    let line = br"1 2 8:17 /a\040b /c\011d\012e\134040\\0401\08\4007\377\9 rw - fuse.a\040b \043x\040 rw,x=a\054b c";
    let mount = parse(line);
    assert_eq!(mount.dev, libc::makedev(8, 17));
    assert_eq!(mount.root, Path::new("/a b"));
    let expected = b"/c\td\ne\\040\\ 1\\08\\4007\xff\\9";
    assert_eq!(mount.mount_point.as_os_str().as_bytes(), expected);
    assert_eq!(mount.fs_type, "fuse.a b");
    assert_eq!(mount.source, "#x ");
    // A space that the file system did not escape.
    assert_eq!(mount.super_options, r"rw,x=a\054b c");
    assert_eq!(mount.super_option("x").unwrap(), "a,b c");

    // Empty fields, numbers at their limits, other types.
    let line = b"18446744073709551615 0 4095:1048575 / / rw - bpf  rw";
    let mount = parse(line);
    assert_eq!((mount.mount_id, mount.parent_id), (u64::MAX, 0));
    assert_eq!(mount.dev, libc::makedev(4095, 1048575));
    assert_eq!(mount.source, "");
    assert!(mount.is_bpffs());
    assert_eq!(parse(b"1 1 0:1 / / rw - bpf - ").super_options, "");
    assert!(!parse(b"1 1 0:1 / / rw - bpffs bpf rw").is_bpffs());
    Ok(())
}

#[common::test]
fn an_invalid_line_is_skipped() -> Outcome {
    for line in [
        "",
        " ",
        "-",
        "36",
        "36 35",
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 ext3 /dev/root rw",
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 -",
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3",
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root",
        "x 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw",
        "36 -1 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw",
        "36 +1 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw",
        "36 35 98 /mnt1 /mnt2 rw - ext3 /dev/root rw",
        "36 35 98: /mnt1 /mnt2 rw - ext3 /dev/root rw",
        "36 35 98:0:1 /mnt1 /mnt2 rw - ext3 /dev/root rw",
        "36 35 4294967296:0 /mnt1 /mnt2 rw - ext3 /dev/root rw",
        "18446744073709551616 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw",
        " 36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw",
    ] {
        assert_eq!(Mount::parse(line.as_bytes()), None, "{line:?}");
    }
    // An invalid line does not hide the others.
    let text = "36 35 98:0 / /a rw - ext3 x rw\nnonsense\n\n37 35 0:5 / /b rw - bpf y rw\n";
    let mounts = Mount::parse_all(text.as_bytes())?;
    let ids: Vec<_> = mounts.iter().map(|mount| mount.mount_id).collect();
    assert_eq!(ids, [36, 37]);
    Ok(())
}

#[common::test]
fn finds_options_by_name() -> Outcome {
    let mount = parse(b"1 1 0:1 / / ro,nosuid - bpf x rw,uid=1234,mode=700,gid=,uidx=1,rwx");
    let value = |name: &str| mount.super_option(name);
    assert_eq!(value("uid").unwrap(), "1234");
    assert_eq!(value("mode").unwrap(), "700");
    assert_eq!(value("gid").unwrap(), "");
    assert_eq!(value("rw").unwrap(), "");
    assert_eq!((value("ui"), value("ro"), value("x")), (None, None, None));
    assert!(mount.option("ro").is_some() && mount.option("nosuid").is_some());
    assert_eq!(mount.option("nodev"), None);
    assert!(mount.is_read_only() && mount.is_nosuid());
    assert!(!mount.is_nodev() && !mount.is_noexec() && !mount.is_nosymfollow());
    assert_eq!(mount.mode(), Some(0o700));
    let is_set = |options: &str| {
        let mount = parse(format!("1 1 0:1 / / {options}").as_bytes());
        [
            mount.is_read_only(),
            mount.is_nosuid(),
            mount.is_nodev(),
            mount.is_noexec(),
            mount.is_nosymfollow(),
        ]
    };
    assert_eq!(is_set("rw - bpf x rw"), [false; 5]);
    let only = |option: usize| std::array::from_fn(|at| at == option);
    assert_eq!(is_set("rw - bpf x ro"), only(0));
    for (at, name) in [
        (1, "nosuid"),
        (2, "nodev"),
        (3, "noexec"),
        (4, "nosymfollow"),
    ] {
        assert_eq!(is_set(&format!("rw,{name} - bpf x rw")), only(at), "{name}");
    }
    // Options of the file system are not options of the mount.
    assert_eq!(
        is_set("rw - bpf x rw,nosuid,nodev,noexec,nosymfollow"),
        [false; 5]
    );
    let mode = |line: &[u8]| parse(line).mode();
    assert_eq!(mode(b"1 1 0:1 / / rw - bpf x rw"), Some(0o777));
    assert_eq!(mode(b"1 1 0:1 / / rw - bpf x rw,mode=6750"), Some(0o6750));
    assert_eq!(mode(b"1 1 0:1 / / rw - bpf x rw,mode=9"), None);
    assert_eq!(mode(b"1 1 0:1 / / rw - tmpfs x rw,mode=755"), None);
    Ok(())
}

#[track_caller]
fn assert_agree(line: &[u8]) -> bool {
    let (found, expected) = (Mount::parse(line), reference_parse(line));
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(line));
    if let Some(mount) = &found {
        for name in ["mode", "ro", "rw"] {
            let expected = reference_option(&mount.super_options, name);
            assert_eq!(mount.super_option(name), expected, "{name}: {mount:?}");
        }
    }
    found.is_some()
}

#[common::test]
fn random_lines_parse_like_the_reference() -> Outcome {
    each_seed(0x9e37_79b9_7f4a_7c15, check_random_lines);
    Ok(())
}

fn check_random_lines(mut random: Random) {
    for _ in 0..rounds(50_000) {
        let length = random.below(120);
        let line: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        assert_agree(&line);
    }
    // Prefer bytes that have a meaning.
    let mut lines = 0;
    for _ in 0..rounds(50_000) {
        let length = random.below(60);
        let bytes = b"    --:\\0123789,=/ab";
        let line: Vec<u8> = (0..length).map(|_| *random.of(bytes)).collect();
        lines += usize::from(assert_agree(&line));
    }
    // And words that have a meaning.
    let words = [
        "1",
        "36",
        "0:5",
        "98:0",
        "/",
        "/a\\040b",
        "rw",
        "-",
        "-",
        "bpf",
        "shared:1",
        "master:x",
        "",
        "unbindable",
        "\\",
        "\\13",
    ];
    for _ in 0..rounds(100_000) {
        let mut line = vec!["7", "1", "0:9"];
        line.extend((0..random.below(10)).map(|_| *random.of(&words)));
        lines += usize::from(assert_agree(line.join(" ").as_bytes()));
    }
    assert!(lines > rounds(5_000), "{lines} valid lines");
}

const SEEDS: [&[u8]; 5] = [
    b"66 44 0:40 / /mnt rw,relatime shared:2 - bpf src rw,uid=1234,mode=700,delegate_cmds=any",
    b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
    b"63 43 0:39 / /tmp/x5d rw,nosuid - bpf a\\040b\\134c rw,delegate_maps=hash:array",
    b"600 22 0:50 /a\\012b /run/\\303\\244 ro shared:3 master:1 propagate_from:2 - tmpfs none rw",
    b"12 1 0:4 net:[4026531833] /run/netns/x rw unbindable - nsfs nsfs rw",
];

#[common::test]
fn mutated_lines_parse_like_the_reference() -> Outcome {
    each_seed(42, check_mutated_lines);
    Ok(())
}

fn check_mutated_lines(mut random: Random) {
    let mut lines = 0;
    for _ in 0..rounds(100_000) {
        let mut line = random.of(&SEEDS).to_vec();
        for _ in 0..=random.below(4) {
            let at = random
                .below(line.len().max(1))
                .min(line.len().saturating_sub(1));
            match random.below(5) {
                0 if !line.is_empty() => line[at] = random.next() as u8,
                1 if !line.is_empty() => drop(line.remove(at)),
                2 => line.insert(at, *random.of(b" -\\:0,\n")),
                3 => line.truncate(at),
                _ => {
                    let other = random.of(&SEEDS);
                    let cut = random.below(other.len());
                    line.extend(&other[cut..]);
                }
            }
        }
        lines += usize::from(assert_agree(&line));
    }
    assert!(lines > rounds(10_000), "{lines} valid lines");
}

#[common::test]
fn parses_reads_of_any_size() -> Outcome {
    each_seed(7, check_reads_of_any_size);
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let error = Mount::parse_all(Broken).expect_err("a failing read");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    Ok(())
}

fn check_reads_of_any_size(mut random: Random) {
    for most in [1, 2, 3, 7, 100, 4096, 1 << 20] {
        for end in ["", "\n", "\n\n"] {
            let mut text = vec![];
            let mut expected = vec![];
            for number in 0..300 {
                let path = "p".repeat(random.below(300));
                let line = format!("{number} 1 0:7 / /{path} rw - bpf b rw");
                expected.extend(reference_parse(line.as_bytes()));
                text.extend(line.as_bytes());
                text.push(b'\n');
            }
            text.pop();
            text.extend(end.as_bytes());
            let pieces = ShortReads::new(&text, Random::new(random.next()), most);
            let mounts = Mount::parse_all(pieces).expect("nothing fails");
            assert_eq!(mounts, expected, "{most} at once");
        }
    }
}

#[common::test]
fn parses_a_line_of_a_megabyte_in_linear_time() -> Outcome {
    let path = format!("/{}", "\\040x".repeat(1 << 18));
    let text = format!(
        "1 1 0:7 / /a rw - bpf b rw\n2 1 0:7 / {path} rw - bpf b rw\n3 1 0:7 / /c rw - bpf b rw\n"
    );
    let begin = Instant::now();
    let mounts = Mount::parse_all(text.as_bytes())?;
    assert_eq!(mounts.len(), 3);
    assert_eq!(mounts[1].mount_point.as_os_str().len(), 1 + (2 << 18));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

#[common::test]
fn parses_the_mounts_of_this_machine() -> Outcome {
    let text = fs::read("/proc/self/mountinfo")?;
    let mounts = Mount::parse_all(&text[..])?;
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let expected: Vec<_> = lines
        .map(|line| reference_parse(line).expect("a line"))
        .collect();
    assert_eq!(mounts, expected);
    assert!(mounts.len() >= 2, "{mounts:#?}");
    Ok(())
}

fn directory() -> tempfile::TempDir {
    let place = fs::canonicalize(std::env::temp_dir()).expect("a directory for temporary files");
    tempfile::tempdir_in(place).expect("a temporary directory")
}

/// Every byte that a name can contain, in a mount point, in the root of a bind mount and in a source.
#[common::test(ROOT)]
fn names_may_contain_any_byte() -> Outcome {
    let dir = directory();
    in_mount_namespace(|| {
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None)?;
        let names = (1..=255u8)
            .filter(|byte| *byte != b'/')
            .map(|byte| vec![byte, b'x', byte]);
        let more = [
            &br"\040"[..],
            br"a\011b\",
            b"- bpf bpf rw",
            b"x\n1 1 0:1 a b rw - bpf x rw",
        ];
        let before = Bpffs::mounts()?;
        for name in names.chain(more.map(<[u8]>::to_vec)) {
            let name = OsString::from_vec(name);
            let (place, bind) = (dir.path().join(&name), dir.path().join("bind"));
            fs::create_dir(&place)?;
            fs::create_dir(&bind)?;
            let has_source = kernel(5, 17).unmet().is_none();
            let source = if has_source {
                &name
            } else {
                OsStr::new("none")
            };
            let options = match has_source {
                true => MountOptions::new().source(source),
                false => MountOptions::new(),
            };
            let bpffs = options.mount(&place)?;
            let found = bpffs.mount()?;
            assert_eq!((&found.mount_point, &*found.source), (&place, source));
            assert_eq!(found.dev, bpffs.dev());
            if !name.as_bytes().contains(&b'.') {
                fs::create_dir(place.join(&name))?;
                mount_bind(place.join(&name), &bind)?;
                let found = Bpffs::at(&bind)?.mount()?;
                assert_eq!(found.root, Path::new("/").join(&name));
                assert_eq!((found.mount_point, found.dev), (bind.clone(), bpffs.dev()));
                unmount(&bind, UnmountFlags::DETACH)?;
            }
            assert_eq!(Bpffs::mounts()?.len(), before.len() + 1);
            drop(bpffs);
            unmount(&place, UnmountFlags::DETACH)?;
            fs::remove_dir(&bind)?;
            fs::remove_dir(&place)?;
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn propagation_is_reported() -> Outcome {
    let dir = directory();
    in_mount_namespace(|| {
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        fs::create_dir(&one)?;
        fs::create_dir(&other)?;
        let bpffs = MountOptions::new().mount(&one)?;
        let of = |path: &Path| Bpffs::at(path).unwrap().mount().unwrap().propagation;
        assert_eq!(bpffs.mount()?.propagation, Propagation::default());
        mount_change(&one, MountPropagationFlags::SHARED)?;
        let group = of(&one).shared.ok_or("a group")?;
        mount_bind(&one, &other)?;
        assert_eq!(of(&other), of(&one));
        mount_change(&other, MountPropagationFlags::DOWNSTREAM)?;
        assert_eq!((of(&other).master, of(&other).shared), (Some(group), None));
        assert!(!of(&other).is_private());
        mount_change(&other, MountPropagationFlags::SHARED)?;
        assert_eq!(of(&other).master, Some(group));
        assert!(of(&other).shared.is_some_and(|own| own != group));
        mount_change(&other, MountPropagationFlags::UNBINDABLE)?;
        assert!(of(&other).unbindable && of(&other).is_private());
        Ok(())
    })
}

/// Mounts `2^doublings` tmpfs at `path`, by binding a tree into itself.
fn create_mounts(path: &Path, doublings: u32) {
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
    for number in 0..doublings {
        let branch = path.join(number.to_string());
        fs::create_dir(&branch).expect("a directory");
        mount_bind_recursive(path, &branch).expect("twice as many mounts");
    }
}

#[common::test(ROOT)]
fn lists_32768_mounts_in_linear_time() -> Outcome {
    let dir = directory();
    in_mount_namespace(|| {
        let (tree, place) = (dir.path().join("tree"), dir.path().join("place"));
        fs::create_dir(&tree)?;
        fs::create_dir(&place)?;
        let time = |what: &dyn Fn()| {
            let begin = Instant::now();
            what();
            begin.elapsed()
        };
        let look = || drop(Bpffs::mounts().unwrap());
        create_mounts(&tree, 12);
        let few = time(&look);
        unmount(&tree, UnmountFlags::DETACH)?;
        create_mounts(&tree, 15);
        let bpffs = MountOptions::new().mount(&place)?;
        let mounts = Bpffs::mounts()?;
        assert_eq!(mounts.last(), Some(&bpffs.mount()?));
        let lookup = time(&look);
        let whole = time(&|| {
            let file = File::open("/proc/thread-self/mountinfo").unwrap();
            let all = Mount::parse_all(file).unwrap();
            assert!(all.len() > 1 << 15, "{}", all.len());
            let ids: HashSet<_> = all.iter().map(|mount| mount.mount_id).collect();
            assert_eq!(ids.len(), all.len());
        });
        // Since Linux 6.13 one mount is queried alone, with statmount(2).
        if kernel(6, 13).unmet().is_none() {
            let single = time(&|| {
                for _ in 0..100 {
                    drop(bpffs.mount().unwrap());
                }
            });
            assert!(
                single < whole,
                "100 lookups of one mount: {single:?}, all mounts: {whole:?}"
            );
        }
        println!(
            "{} mounts: those of type bpf in {lookup:?}, all in {whole:?}; an eighth of the mounts: {few:?}",
            1 << 15
        );
        // Linear, with a margin for a busy machine.
        assert!(
            lookup < few * 8 * 8 + Duration::from_secs(2),
            "{few:?} {lookup:?}"
        );
        assert!(!Bpffs::ensure(&place, &MountOptions::new())?.is_new());
        assert!(Bpffs::inspect(&place)?.is_on_bpffs());
        Ok(())
    })
}

/// A mount that exists throughout is found exactly once in each listing.
#[common::test(ROOT)]
fn a_mount_table_that_changes_is_listed_completely() -> Outcome {
    let dir = directory();
    in_mount_namespace(|| {
        let (tree, changing) = (dir.path().join("tree"), dir.path().join("changing"));
        fs::create_dir(&tree)?;
        fs::create_dir(&changing)?;
        create_mounts(&tree, 6);
        let constant: Vec<(PathBuf, u64)> = (0..10)
            .map(|number| {
                let path = dir.path().join(format!("constant{number}"));
                fs::create_dir(&path).unwrap();
                let bpffs = MountOptions::new().mount(&path).unwrap();
                (path, bpffs.dev())
            })
            .collect();
        let before = Bpffs::mounts()?.len();
        let done = AtomicBool::new(false);
        thread::scope(|scope| -> Outcome {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    mount("bpf", &changing, "bpf", MountFlags::empty(), None).unwrap();
                    unmount(&changing, UnmountFlags::DETACH).unwrap();
                }
            });
            let look = || -> Outcome {
                let end = Instant::now() + Duration::from_secs(2);
                let mut looks = 0;
                while looks < 5 || Instant::now() < end {
                    looks += 1;
                    let mounts = Bpffs::mounts()?;
                    for (path, dev) in &constant {
                        let is_it =
                            |mount: &&Mount| mount.mount_point == *path && mount.dev == *dev;
                        assert_eq!(mounts.iter().filter(is_it).count(), 1, "{mounts:#?}");
                    }
                    assert!(mounts.len() <= before + 1, "{mounts:#?}");
                }
                Ok(())
            };
            let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
            done.store(true, Ordering::Relaxed);
            looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}
