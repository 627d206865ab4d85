//! bpftool: what it shows, dumps and finds of our pins, and what it pins itself.

use std::path::Path;

use bpf_pin::inventory::Inventory;
use bpf_pin::map::ElemFlags;
use bpf_pin::types::ProgType;
use bpf_pin::{Link, LinkSpec, PinDir, PinnedLink, PinnedMap, PinnedProg};
use common::*;
use peers::{
    Counter, Maps, count_of, counter, counting, file, mounted, output, send_packets, test_run, tool,
};
use serde_json::{Value, json};

fn main() -> std::process::ExitCode {
    const BPFTOOL: Need = Need::Program("bpftool", "bpftool");
    const ROOT: &[Need] = &[cap::SYS_ADMIN, BPFTOOL];
    const NET: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, BPFTOOL];
    Suite::new()
        .test("bpftool_shows_and_dumps_our_map", ROOT, || mounted(map))
        .test("bpftool_shows_and_runs_our_program", ROOT, || {
            mounted(prog_of_ours)
        })
        .test("bpftool_shows_our_link", NET, || {
            mounted(|root| in_network_namespace(|| link(root)))
        })
        .test("bpftool_lists_all_pins_of_an_object", ROOT, || {
            mounted(names)
        })
        .test("we_open_pins_of_bpftool", ROOT, || mounted(pinned))
        .test("we_open_programs_that_bpftool_loads", NET, || {
            mounted(|root| in_network_namespace(|| loaded(root)))
        })
        .run()
}

const XDP_PASS: i32 = 2;

/// The JSON output of bpftool, or null if it prints nothing.
fn bpftool(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Outcome<Value> {
    let mut command = tool("bpftool");
    command.arg("-jf").args(args.iter().map(|arg| arg.as_ref()));
    match output(&mut command)?.as_str() {
        "" => Ok(Value::Null),
        said => Ok(serde_json::from_str(said)?),
    }
}

/// As bpftool writes bytes.
fn hex(bytes: &[u8]) -> Vec<String> {
    bytes.iter().map(|byte| format!("0x{byte:02x}")).collect()
}

/// As bpftool takes them.
fn words(bytes: &[u8]) -> Vec<String> {
    bytes.iter().map(u8::to_string).collect()
}

fn map(root: &Path) -> Outcome {
    let ours = hash().pin(root.join("flows"))?;
    ours.elements::<u32, u64>()?
        .update(&7_u32, &0x1122_u64, ElemFlags::ANY)?;
    let info = ours.info()?;
    let shown = bpftool(&[&"map", &"show", &"pinned", &ours.path()])?;
    for (name, is) in [
        ("id", json!(info.id)),
        (
            "type",
            json!(info.map_type.name().ok_or("no name")?.to_lowercase()),
        ),
        ("name", json!(info.name.to_string())),
        ("flags", json!(info.flags.bits())),
        ("bytes_key", json!(info.key_size)),
        ("bytes_value", json!(info.value_size)),
        ("max_entries", json!(info.max_entries)),
        ("frozen", json!(0)),
        ("pinned", json!([ours.path()])),
    ] {
        assert_eq!(shown[name], is, "{name} of {shown}");
    }

    let dump = bpftool(&[&"map", &"dump", &"pinned", &ours.path()])?;
    let entry = json!({
        "key": hex(&7_u32.to_ne_bytes()),
        "value": hex(&0x1122_u64.to_ne_bytes()),
    });
    assert_eq!(dump, json!([entry]));
    let mut command = tool("bpftool");
    command.args(["map", "update", "pinned"]).arg(ours.path());
    command.arg("key").args(words(&8_u32.to_ne_bytes()));
    command.arg("value").args(words(&0x3344_u64.to_ne_bytes()));
    output(&mut command)?;
    assert_eq!(ours.elements::<u32, u64>()?.lookup(&8)?, Some(0x3344));
    ours.unpin()?;
    Ok(())
}

fn prog_of_ours(root: &Path) -> Outcome {
    let map = counter()?;
    let ours = counting(&map, ProgType::SOCKET_FILTER, 23)?.pin(root.join("filter"))?;
    let info = ours.info()?;
    let shown = bpftool(&[&"prog", &"show", &"pinned", &ours.path()])?;
    let tag: String = info.tag.iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, is) in [
        ("id", json!(info.id)),
        (
            "type",
            json!(info.prog_type.name().ok_or("no name")?.to_lowercase()),
        ),
        ("name", json!(info.name.to_string())),
        ("tag", json!(tag)),
        ("gpl_compatible", json!(info.gpl_compatible)),
        ("uid", json!(info.created_by_uid)),
        ("bytes_xlated", json!(info.xlated_prog_len)),
        ("map_ids", json!([map.id()?])),
        ("pinned", json!([ours.path()])),
    ] {
        assert_eq!(shown[name], is, "{name} of {shown}");
    }
    let packet = tempfile::NamedTempFile::new()?;
    std::fs::write(packet.path(), [0; 64])?;
    let args: [&dyn AsRef<std::ffi::OsStr>; 6] = [
        &"prog",
        &"run",
        &"pinned",
        &ours.path(),
        &"data_in",
        &packet.path(),
    ];
    assert_eq!(bpftool(&args)?["retval"], 23);
    assert_eq!(count_of(&map)?, 1);
    Ok(())
}

fn link(root: &Path) -> Outcome {
    let map = counter()?;
    let prog = counting(&map, ProgType::XDP, XDP_PASS)?;
    let ours = LinkSpec::xdp(LOOPBACK)
        .create(&prog)?
        .pin(root.join("link"))?;
    let info = ours.info()?;
    let shown = bpftool(&[&"link", &"show", &"pinned", &ours.path()])?;
    for (name, is) in [
        ("id", json!(info.id)),
        ("type", json!("xdp")),
        ("prog_id", json!(prog.id()?)),
        ("pinned", json!([ours.path()])),
    ] {
        assert_eq!(shown[name], is, "{name} of {shown}");
    }
    // By its id: bpftool's pin alone holds it in place.
    bpftool(&[
        &"link",
        &"pin",
        &"id",
        &info.id.to_string(),
        &root.join("again"),
    ])?;
    ours.unpin()?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 3);
    let again = PinnedLink::open(root.join("again"))?;
    assert_eq!(again.info()?, info);
    again.unpin()?.detach()?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 3);
    // By a name that is of something else.
    prog.pin(root.join("prog"))?;
    let refused = bpftool(&[&"link", &"show", &"pinned", &root.join("prog")]);
    let refused = refused.expect_err("a program's pin").to_string();
    assert!(refused.contains("incorrect object type: prog"), "{refused}");
    Ok(())
}

/// -f looks for pins on every bpffs that it sees, as our inventory does.
fn names(root: &Path) -> Outcome {
    let dir = PinDir::create(root.join("app"), 0o700)?;
    let map = hash();
    let id = map.id()?;
    dir.pin(&map, "a")?;
    dir.link("a", "b")?;
    let deep = dir.create_dir("deep", 0o700)?;
    deep.pin(&map, "c")?;
    let of_bpftool = || -> Outcome<Vec<String>> {
        let all = bpftool(&[&"map", &"show"])?;
        let all = all.as_array().ok_or("no list")?;
        let ours = all
            .iter()
            .find(|shown| shown["id"] == id)
            .ok_or("not in it")?;
        let mut names: Vec<String> = serde_json::from_value(ours["pinned"].clone())?;
        names.sort();
        Ok(names)
    };
    let of_inventory = || -> Outcome<Vec<String>> {
        let found: Result<Vec<_>, _> = Inventory::take()?.of(map.identity()?).collect();
        let paths = found?
            .into_iter()
            .map(|found| found.path.display().to_string());
        let mut names: Vec<String> = paths.collect();
        names.sort();
        Ok(names)
    };
    let want = ["a", "b", "deep/c"].map(|name| dir.path().join(name).display().to_string());
    assert_eq!(of_inventory()?, want);
    assert_eq!(of_bpftool()?, want);
    dir.remove_dir_all("deep")?;
    assert_eq!(of_inventory()?, want[..2]);
    assert_eq!(of_bpftool()?, want[..2]);
    Ok(())
}

fn pinned(root: &Path) -> Outcome {
    let at = root.join("theirs");
    let mut command = tool("bpftool");
    command.args(["map", "create"]).arg(&at);
    command.args("type hash key 4 value 8 entries 16 name of_bpftool".split(' '));
    output(&mut command)?;
    let theirs = PinnedMap::open(&at)?;
    let info = theirs.info()?;
    assert_eq!(
        (info.key_size, info.value_size, info.max_entries),
        (4, 8, 16)
    );
    assert_eq!(info.name.to_string(), "of_bpftool");
    theirs
        .elements::<u32, u64>()?
        .update(&1_u32, &2_u64, ElemFlags::ANY)?;
    let dump = bpftool(&[&"map", &"dump", &"pinned", &at])?;
    assert_eq!(dump[0]["value"], json!(hex(&2_u64.to_ne_bytes())));

    // Ours by its id, wherever it is.
    let map = counter()?;
    let prog = counting(&map, ProgType::SOCKET_FILTER, 5)?;
    let (map_id, prog_id) = (map.id()?.to_string(), prog.id()?.to_string());
    bpftool(&[&"map", &"pin", &"id", &map_id, &root.join("map")])?;
    bpftool(&[&"prog", &"pin", &"id", &prog_id, &root.join("prog")])?;
    // Nothing but bpftool's pins holds them.
    drop((map, prog));
    let map = PinnedMap::open(root.join("map"))?;
    assert_eq!(map.id()?.to_string(), map_id);
    let prog = PinnedProg::open(root.join("prog"))?;
    assert_eq!(prog.id()?.to_string(), prog_id);
    assert_eq!(test_run(&prog, 2)?, 5);
    assert_eq!(count_of(&map)?, 2);
    theirs.unpin()?;
    let gone = bpftool(&[&"map", &"show", &"pinned", &at]).expect_err("unpinned");
    assert!(gone.to_string().contains("No such file"), "{gone}");
    Ok(())
}

fn loaded(root: &Path) -> Outcome {
    let counter = Counter {
        section: "xdp",
        prog: "count",
        map: "packets",
        maps: Maps::Btf,
        returns: XDP_PASS,
    };
    let object = file(&counter)?;
    let maps = root.join("maps");
    bpftool(&[
        &"prog",
        &"load",
        &object.path(),
        &root.join("count"),
        &"pinmaps",
        &maps,
    ])?;
    let prog = PinnedProg::open(root.join("count"))?;
    let map = PinnedMap::open(maps.join("packets"))?;
    let args: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"prog", &"show", &"pinned", &root.join("count")];
    assert_eq!(bpftool(&args)?["map_ids"], json!([map.id()?]));
    // bpftool attaches without a link: what we make is one that stays.
    let link: Link = LinkSpec::xdp(LOOPBACK).create(&prog)?;
    let link = link.pin(root.join("link"))?;
    send_packets(4)?;
    let dump = bpftool(&[
        &"map",
        &"lookup",
        &"pinned",
        &maps.join("packets"),
        &"key",
        &"0",
        &"0",
        &"0",
        &"0",
    ])?;
    assert_eq!(dump["value"], json!(hex(&4_u64.to_ne_bytes())));
    assert_eq!(count_of(&map)?, 4);
    link.unpin()?;
    Ok(())
}
