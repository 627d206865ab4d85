//! Elements: what is inserted is found, and a failing command explains why and changes nothing.

mod missing_commands;
mod task_storage;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{Access, Error, Map, MapSpec, MapType, abi};
use bytemuck::{Pod, Zeroable};
use common::*;

const BPF: &[Need] = &[cap::BPF];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const STORAGE: &[Need] = &[cap::SYS_ADMIN, cap::SETUID, kernel(5, 13)];
const TAGGED: &[Need] = &[cap::SYS_ADMIN, kernel(5, 17)];
const UPTR: &[Need] = &[cap::SYS_ADMIN, kernel(6, 13)];
const BLOOM: &[Need] = &[cap::BPF, kernel(5, 16)];

fn create(map_type: MapType, key_size: u32, value_size: u32, max_entries: u32) -> Map {
    let spec = MapSpec::new(map_type, key_size, value_size, max_entries);
    let map = spec.name("elem").create();
    map.unwrap_or_else(|error| panic!("{error}"))
}

fn cause<T: std::fmt::Debug>(result: bpf_pin::Result<T>) -> Option<Cause> {
    result.expect_err("a failure").cause().cloned()
}

fn no_command(command: Command, map_type: MapType) -> Option<Cause> {
    Some(Cause::NoCommand { command, map_type })
}

fn errno<T: std::fmt::Debug>(result: bpf_pin::Result<T>) -> i32 {
    let error = result.expect_err("a failure");
    error.raw_os_error().expect("an errno")
}

/// The kernel's ENOTSUPP.
const ENOTSUPP: i32 = 524;

#[common::test(BPF)]
fn a_hash_is_used_as_bytes() -> Outcome {
    // Sizes of no integer type.
    let map = create(MapType::HASH, 3, 5, 4);
    let elems = map.elements::<[u8], [u8]>()?;
    assert_eq!((elems.key_len(), elems.value_len()), (3, 5));
    assert_eq!(
        format!("{elems:?}"),
        "Elements { key_len: 3, value_len: 5, .. }"
    );
    let (mut value, mut next) = ([0xaa; 5], [0xaa; 3]);

    assert!(!elems.lookup_into(b"abc", &mut value, ElemFlags::ANY)?);
    assert!(!elems.next_key(None, &mut next)?);
    assert!(!elems.delete(b"abc")?);
    assert_eq!(elems.keys().count(), 0);

    elems.update(b"abc", b"first", ElemFlags::ANY)?;
    assert!(elems.lookup_into(b"abc", &mut value, ElemFlags::ANY)?);
    assert_eq!(&value, b"first");
    elems.update(b"abc", b"again", ElemFlags::ANY)?;
    assert!(elems.lookup_into(b"abc", &mut value, ElemFlags::ANY)?);
    assert_eq!(&value, b"again");

    assert!(elems.next_key(None, &mut next)?);
    assert_eq!(&next, b"abc");
    assert!(!elems.next_key(Some(b"abc"), &mut next)?);
    // The first key follows a key that does not exist.
    next = [0; 3];
    assert!(elems.next_key(Some(b"xyz"), &mut next)?);
    assert_eq!(&next, b"abc");

    elems.update(b"def", b"other", ElemFlags::ANY)?;
    let keys: BTreeSet<Vec<u8>> = elems.keys().collect::<Result<_, _>>()?;
    assert_eq!(keys, [b"abc".to_vec(), b"def".to_vec()].into());
    assert!(elems.delete(b"abc")?);
    assert!(!elems.delete(b"abc")?);
    assert!(!elems.lookup_into(b"abc", &mut value, ElemFlags::ANY)?);
    Ok(())
}

/// A filter that answers instead of the kernel leaves zeroes: sizes of 0, and no type.
#[common::test(BPF)]
fn forged_sizes_are_rejected() -> Outcome {
    for map_type in [MapType::HASH, MapType::ARRAY, MapType::PERCPU_ARRAY] {
        let map = create(map_type, 4, 8, 4);
        common::with_bpf_errno(Some(abi::BPF_OBJ_GET_INFO_BY_FD), 0, || {
            let error = map.elements::<[u8], [u8]>().expect_err("no sizes");
            let cause = error.cause();
            assert!(
                matches!(cause, Some(Cause::UnsupportedType { .. })),
                "{error}"
            );
        });
        assert_eq!(map.elements::<[u8], [u8]>()?.key_len(), 4);
    }
    Ok(())
}

#[common::test(BPF)]
fn an_array_has_all_its_elements() -> Outcome {
    let map = create(MapType::ARRAY, 4, 8, 3);
    let elems = map.elements::<u32, u64>()?;
    // All elements exist from the start, in order.
    let all: Vec<(u32, u64)> = elems.iter().collect::<Result<_, _>>()?;
    assert_eq!(all, [(0, 0), (1, 0), (2, 0)]);
    elems.update(&1, &u64::MAX, ElemFlags::ANY)?;
    elems.update(&2, &5, ElemFlags::EXIST)?;
    let all: Vec<(u32, u64)> = elems.iter().collect::<Result<_, _>>()?;
    assert_eq!(all, [(0, 0), (1, u64::MAX), (2, 5)]);

    assert_eq!(
        errno(elems.update(&0, &1, ElemFlags::NOEXIST)),
        libc::EEXIST
    );
    assert_eq!(errno(elems.delete(&0)), libc::EINVAL);
    let no_delete = no_command(Command::MAP_DELETE_ELEM, MapType::ARRAY);
    assert_eq!(cause(elems.delete(&0)), no_delete);
    let command = Command::MAP_LOOKUP_AND_DELETE_ELEM;
    let map_type = MapType::ARRAY;
    let drained = elems.drain().next().expect("one").expect_err("a take");
    assert_eq!(
        drained.cause(),
        Some(&Cause::NoCommand { command, map_type })
    );
    assert_eq!(drained.raw_os_error(), Some(ENOTSUPP));
    assert_eq!(elems.lookup(&3)?, None);
    assert_eq!(elems.lookup(&u32::MAX)?, None);
    for beyond in [3, u32::MAX] {
        let error = elems.update(&beyond, &1, ElemFlags::ANY);
        let error = error.expect_err("an index that is not below 3");
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        let cause = Cause::IndexOutOfRange {
            index: beyond,
            max_entries: 3,
        };
        assert_eq!(error.cause(), Some(&cause));
        let error = elems.update_batch(&[2, beyond], &[1, 1], ElemFlags::ANY);
        assert_eq!(error.expect_err("the same").cause(), Some(&cause));
    }

    let bytes = map.elements::<[u8], [u8]>()?;
    let mut next = [0; 4];
    assert!(!bytes.next_key(Some(&2u32.to_ne_bytes()), &mut next)?);
    assert!(bytes.next_key(Some(&9u32.to_ne_bytes()), &mut next)?);
    assert_eq!(u32::from_ne_bytes(next), 0);
    Ok(())
}

#[common::test(BPF)]
fn an_lru_hash_evicts_and_is_never_full() -> Outcome {
    let map = create(MapType::LRU_HASH, 4, 8, 64);
    let elems = map.elements::<u32, u64>()?;
    for key in 0..1000 {
        elems.update(&key, &u64::from(key), ElemFlags::ANY)?;
        assert_eq!(elems.lookup(&key)?, Some(u64::from(key)));
    }
    let found: BTreeMap<u32, u64> = elems.iter().collect::<Result<_, _>>()?;
    assert!((1..=64).contains(&found.len()), "{} found", found.len());
    assert!(found.iter().all(|(key, value)| u64::from(*key) == *value));
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
struct Prefix {
    length: u32,
    address: [u8; 4],
}

#[common::test(BPF)]
fn a_trie_finds_the_longest_prefix() -> Outcome {
    let spec = MapSpec::new(MapType::LPM_TRIE, 8, 4, 8).flags(MapFlags::NO_PREALLOC);
    let map = spec.create()?;
    let elems = map.elements::<Prefix, u32>()?;
    let prefix = |length, address| Prefix { length, address };
    let (wide, narrow) = (prefix(8, [10, 0, 0, 0]), prefix(24, [10, 1, 2, 0]));
    elems.update(&wide, &8, ElemFlags::ANY)?;
    elems.update(&narrow, &24, ElemFlags::ANY)?;

    let host = |address| elems.lookup(&prefix(32, address));
    assert_eq!(host([10, 1, 2, 3])?, Some(24));
    assert_eq!(host([10, 1, 3, 3])?, Some(8));
    assert_eq!(host([11, 1, 2, 3])?, None);
    let keys: BTreeSet<Prefix> = elems.keys().collect::<Result<_, _>>()?;
    assert_eq!(keys, [wide, narrow].into());

    assert!(!elems.delete(&prefix(16, [10, 1, 0, 0]))?);
    assert!(elems.delete(&narrow)?);
    assert_eq!(host([10, 1, 2, 3])?, Some(8));
    assert_eq!(
        errno(elems.update(&prefix(33, [0; 4]), &1, ElemFlags::ANY)),
        libc::EINVAL
    );
    Ok(())
}

#[common::test(BPF)]
fn queues_and_stacks_have_no_keys() -> Outcome {
    for (map_type, first, then) in [(MapType::QUEUE, 1, 1), (MapType::STACK, 1, 2)] {
        let map = create(map_type, 0, 4, 2);
        let bytes = map.elements::<[u8], [u8]>()?;
        assert_eq!((bytes.key_len(), bytes.value_len()), (0, 4));
        let elems = map.elements::<(), u32>()?;
        assert_eq!(elems.lookup(&())?, None);
        elems.update(&(), &1, ElemFlags::ANY)?;
        // A lookup does not remove it.
        assert_eq!(elems.lookup(&())?, Some(first));
        assert_eq!(elems.lookup(&())?, Some(first));
        elems.update(&(), &2, ElemFlags::ANY)?;
        assert_eq!(elems.lookup(&())?, Some(then));

        let error = elems.update(&(), &3, ElemFlags::ANY).expect_err("no room");
        assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 2 }));
        // EXIST replaces the oldest.
        elems.update(&(), &3, ElemFlags::EXIST)?;
        let next = if map_type == MapType::QUEUE { 2 } else { 3 };
        assert_eq!(elems.lookup(&())?, Some(next));

        assert_eq!(errno(elems.delete(&())), libc::EINVAL);
        let no_delete = no_command(Command::MAP_DELETE_ELEM, map_type);
        assert_eq!(cause(elems.delete(&())), no_delete);
        let no_next_key = no_command(Command::MAP_GET_NEXT_KEY, map_type);
        assert_eq!(cause(bytes.next_key(None, &mut [])), no_next_key);
        let command = Command::MAP_GET_NEXT_KEY;
        for error in [
            elems.keys().next().expect("one").expect_err("no keys"),
            elems.iter().next().expect("one").expect_err("no keys"),
            elems.to_vecs().expect_err("no keys"),
        ] {
            assert_eq!(error.cause(), Some(&Cause::NoCommand { command, map_type }));
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
        let keys: Vec<_> = elems.keys().collect();
        let [Err(error)] = &keys[..] else {
            panic!("{keys:?}")
        };
        assert_eq!(error.operation(), Operation::NextKey);
        assert_eq!(elems.lookup(&())?, Some(next));
    }
    Ok(())
}

#[common::test(BLOOM)]
fn a_bloom_filter_finds_inserted_values() -> Outcome {
    let map = create(MapType::BLOOM_FILTER, 0, 8, 64);
    let elems = map.elements::<[u8], [u8]>()?;
    for number in 0..64u64 {
        elems.update(&[], &number.to_ne_bytes(), ElemFlags::ANY)?;
    }
    for number in 0..64u64 {
        // The value is the input and stays unchanged.
        let mut value = number.to_ne_bytes();
        assert!(
            elems.lookup_into(&[], &mut value, ElemFlags::ANY)?,
            "{number}"
        );
        assert_eq!(value, number.to_ne_bytes());
    }
    let strangers = (1000..2000u64)
        .map(|number| elems.lookup_into(&[], &mut number.to_ne_bytes(), ElemFlags::ANY))
        .collect::<Result<Vec<_>, _>>()?;
    let wrong = strangers.iter().filter(|found| **found).count();
    assert!(wrong < 900, "{wrong} of 1000 strangers were let in");
    Ok(())
}

#[common::test(BPF)]
fn prog_arrays_return_ids() -> Outcome {
    let map = create(MapType::PROG_ARRAY, 4, 4, 2);
    let elems = map.elements::<u32, u32>()?;
    let prog = prog();
    let fd = prog.as_fd().as_raw_fd() as u32;
    assert_eq!(elems.lookup(&0)?, None);
    elems.update(&0, &fd, ElemFlags::ANY)?;
    assert_eq!(elems.lookup(&0)?, Some(prog.id()?));
    assert_eq!(elems.lookup(&1)?, None);
    let entries: Vec<_> = elems.iter().collect::<Result<_, _>>()?;
    assert_eq!(entries, [(0, prog.id()?)]);

    assert_eq!(
        errno(elems.update(&1, &u32::MAX, ElemFlags::ANY)),
        libc::EBADF
    );
    let map_fd = map.as_fd().as_raw_fd() as u32;
    assert_eq!(
        errno(elems.update(&1, &map_fd, ElemFlags::ANY)),
        libc::EINVAL
    );
    assert_eq!(elems.lookup(&1)?, None);
    let error = elems.delete(&2).expect_err("an index that is not below 2");
    assert!(
        error
            .to_string()
            .ends_with(": index 2 is out of range: max_entries is 2")
    );
    assert!(elems.delete(&0)?);
    assert!(!elems.delete(&0)?);
    Ok(())
}

#[common::test(BPF)]
fn maps_of_maps_return_ids() -> Outcome {
    let inner = create(MapType::ARRAY, 4, 8, 1);
    let spec = MapSpec::new(MapType::HASH_OF_MAPS, 8, 4, 2);
    let map = spec.inner_map(&inner).create()?;
    let elems = map.elements::<u64, u32>()?;
    let fd = inner.as_fd().as_raw_fd() as u32;
    elems.update(&7, &fd, ElemFlags::NOEXIST)?;
    assert_eq!(elems.lookup(&7)?, Some(inner.id()?));
    assert_eq!(elems.lookup(&8)?, None);
    let keys: Vec<u64> = elems.keys().collect::<Result<_, _>>()?;
    assert_eq!(keys, [7]);
    assert!(elems.delete(&7)?);
    assert_eq!(elems.lookup(&7)?, None);
    Ok(())
}

#[common::test(BPF)]
fn flags_require_or_forbid_an_existing_key() -> Outcome {
    let map = create(MapType::HASH, 4, 8, 4);
    let elems = map.elements::<u32, u64>()?;
    let error = elems.update(&1, &1, ElemFlags::EXIST).expect_err("nothing");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(error.cause(), Some(&Cause::KeyMissing));
    assert_eq!(elems.lookup(&1)?, None);
    elems.update(&1, &1, ElemFlags::NOEXIST)?;
    let error = elems.update(&1, &2, ElemFlags::NOEXIST).expect_err("one");
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    assert_eq!(error.cause(), Some(&Cause::KeyExists));
    assert_eq!(elems.lookup(&1)?, Some(1));
    elems.update(&1, &3, ElemFlags::EXIST)?;
    assert_eq!(elems.lookup(&1)?, Some(3));

    // The value has no lock, and the two flags exclude each other.
    for flags in [
        ElemFlags::LOCK,
        ElemFlags::NOEXIST | ElemFlags::EXIST,
        ElemFlags::from_bits_retain(1 << 31),
    ] {
        assert_eq!(
            errno(elems.update(&1, &4, flags)),
            libc::EINVAL,
            "{flags:?}"
        );
    }
    let mut value = [0; 8];
    let looked = map
        .elements::<[u8], [u8]>()?
        .lookup_into(&[0; 4], &mut value, ElemFlags::LOCK);
    assert_eq!(errno(looked), libc::EINVAL);
    assert_eq!(elems.lookup(&1)?, Some(3));
    Ok(())
}

#[common::test(BPF)]
fn an_error_names_the_expected_and_the_given_size() -> Outcome {
    let map = create(MapType::HASH, 4, 8, 4);
    let elems = map.elements::<[u8], [u8]>()?;
    elems.update(&[1; 4], &[1; 8], ElemFlags::ANY)?;
    let assert_size_rejected = |result: bpf_pin::Result<bool>, what, expected, found| {
        let error = result.expect_err("a wrong size");
        let size = Cause::Size {
            what,
            expected,
            found,
        };
        assert_eq!(error.cause(), Some(&size));
        // No syscall was made.
        assert_eq!(error.raw_os_error(), None);
    };
    let any = ElemFlags::ANY;
    let put = |key: &[u8], value: &[u8]| elems.update(key, value, any).map(|()| true);
    for found in [0, 3, 5, 4096] {
        let key = vec![1; found];
        assert_size_rejected(
            elems.lookup_into(&key, &mut [0; 8], ElemFlags::ANY),
            "key",
            4,
            found,
        );
        assert_size_rejected(put(&key, &[0; 8]), "key", 4, found);
        assert_size_rejected(elems.delete(&key), "key", 4, found);
        assert_size_rejected(elems.next_key(Some(&key), &mut [0; 4]), "key", 4, found);
        assert_size_rejected(elems.next_key(None, &mut vec![1; found]), "key", 4, found);
    }
    for found in [0, 7, 9, 4096] {
        let mut value = vec![0xaa; found];
        assert_size_rejected(
            elems.lookup_into(&[1; 4], &mut value, ElemFlags::ANY),
            "value",
            8,
            found,
        );
        assert!(value.iter().all(|byte| *byte == 0xaa));
        assert_size_rejected(put(&[1; 4], &value), "value", 8, found);
    }
    let mut value = [0; 8];
    assert!(elems.lookup_into(&[1; 4], &mut value, ElemFlags::ANY)?);
    assert_eq!(value, [1; 8]);
    assert_eq!(elems.keys().count(), 1);
    Ok(())
}

#[common::test(BPF)]
fn unsupported_flags_are_rejected() -> Outcome {
    let both = ElemFlags::NOEXIST | ElemFlags::EXIST;
    let is_flags =
        |cause: Option<&Cause>| matches!(cause, Some(Cause::InvalidArgument { what: "flags", .. }));
    for map_type in [MapType::HASH, MapType::ARRAY] {
        let map = create(map_type, 4, 8, 2);
        let elems = map.elements::<[u8], [u8]>()?;
        let (key, mut value) = ([0; 4], [1; 8]);
        for flags in [both, ElemFlags::LOCK] {
            let error = elems.update(&key, &value, flags).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
            assert!(is_flags(error.cause()), "{error}");
        }
        let locked = elems.lookup_into(&key, &mut value, ElemFlags::LOCK);
        assert!(is_flags(cause(locked).as_ref()));
        // Flags unknown to the kernel have no cause.
        let unknown = ElemFlags::from_bits_retain(1 << 60);
        let error = elems.update(&key, &value, unknown).expect_err("unknown");
        assert_cause(&error, libc::EINVAL, None);
    }
    Ok(())
}

#[common::test(BPF)]
fn a_full_map_is_reported() -> Outcome {
    for flags in [MapFlags::empty(), MapFlags::NO_PREALLOC] {
        let map = MapSpec::new(MapType::HASH, 4, 8, 2).flags(flags).create()?;
        let elems = map.elements::<u32, u64>()?;
        elems.update(&1, &1, ElemFlags::ANY)?;
        elems.update(&2, &2, ElemFlags::ANY)?;
        let error = elems.update(&3, &3, ElemFlags::ANY).expect_err("a third");
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 2 }));
        // Existing elements can be changed, and deleting one makes room.
        elems.update(&1, &10, ElemFlags::ANY)?;
        assert_eq!(elems.lookup(&3)?, None);
        assert!(elems.delete(&2)?);
        elems.update(&3, &3, ElemFlags::ANY)?;
        let all: BTreeMap<_, _> = elems.iter().collect::<Result<_, _>>()?;
        assert_eq!(all, [(1, 10), (3, 3)].into());
    }
    Ok(())
}

fn assert_denied<T: std::fmt::Debug>(result: bpf_pin::Result<T>, opened: Access) -> Error {
    let error = result.expect_err("no access");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
    error
}

#[common::test(PINS)]
fn a_read_only_map_rejects_writes() -> Outcome {
    let fs = TestFs::new();
    let pinned = hash().pin(fs.at("flows"))?;
    pinned
        .elements::<u32, u64>()?
        .update(&1, &1, ElemFlags::ANY)?;
    let map = Map::open_with(fs.at("flows"), Access::ReadOnly)?;
    let elems = map.elements::<u32, u64>()?;
    let all: Vec<_> = elems.iter().collect::<Result<_, _>>()?;
    assert_eq!(all, [(1, 1)]);
    let error = assert_denied(elems.update(&1, &2, ElemFlags::ANY), Access::ReadOnly);
    assert!(
        error
            .to_string()
            .ends_with(": the map was opened for reading only")
    );
    assert_denied(elems.delete(&1), Access::ReadOnly);
    assert_eq!(elems.lookup(&1)?, Some(1));
    Ok(())
}

#[common::test(PINS)]
fn a_write_only_map_rejects_reads() -> Outcome {
    let fs = TestFs::new();
    let pinned = hash().pin(fs.at("flows"))?;
    let map = Map::open_with(fs.at("flows"), Access::WriteOnly)?;
    let elems = map.elements::<u32, u64>()?;
    elems.update(&1, &1, ElemFlags::ANY)?;
    elems.update(&2, &2, ElemFlags::ANY)?;
    assert!(elems.delete(&2)?);
    let error = assert_denied(elems.lookup(&1), Access::WriteOnly);
    assert!(
        error
            .to_string()
            .ends_with(": the map was opened for writing only")
    );
    assert_denied(
        map.elements::<[u8], [u8]>()?.next_key(None, &mut [0; 4]),
        Access::WriteOnly,
    );
    let mut keys = elems.keys();
    assert_denied(keys.next().expect("the refusal"), Access::WriteOnly);
    assert!(keys.next().is_none() && keys.next().is_none());
    let all = pinned.elements::<u32, u64>()?;
    let all: Vec<_> = all.iter().collect::<Result<_, _>>()?;
    assert_eq!(all, [(1, 1)]);
    Ok(())
}

#[common::test(BPF)]
fn a_frozen_map_rejects_writes() -> Outcome {
    let map = create(MapType::HASH, 4, 8, 4);
    let elems = map.elements::<u32, u64>()?;
    elems.update(&1, &1, ElemFlags::ANY)?;
    map.freeze()?;
    for error in [
        elems.update(&1, &2, ElemFlags::ANY).expect_err("a change"),
        elems.update(&2, &2, ElemFlags::ANY).expect_err("more"),
        elems.delete(&1).expect_err("less"),
    ] {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert_eq!(error.cause(), Some(&Cause::Frozen), "{error}");
    }
    let all: Vec<_> = elems.iter().collect::<Result<_, _>>()?;
    assert_eq!(all, [(1, 1)]);

    // The descriptor's access is reported first.
    let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1);
    let reader = spec.flags(MapFlags::RDONLY).create()?;
    assert_denied(
        reader
            .elements::<u32, u64>()?
            .update(&0, &1, ElemFlags::ANY),
        Access::ReadOnly,
    );
    Ok(())
}
