//! `Migration::commit_with`: merges what a program wrote to the old map until it was replaced.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Insn;
use bpf_pin::reuse::{Attachment, MapOutcome, Migrate, Migration, Reuse};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{LinkSpec, Map, MapSpec, MapType, PinDir, Prog, ProgSpec, abi};
use common::{LOOPBACK, Need, Outcome, TestFs, bring_up_loopback, cap, in_network_namespace};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

fn spec(value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, value_size, 16)
}

fn grow() -> Migrate<'static> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 0])))
}

/// The new map, and the migration if this call began or resumed one.
fn migrate(dir: &PinDir) -> Outcome<(Map, Option<Migration>)> {
    let opened = dir.open_or_create("counts", &spec(16), Reuse::Migrate(&mut grow()))?;
    Ok(match opened.outcome {
        MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration) => {
            (opened.map, Some(migration))
        }
        _ => (opened.map, None),
    })
}

/// Counts each packet in the first word of the value under the key 0, and lets it pass.
fn counting(map: &Map) -> bpf_pin::Result<Prog> {
    let mut insns = vec![
        Insn::st_mem(abi::BPF_W, 10, -4, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(abi::BPF_ADD, 2, -4),
    ];
    insns.extend(Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
    insns.extend([
        Insn::call(abi::BPF_FUNC_map_lookup_elem),
        Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 2),
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        Insn::mov64_imm(0, 2),
        Insn::exit(),
    ]);
    ProgSpec::new(ProgType::XDP, &insns)
        .expected_attach_type(AttachType::XDP)
        .load()
}

/// Sends packets through the loopback device.
fn send(socket: &UdpSocket, packets: u64) -> Outcome {
    let to = socket.local_addr()?;
    for _ in 0..packets {
        socket.send_to(b"packet", to)?;
        socket.recv(&mut [0; 16])?;
    }
    Ok(())
}

/// Migrates the map, updates the link to the new map's program, and merges what the old program counted meanwhile.
#[common::test(ROOT)]
fn an_upgrade_with_a_merge_loses_no_packet() -> Outcome {
    in_network_namespace(|| {
        bring_up_loopback()?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let old = spec(8).create()?;
        old.elements::<u32, u64>()?.update(&0, &0, ElemFlags::ANY)?;
        dir.pin(&old, "counts")?;
        let link = LinkSpec::xdp(LOOPBACK);
        dir.open_or_attach("link", &link, &counting(&old)?)?;
        send(&socket, 10)?;

        let (map, migration) = migrate(&dir)?;
        send(&socket, 20)?;
        let attached = dir.open_or_attach("link", &link, &counting(&map)?)?;
        assert!(matches!(attached.attachment, Attachment::Updated { .. }));
        send(&socket, 40)?;
        let counts = map.elements::<u32, [u64; 2]>()?;
        assert_eq!(counts.lookup(&0)?, Some([10 + 40, 0]));
        let migration = migration.expect("a migration");
        migration.commit_with(|key: &u32, copied: Option<&u64>, now: Option<&u64>| {
            assert_eq!((*key, copied, now), (0, Some(&10), Some(&30)));
            let more = now.unwrap() - copied.unwrap();
            let [count, other] = counts.lookup(key)?.unwrap();
            counts.update(key, &[count + more, other], ElemFlags::ANY)
        })?;
        assert_eq!(counts.lookup(&0)?, Some([70, 0]));
        assert_eq!(fs.names(), ["counts", "link"]);
        Ok(())
    })
}

/// Changed, new and deleted entries are passed; unchanged ones are not.
#[common::test(PINS)]
fn each_change_is_passed_to_the_merge_function() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = spec(8).create()?;
    let values = old.elements::<u32, u64>()?;
    for key in 1..5 {
        values.update(&key, &10, ElemFlags::ANY)?;
    }
    dir.pin(&old, "counts")?;
    let (_, migration) = migrate(&dir)?;
    values.update(&1, &11, ElemFlags::ANY)?;
    assert!(values.delete(&2)?);
    values.update(&7, &70, ElemFlags::ANY)?;

    // Sizes are checked before anything is merged, and the error returns the migration.
    let failed = migration
        .unwrap()
        .commit_with(|_: &u32, _: Option<&u32>, _| Ok(()));
    let failed = failed.expect_err("values of 8 bytes");
    assert!(
        matches!(failed.error().cause(), Some(Cause::Size { .. })),
        "{failed}"
    );
    let mut changes = vec![];
    let merge = |key: &u32, copied: Option<&u64>, now: Option<&u64>| {
        changes.push((*key, copied.copied(), now.copied()));
        Ok(())
    };
    failed.into_object().commit_with(merge)?;
    changes.sort_unstable();
    let expected = [
        (1, Some(10), Some(11)),
        (2, Some(10), None),
        (7, None, Some(70)),
    ];
    assert_eq!(changes, expected);
    assert_eq!(fs.names(), ["counts"]);
    Ok(())
}

/// Another process copied the entries, and their copied values are unknown.
#[common::test(PINS)]
fn a_resumed_migration_cannot_be_merged() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    dir.pin(&spec(8).create()?, "counts")?;
    drop(migrate(&dir)?);
    let (_, resumed) = migrate(&dir)?;
    let merge = |_: &u32, _: Option<&u64>, _: Option<&u64>| panic!("the changes are unknown");
    let failed = resumed
        .expect("a migration")
        .commit_with(merge)
        .expect_err("resumed");
    assert!(
        matches!(
            failed.error().cause(),
            Some(Cause::InvalidArgument {
                what: "commit_with",
                ..
            })
        ),
        "{failed}"
    );
    failed.into_object().commit()?;
    assert_eq!(fs.names(), ["counts"]);
    Ok(())
}
