//! A seccomp filter that rejects a command is the cause, for any errno.

use bpf_pin::error::{Cause, ErrorKind};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::{Btf, Insn, TestRun};
use bpf_pin::types::{Command, ProgType};
use bpf_pin::{Error, Map, MapSpec, MapType, PinDir, ProgSpec};
use common::*;
use rustix::thread::CapabilitySet;

use crate::cause::*;

const MINIMAL: [Insn; 2] = [Insn::mov64_imm(0, 0), Insn::exit()];

type Attempt<'a> = (Command, &'a (dyn Fn() -> Result<(), Error> + Sync));

#[common::test(&[cap::SYS_ADMIN, Need::Bpffs])]
fn a_filter_of_each_command_is_named() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (map, prog) = (hash(), prog());
    dir.pin(&map, "map")?;
    let (id, path) = (map.id()?, fs.at("map"));
    let elements = map.elements::<[u8], [u8]>()?;
    let (key, value) = (vec![0; elements.key_len()], vec![0; elements.value_len()]);
    let batch = || {
        elements
            .update_batch(&key, &value, ElemFlags::ANY)
            .map(drop)
    };
    let attempts: [Attempt<'_>; 16] = [
        (Command::MAP_CREATE, &|| {
            MapSpec::of(&map)?.create().map(drop)
        }),
        (Command::PROG_LOAD, &|| {
            ProgSpec::new(ProgType::SOCKET_FILTER, &MINIMAL)
                .load()
                .map(drop)
        }),
        (Command::BTF_LOAD, &|| Btf::load(&[]).map(drop)),
        (Command::BTF_GET_FD_BY_ID, &|| Btf::from_id(1).map(drop)),
        (Command::OBJ_GET, &|| Map::open(&path).map(drop)),
        (Command::OBJ_PIN, &|| dir.pin(&map, "other")),
        (Command::OBJ_PIN, &|| dir.replace(&map, "map")),
        (Command::OBJ_GET_INFO_BY_FD, &|| map.info().map(drop)),
        (Command::MAP_GET_FD_BY_ID, &|| Map::from_id(id).map(drop)),
        (Command::MAP_GET_NEXT_ID, &|| {
            Map::ids().try_for_each(|id| id.map(drop))
        }),
        (Command::MAP_LOOKUP_ELEM, &|| {
            elements.lookup(&key).map(drop)
        }),
        (Command::MAP_UPDATE_ELEM, &|| {
            elements.update(&key, &value, ElemFlags::ANY)
        }),
        (Command::MAP_DELETE_ELEM, &|| {
            elements.delete(&key).map(drop)
        }),
        (Command::MAP_UPDATE_BATCH, &batch),
        (Command::MAP_FREEZE, &|| map.freeze()),
        (Command::PROG_TEST_RUN, &|| {
            prog.test_run(TestRun::new().data_in(&[0; 64])).map(drop)
        }),
    ];
    for (command, attempt) in attempts {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let error = with_bpf_errno(Some(command.0), errno as u32, || attempt().unwrap_err());
            assert_eq!(error.cause(), Some(&Cause::Filtered { command }), "{error}");
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    }
    Ok(())
}

/// A filter of another command, and an errno of the kernel.
#[common::test(&[cap::BPF, Need::Bpffs])]
fn a_filter_that_lets_the_command_through_is_not_named() -> Outcome {
    let invalid = MapSpec::new(MapType::HASH, 0, 8, 1);
    for command in [Command::OBJ_GET, Command::MAP_CREATE] {
        // EINVAL is the kernel's answer, and the filter's is another one.
        let error = with_bpf_errno(Some(Command::OBJ_GET.0), libc::EPERM as u32, || {
            invalid.create().unwrap_err()
        });
        assert!(
            !matches!(error.cause(), Some(Cause::Filtered { .. })),
            "{command}: {error}"
        );
    }
    Ok(())
}

/// Before it reads the arguments, a kernel may reject a thread without privileges.
#[common::test(&[cap::SYS_ADMIN, cap::SETUID])]
fn eperm_without_privileges_is_not_taken_for_a_filter() -> Outcome {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    let map = any_map();
    let spec = MapSpec::of(&map)?;
    let error = as_user(CapabilitySet::empty(), || {
        with_bpf_errno(Some(Command::MAP_CREATE.0), libc::EPERM as u32, || {
            spec.create().unwrap_err()
        })
    });
    let is_filter = matches!(error.cause(), Some(Cause::Filtered { .. }));
    assert_eq!(is_filter, disabled.trim() == "0", "{error}");
    Ok(())
}
