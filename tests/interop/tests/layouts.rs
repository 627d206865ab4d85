//! The bpffs trees of systemd and Cilium: walked, listed, and cleaned of pins that are no longer used.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bpf_pin::dir::{EntryType, escape_name};
use bpf_pin::error::Cause;
use bpf_pin::inventory::Inventory;
use bpf_pin::link::LinkTarget;
use bpf_pin::map::ElemFlags;
use bpf_pin::object::Pinnable;
use bpf_pin::reuse::Reuse;
use bpf_pin::types::{AttachType, MapFlags, ProgType};
use bpf_pin::{Identity, Link, LinkSpec, Map, MapSpec, MapType, Object, PinDir};
use common::*;
use peers::{count_of, counter, counting, mounted, send_packets};

fn main() -> std::process::ExitCode {
    const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
    const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
    Suite::new()
        .test("systemds_tree_is_walked_and_replaced", ROOT, || {
            mounted(systemd)
        })
        .test("ciliums_tree_is_walked_and_upgraded", TCX, || {
            mounted(|root| in_network_namespace(|| cilium(root)))
        })
        .test("links_of_removed_endpoints_are_cleaned_up", TCX, || {
            mounted(|root| in_network_namespace(|| endpoints(root)))
        })
        .run()
}

/// The pins and their objects.
type Pins = BTreeMap<PathBuf, Identity>;

/// The tree that is being laid.
struct Layout<'a> {
    root: &'a Path,
    pins: Pins,
}

impl<'a> Layout<'a> {
    fn new(root: &'a Path) -> Self {
        let pins = Pins::new();
        Self { root, pins }
    }

    /// Pins it, with directories of mode 0755 as both projects make them.
    fn pin(&mut self, path: &str, object: impl Pinnable) -> Outcome {
        let at = self.root.join(path);
        let parent = at.parent().ok_or("a path")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
        let name = at.file_name().ok_or("a name")?;
        let dir = PinDir::open(parent)?;
        dir.pin(&object, name)?;
        self.pins.insert(at.clone(), dir.identity(name)?);
        Ok(())
    }

    /// Forgets what is below, for it was removed.
    fn removed(&mut self, path: &str) {
        let below = self.root.join(path);
        self.pins.retain(|at, _| !at.starts_with(&below));
    }

    /// The tree is this and no more, to one who walks it and to one who lists all there is.
    fn assert_seen(&self) -> Outcome {
        let mut walked = Pins::new();
        for entry in PinDir::open(self.root)?.walk()? {
            let entry = entry?;
            if entry.entry_type() == EntryType::Pin && !is_kernels(entry.name()) {
                walked.insert(entry.path(), entry.get::<Object>()?.identity()?);
            }
        }
        assert_eq!(walked, self.pins);
        let mut listed = Pins::new();
        for found in Inventory::take()? {
            // Other mounts may have pins that are not part of this test.
            let Ok(found) = found else { continue };
            if found.path.starts_with(self.root) {
                listed.insert(found.path, found.info.identity());
            }
        }
        assert_eq!(listed, self.pins);
        Ok(())
    }
}

fn is_kernels(name: &OsStr) -> bool {
    name == "maps.debug" || name == "progs.debug"
}

/// nsresourced pins maps and links of one version under a directory of that version.
fn systemd(root: &Path) -> Outcome {
    let inner = || MapSpec::new(MapType::HASH, 4, 4, 4096).create();
    let like = inner()?;
    let by_inode = MapSpec::new(MapType::HASH_OF_MAPS, 4, 4, 16 * 1024).inner_map(&like);
    let lay = |layout: &mut Layout<'_>, version: &str| -> Outcome {
        let at = |below: &str| format!("systemd/{version}/{below}");
        layout.pin(&at("maps/userns_mnt_id_hash"), by_inode.create()?)?;
        let ringbuf = MapSpec::new(MapType::RINGBUF, 0, 0, 64 * 1024).create()?;
        layout.pin(&at("maps/userns_ringbuf"), ringbuf)?;
        for hook in [
            "path_chown",
            "path_mkdir",
            "path_mknod",
            "path_symlink",
            "path_link",
        ] {
            // Links of LSM hooks there; where they are pinned is what matters here.
            layout.pin(&at(&format!("programs/{hook}")), detached_link())?;
        }
        Ok(())
    };
    let mut layout = Layout::new(root);
    lay(&mut layout, "userns-restrict")?;
    // RestrictFileSystems= and BPFProgram= of units.
    layout.pin("systemd/lsm_bpf_map", by_inode.create()?)?;
    layout.pin(
        "egress-hook",
        counting(&counter()?, ProgType::CGROUP_SKB, 1)?,
    )?;
    layout.assert_seen()?;

    // A user namespace's mounts, as nsresourced writes them, read through the pin.
    const INODE: u32 = 0xf000_0042;
    let outer: Map = Map::open(root.join("systemd/userns-restrict/maps/userns_mnt_id_hash"))?;
    let mounts = inner()?;
    mounts
        .elements::<u32, u32>()?
        .update(&28_u32, &1_u32, ElemFlags::ANY)?;
    let number = mounts.as_fd().as_raw_fd() as u32;
    outer
        .elements::<u32, u32>()?
        .update(&INODE, &number, ElemFlags::ANY)?;
    let id = mounts.id()?;
    drop(mounts);
    assert_eq!(outer.elements::<u32, u32>()?.lookup(&INODE)?, Some(id));
    assert_eq!(
        Map::from_id(id)?.elements::<u32, u32>()?.lookup(&28)?,
        Some(1)
    );

    // The next version has a directory of its own, and the first goes with all its links.
    lay(&mut layout, "userns-restrict-v2")?;
    layout.assert_seen()?;
    let dir = PinDir::open(root.join("systemd"))?;
    let is_over = |name: &OsStr| name == "userns-restrict";
    let told = dir.remove_where_dry_run(|entry| is_over(entry.name()))?;
    layout.assert_seen()?;
    let swept = dir.remove_where(|entry| is_over(entry.name()))?;
    assert_eq!(
        (&told.removed, told.failed.len()),
        (&swept.removed, swept.failed.len())
    );
    assert_eq!(swept.removed, ["userns-restrict"]);
    layout.removed("systemd/userns-restrict");
    layout.assert_seen()?;
    // Ours to the last descriptor.
    assert_eq!(outer.elements::<u32, u32>()?.lookup(&INODE)?, Some(id));
    Ok(())
}

/// A link of an endpoint's or a device's, that counts on the loopback device of this network.
fn tcx(map: &Map) -> Outcome<Link> {
    let prog = counting(map, ProgType::SCHED_CLS, -1)?;
    Ok(LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS).create(&prog)?)
}

/// Maps of all under tc/globals, as of Cilium 1.14 and later.
fn globals(layout: &mut Layout<'_>) -> Outcome {
    let mut global = |name: &str, spec: &MapSpec<'_>| -> Outcome {
        layout.pin(&format!("tc/globals/cilium_{name}"), spec.create()?)
    };
    let lru = |key, value| MapSpec::new(MapType::LRU_HASH, key, value, 512);
    let lpm =
        |key, value| MapSpec::new(MapType::LPM_TRIE, key, value, 512).flags(MapFlags::NO_PREALLOC);
    global("ct4_global", &lru(14, 56))?;
    global("ct6_global", &lru(38, 56))?;
    global("snat_v4_external", &lru(14, 40))?;
    global("ipcache_v2", &lpm(24, 24))?;
    global("lb4_services_v2", &MapSpec::new(MapType::HASH, 12, 12, 512))?;
    global("metrics", &MapSpec::new(MapType::PERCPU_HASH, 8, 16, 512))?;
    global("events", &MapSpec::new(MapType::PERF_EVENT_ARRAY, 4, 4, 1))?;
    global("call_policy", &MapSpec::new(MapType::PROG_ARRAY, 4, 4, 512))?;
    let table = MapSpec::new(MapType::ARRAY, 4, 251 * 4, 1).create()?;
    let maglev = MapSpec::new(MapType::HASH_OF_MAPS, 2, 4, 512);
    global("lb4_maglev", &maglev.inner_map(&table))
}

fn cilium(root: &Path) -> Outcome {
    let mut layout = Layout::new(root);
    globals(&mut layout)?;
    for hook in [
        "connect4",
        "sendmsg4",
        "recvmsg4",
        "getpeername4",
        "post_bind4",
    ] {
        let path = format!("cilium/socketlb/links/cgroup/cil_sock4_{hook}");
        layout.pin(&path, detached_link())?;
    }
    // A device name with a dot: Cilium writes '-', which may also occur in the name of another device.
    let vlan = escape_name("eth0.100");
    let vlan = vlan.to_str().ok_or("UTF-8")?;
    let (map, other) = (counter()?, counter()?);
    layout.pin("cilium/devices/eth0-100/links/cil_from_netdev", tcx(&map)?)?;
    layout.pin(
        &format!("cilium/devices/{vlan}/links/cil_from_netdev"),
        tcx(&other)?,
    )?;
    layout.assert_seen()?;

    // Each link is at work, and opens as what it is.
    send_packets(3)?;
    assert_eq!((count_of(&map)?, count_of(&other)?), (3, 3));
    let devices = PinDir::open(root.join("cilium/devices"))?;
    let vlan_links = devices.open_dir(vlan)?.open_dir("links")?;
    let link: Link = vlan_links.get("cil_from_netdev")?;
    assert!(matches!(
        link.info()?.target,
        LinkTarget::Tcx {
            ifindex: LOOPBACK,
            ..
        }
    ));
    // The device goes, and its links with it.
    drop((link, vlan_links));
    devices.remove_dir_all(vlan)?;
    layout.removed(&format!("cilium/devices/{vlan}"));
    layout.assert_seen()?;
    let counted = count_of(&other)?;
    wait_until("detached", || {
        let before = count_of(&other).expect("a count");
        send_packets(1).expect("a packet");
        count_of(&other).expect("a count") == before
    });
    assert!(count_of(&other)? >= counted && count_of(&map)? > 3);

    // An agent that restarts replaces maps that no longer fit, without a gap.
    let globals = PinDir::open(root.join("tc/globals"))?;
    let name = "cilium_lb4_services_v2";
    let spec = MapSpec::new(MapType::HASH, 12, 12, 1024);
    let refused = globals.open_or_create(name, &spec, Reuse::Exact);
    let error = refused.expect_err("it has room for 512");
    assert!(
        matches!(error.cause(), Some(Cause::Mismatch { .. })),
        "{error}"
    );
    layout.assert_seen()?;
    let larger = globals.open_or_create(name, &spec, Reuse::Recreate)?;
    assert!(matches!(
        larger.outcome,
        bpf_pin::reuse::MapOutcome::Recreated { .. }
    ));
    larger
        .map
        .elements::<[u8], [u8]>()?
        .update(&[1; 12], &[2; 12], ElemFlags::ANY)?;
    layout
        .pins
        .insert(globals.path().join(name), larger.map.identity()?);
    layout.assert_seen()?;
    let mut value = [0; 12];
    let map: Map = globals.get(name)?;
    assert!(
        map.elements::<[u8], [u8]>()?
            .lookup_into(&[1; 12], &mut value, ElemFlags::ANY)?
    );
    assert_eq!(value, [2; 12]);
    Ok(())
}

/// An endpoint's maps are among all others', by its number; its links have a directory.
fn endpoints(root: &Path) -> Outcome {
    let mut layout = Layout::new(root);
    globals(&mut layout)?;
    let policy = MapSpec::new(MapType::LPM_TRIE, 12, 12, 64).flags(MapFlags::NO_PREALLOC);
    // All 64 bits of it count.
    let key = |endpoint: u8| {
        let mut key = [endpoint; 12];
        key[..4].copy_from_slice(&64_u32.to_ne_bytes());
        key
    };
    let map = counter()?;
    let mut lay = |endpoint: u8, link: Link| -> Outcome {
        let policy = policy.create()?;
        policy
            .elements::<[u8], [u8]>()?
            .update(&key(endpoint), &[endpoint; 12], ElemFlags::ANY)?;
        layout.pin(
            &format!("tc/globals/cilium_policy_v3_{endpoint:05}"),
            policy,
        )?;
        let calls = MapSpec::new(MapType::PROG_ARRAY, 4, 4, 50).create()?;
        layout.pin(&format!("tc/globals/cilium_calls_{endpoint:05}"), calls)?;
        let path = format!("cilium/endpoints/{endpoint}/links/cil_from_container");
        layout.pin(&path, link)
    };
    lay(17, tcx(&map)?)?;
    // Two networks have disappeared without a notice to the agent.
    let gone = [23, 42];
    for endpoint in gone {
        lay(endpoint, in_network_namespace(|| tcx(&map))?)?;
    }
    layout.assert_seen()?;

    // Their links are defunct: that is for each to see who may open them.
    let endpoints = PinDir::open(root.join("cilium/endpoints"))?;
    let is_over = |name: &OsStr| -> bool {
        let links = endpoints
            .open_dir(name)
            .and_then(|dir| dir.open_dir("links"));
        let link: bpf_pin::Result<Link> = links.and_then(|dir| dir.get("cil_from_container"));
        let target = link.and_then(|link| link.info()).expect("a link").target;
        matches!(target, LinkTarget::Tcx { ifindex: 0, .. })
    };
    for endpoint in gone {
        wait_until("gone", || is_over(endpoint.to_string().as_ref()));
    }
    let swept = endpoints.remove_where(|entry| is_over(entry.name()))?;
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    let mut removed = swept.removed;
    removed.sort();
    assert_eq!(removed, ["23", "42"]);

    // Their maps among all maps.
    let alive: Vec<String> = vec![format!("{:05}", 17)];
    let globals = PinDir::open(root.join("tc/globals"))?;
    let mut swept = globals.remove_where(|entry| {
        let Some((kind, number)) = entry.name().to_str().and_then(|name| name.rsplit_once('_'))
        else {
            return false;
        };
        let is_of_endpoint = ["cilium_calls", "cilium_policy_v3"].contains(&kind);
        is_of_endpoint && !alive.iter().any(|alive| alive == number)
    })?;
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    swept.removed.sort();
    let names = [
        "calls_00023",
        "calls_00042",
        "policy_v3_00023",
        "policy_v3_00042",
    ];
    assert_eq!(
        swept.removed,
        names.map(|name| OsString::from(format!("cilium_{name}")))
    );
    for endpoint in gone {
        layout.removed(&format!("cilium/endpoints/{endpoint}"));
    }
    for name in &swept.removed {
        layout.removed(&format!("tc/globals/{}", name.display()));
    }
    layout.assert_seen()?;

    // The remaining links still work.
    let mut value = [0; 12];
    let map_of_17: Map = globals.get("cilium_policy_v3_00017")?;
    assert!(map_of_17.elements::<[u8], [u8]>()?.lookup_into(
        &key(17),
        &mut value,
        ElemFlags::ANY
    )?);
    assert_eq!(value, [17; 12]);
    send_packets(2)?;
    assert_eq!(count_of(&map)?, 2);
    let object = Object::open(root.join("cilium/endpoints/17/links/cil_from_container"))?;
    assert_eq!(object.kind(), bpf_pin::Kind::Link);
    Ok(())
}
