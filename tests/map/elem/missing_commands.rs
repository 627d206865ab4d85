//! Types without a command: the error names the command.

use std::os::fd::AsRawFd;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{MapSpec, MapType};
use common::*;

use super::{ENOTSUPP, cause, create, errno, no_command};

/// The key is a descriptor of the socket, so the kernel cannot list keys.
#[common::test(super::BPF)]
fn socket_storage_cannot_be_listed() -> Outcome {
    let btf = btf_fd();
    let map = MapSpec::new(MapType::SK_STORAGE, 4, 4, 0)
        .flags(MapFlags::NO_PREALLOC)
        .btf(&btf, 1, 1)
        .create()?;
    let elems = map.elements::<i32, u32>()?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let key = socket.as_raw_fd();
    assert_eq!(elems.lookup(&key)?, None);
    elems.update(&key, &7, ElemFlags::NOEXIST)?;
    assert_eq!(elems.lookup(&key)?, Some(7));
    let keys: Vec<_> = elems.keys().collect();
    let [Err(error)] = &keys[..] else {
        panic!("{keys:?}")
    };
    assert_eq!(error.operation(), Operation::NextKey);
    let (command, map_type) = (Command::MAP_GET_NEXT_KEY, MapType::SK_STORAGE);
    assert_eq!(error.cause(), Some(&Cause::NoCommand { command, map_type }));
    assert_eq!(error.raw_os_error(), Some(ENOTSUPP));
    assert!(elems.delete(&key)?);
    assert_eq!(elems.lookup(&key)?, None);
    Ok(())
}

#[common::test(super::BPF)]
fn types_without_lookups_are_reported() -> Outcome {
    let map = create(MapType::PERF_EVENT_ARRAY, 4, 4, 1);
    let elems = map.elements::<u32, u32>()?;
    assert_eq!(errno(elems.lookup(&0)), ENOTSUPP);
    let no_lookup = no_command(Command::MAP_LOOKUP_ELEM, MapType::PERF_EVENT_ARRAY);
    assert_eq!(cause(elems.lookup(&0)), no_lookup);
    let entries: Vec<_> = elems.iter().collect();
    let [Err(error)] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(error.operation(), Operation::Lookup);
    Ok(())
}
