//! tc: our program under its filters, and maps that its objects share through tc/globals.

use std::path::Path;

use aya::EbpfLoader;
use aya::programs::SchedClassifier;
use bpf_pin::dir::EntryType;
use bpf_pin::map::ElemFlags;
use bpf_pin::types::ProgType;
use bpf_pin::{PinDir, PinnedMap};
use common::*;
use peers::{
    Counter, Maps, count_of, counter, counting, file, mounted, output, send_packets, test_run, tool,
};
use serde_json::{Value, json};

fn main() -> std::process::ExitCode {
    const TC: Need = Need::Program("tc", "iproute2");
    const NET: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, TC];
    Suite::new()
        .test("tc_attaches_our_pinned_program", NET, || {
            mounted(|root| in_network_namespace(|| object_pinned(root)))
        })
        .test("a_map_is_shared_through_tc_globals", NET, || {
            mounted(|root| in_network_namespace(|| globals(root)))
        })
        .test("aya_shares_the_legacy_definition_of_a_map", NET, || {
            mounted(|root| in_network_namespace(|| legacy(root)))
        })
        .test("tc_rejects_the_legacy_definition_of_a_map", NET, || {
            mounted(|root| in_network_namespace(|| legacy_refused(root)))
        })
        .run()
}

/// tc with its bpffs at `root`.
fn tc(root: &Path, args: &str) -> std::io::Result<String> {
    let mut command = tool("tc");
    command.env("TC_BPF_MNT", root).args(args.split(' '));
    output(&mut command)
}

/// Has tc load an object, under a filter of the loopback device.
fn add(root: &Path, direction: &str, object: &Path) -> std::io::Result<String> {
    let at = object.display();
    let args = format!("filter add dev lo {direction} bpf direct-action obj {at} sec tc verbose");
    tc(root, &args)
}

/// The filters of the loopback device in one direction, which have programs.
fn filters(root: &Path, direction: &str) -> Outcome<Vec<Value>> {
    let shown = tc(root, &format!("-json filter show dev lo {direction}"))?;
    let filters: Vec<Value> = serde_json::from_str(&shown)?;
    let with_programs = |filter: &Value| filter["options"]["prog"].is_object();
    Ok(filters.into_iter().filter(with_programs).collect())
}

const OBJECT: Counter<'_> = Counter {
    section: "tc",
    prog: "count",
    map: "packets",
    maps: Maps::BtfPinned,
    returns: 0,
};

fn object_pinned(root: &Path) -> Outcome {
    let map = counter()?;
    let prog = counting(&map, ProgType::SCHED_CLS, 0)?;
    let prog = prog.pin(root.join("filter"))?;
    tc(root, "qdisc add dev lo clsact")?;
    let at = prog.path().display();
    tc(
        root,
        &format!("filter add dev lo ingress bpf direct-action object-pinned {at}"),
    )?;
    let id = prog.id()?;
    // The filter holds it from now on.
    prog.unpin()?;
    send_packets(6)?;
    assert_eq!(count_of(&map)?, 6);
    let filters = filters(root, "ingress")?;
    assert_eq!(filters.len(), 1);
    assert_eq!(filters[0]["options"]["prog"]["id"], json!(id));
    assert_eq!(filters[0]["options"]["prog"]["name"], "counting");
    assert_eq!(
        bpf_pin::Prog::from_id(id)?.info()?.name.to_string(),
        "counting"
    );
    tc(root, "qdisc del dev lo clsact")?;
    send_packets(6)?;
    assert_eq!(count_of(&map)?, 6);

    // tc rejects a pin that is not a program.
    map.pin(root.join("map"))?;
    tc(root, "qdisc add dev lo clsact")?;
    let at = root.join("map").display().to_string();
    tc(
        root,
        &format!("filter add dev lo ingress bpf direct-action object-pinned {at}"),
    )
    .expect_err("a map's pin");
    Ok(())
}

fn globals(root: &Path) -> Outcome {
    let object = file(&OBJECT)?;
    let add = |direction| add(root, direction, object.path());
    tc(root, "qdisc add dev lo clsact")?;
    add("ingress")?;
    let map = PinnedMap::open(root.join("tc/globals/packets"))?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 3);
    // A second program with the same map: each packet is counted on egress and ingress.
    add("egress")?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 9);
    let ids = |direction| -> Outcome<Value> {
        Ok(filters(root, direction)?[0]["options"]["prog"]["id"].clone())
    };
    assert_ne!(ids("ingress")?, ids("egress")?);

    // The place as iproute2 has laid it: symbolic links lead to tc.
    let dir = PinDir::open(root)?;
    let mut entries = vec![];
    for entry in dir.entries()? {
        let entry = entry?;
        entries.push((entry.name().to_owned(), entry.entry_type()));
    }
    assert!(
        entries.contains(&("tc".into(), EntryType::Directory)),
        "{entries:?}"
    );
    let links = entries
        .iter()
        .filter(|(_, is)| *is == EntryType::SymbolicLink);
    assert!(links.count() >= 1, "{entries:?}");
    let through = PinDir::open(root.join("xdp"))?.open_dir("globals")?;
    assert_eq!(through.identity("packets")?, map.identity()?);

    // The next program counts in the map that replaced it.
    tc(root, "qdisc del dev lo clsact")?;
    let ours = counter()?;
    ours.elements::<u32, u64>()?
        .update(&0_u32, &100_u64, ElemFlags::ANY)?;
    PinDir::open(root.join("tc/globals"))?.replace(&ours, "packets")?;
    tc(root, "qdisc add dev lo clsact")?;
    add("ingress")?;
    send_packets(2)?;
    assert_eq!(count_of(&ours)?, 102);
    assert_eq!(count_of(&map)?, 9);
    Ok(())
}

/// `struct bpf_elf_map` with a pinning field: aya shares it through tc/globals, and from there tc's
/// own object has it.
fn legacy(root: &Path) -> Outcome {
    let legacy = Counter {
        section: "classifier",
        maps: Maps::Legacy(1),
        ..OBJECT
    };
    let globals = PinDir::create(root.join("tc/globals"), 0o700)?;
    let load = || -> Outcome {
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(globals.path())
            .load(&legacy.elf())?;
        let prog: &mut SchedClassifier =
            ebpf.program_mut("count").ok_or("no program")?.try_into()?;
        prog.load()?;
        test_run(prog.fd()?, 2)?;
        Ok(())
    };
    load()?;
    let map = PinnedMap::open(root.join("tc/globals/packets"))?;
    assert_eq!(count_of(&map)?, 2);
    map.elements::<u32, u64>()?
        .update(&0_u32, &10_u64, ElemFlags::ANY)?;
    load()?;
    assert_eq!(count_of(&map)?, 12);

    let object = file(&OBJECT)?;
    tc(root, "qdisc add dev lo clsact")?;
    add(root, "ingress", object.path())?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 15);

    // And what we put in its place.
    let ours = counter()?;
    ours.elements::<u32, u64>()?
        .update(&0_u32, &100_u64, ElemFlags::ANY)?;
    globals.replace(&ours, "packets")?;
    load()?;
    assert_eq!(count_of(&ours)?, 102);
    assert_eq!(count_of(&map)?, 15);
    Ok(())
}

/// tc leaves objects to libbpf, which takes no such map since 1.0, whatever its pinning.
fn legacy_refused(root: &Path) -> Outcome {
    tc(root, "qdisc add dev lo clsact")?;
    for pinning in 0..=2 {
        let object = file(&Counter {
            maps: Maps::Legacy(pinning),
            ..OBJECT
        })?;
        let added = add(root, "ingress", object.path());
        let said = added.expect_err("libbpf refuses it").to_string();
        assert!(said.contains("legacy map definitions"), "{said}");
        assert_eq!(filters(root, "ingress")?, [Value::Null; 0]);
        let globals = PinDir::open(root.join("tc/globals"))?;
        assert_eq!(globals.entries()?.count(), 0);
    }
    Ok(())
}
