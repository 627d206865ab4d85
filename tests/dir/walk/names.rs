//! Any number of names, names of any bytes, and the kernel's own names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bpf_pin::dir::EntryType;
use bpf_pin::error::Cause;
use bpf_pin::{Map, Object, PinDir};
use common::*;

use crate::walk::{MOUNT, Names, PINS, is_kernel_file, names, walk_all};

/// Names of all lengths, so that batches end at any offset.
#[common::test(PINS)]
fn thousands_of_names_are_listed() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    dir.pin(&hash(), "first")?;
    let mut expected = Names::from([("first".into(), EntryType::Pin)]);
    for number in 0..3000 {
        let name = format!("{number:0width$}", width = 5 + number % 251);
        dir.link("first", &name)?;
        expected.insert(name.into(), EntryType::Pin);
    }
    assert_eq!(expected.len(), 3001);
    assert_eq!(names(&dir)?, expected);
    // Two streams of one directory are independent.
    let (mut one, mut other) = (dir.entries()?, dir.entries()?);
    for _ in 0..3001 {
        let (one, other) = (one.next().expect("more")?, other.next().expect("more")?);
        assert_eq!(one.name(), other.name());
    }
    assert!(one.next().is_none() && other.next().is_none());
    // Entries that are kept share the batch that they were read in, which is freed after the last of them.
    let mut entries = dir.entries()?;
    let mut kept = Vec::new();
    while let Some(entry) = entries.next().transpose()? {
        kept.push((entry.name().to_owned(), entry.inode(), entry));
    }
    drop(entries);
    assert_eq!(kept.len(), expected.len());
    for (name, inode, entry) in &kept {
        assert_eq!((entry.name(), entry.inode()), (&**name, *inode));
        assert_eq!(entry.path(), dir.path().join(name));
        assert_eq!(entry.entry_type(), EntryType::Pin);
    }
    let (_, _, last) = kept.pop().expect("the last");
    drop(kept);
    let (object, info) = last.clone().open_with_info()?;
    assert_eq!(info, object.info()?);
    assert_eq!(dir.identity(last.name())?, info.identity());
    // The names can be removed while the stream reads them.
    for entry in dir.entries()? {
        dir.unlink(entry?.name())?;
    }
    assert!(names(&dir)?.is_empty());
    Ok(())
}

#[common::test(PINS)]
fn names_may_contain_any_byte() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let map = hash();
    let mut expected = Names::new();
    let single = (1..=255).filter(|byte| !b"./".contains(byte));
    let singles = single.clone().map(|byte| vec![byte]);
    let longest = [b'n', b' ', 0xff, b'\n'].map(|byte| vec![byte; 255]);
    let all_in_one: Vec<_> = single.collect();
    for name in singles.chain(longest).chain([all_in_one]) {
        let name = OsStr::from_bytes(&name);
        dir.pin(&map, name)?;
        expected.insert(name.to_owned(), EntryType::Pin);
    }
    assert_eq!(expected.len(), 253 + 4 + 1);
    assert_eq!(names(&dir)?, expected);
    let (paths, errors) = walk_all(&dir)?;
    assert!(errors.is_empty());
    assert_eq!(paths.len(), expected.len());
    for entry in dir.entries()? {
        assert_eq!(entry?.get::<Map>()?.id()?, map.id()?);
    }
    // A directory may have such a name, too.
    let odd = OsStr::from_bytes(b"\xc3\x28 \x07%*?");
    dir.create_dir(odd, 0o700)?.pin(&map, "in it")?;
    let (paths, errors) = walk_all(&dir)?;
    assert!(errors.is_empty());
    assert_eq!(paths[&Path::new(odd).join("in it")], EntryType::Pin);
    Ok(())
}

/// A fresh mount may list these files. A directory that a user creates never does.
#[common::test(MOUNT)]
fn the_files_of_the_kernel_are_listed() -> Outcome {
    with_mounted_bpffs(|root| -> Outcome {
        let dir = PinDir::open(root)?;
        dir.pin(&hash(), "map")?;
        let mut listed_files = Vec::new();
        for entry in dir.walk()? {
            let entry = entry?;
            if !is_kernel_file(entry.name()) {
                assert_eq!(entry.name(), "map");
                continue;
            }
            assert_eq!(entry.entry_type(), EntryType::Pin);
            assert_eq!(entry.metadata()?.mode(), 0o400);
            match entry.get::<bpf_pin::Object>() {
                Ok(object) => {
                    assert!(matches!(object, Object::Link(_)), "{object:?}");
                    let error = entry.get::<Map>().unwrap_err();
                    assert_cause_matches!(error, Cause::WrongKind { .. });
                }
                // Some kernels list files that they do not open. ENOENT then does not mean a missing name.
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                    assert_eq!(error.cause(), None, "{error}");
                }
            }
            // The library rejects a name with a dot without a syscall, because none can be created.
            let component = entry.name().to_owned();
            let error = dir.get::<bpf_pin::Object>(entry.name()).unwrap_err();
            assert_eq!(error.cause(), Some(&Cause::Dot { component }));
            listed_files.push(entry.name().to_owned());
        }
        listed_files.sort();
        let listed = fs::read_dir(root)?.count() - 1;
        assert_eq!(listed_files.len(), listed);
        println!("a fresh mount shows {listed_files:?}");
        // `remove_leftovers` keeps these files.
        let report = dir.remove_leftovers()?;
        assert!(report.removed.is_empty() && report.failed.is_empty());
        assert_eq!(fs::read_dir(root)?.count() - 1, listed);
        Ok(())
    })
}
