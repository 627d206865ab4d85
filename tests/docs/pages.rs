//! The code of the READMEs and of the guide runs.

use bpf_pin::bpffs::MountOptions;
use bpf_pin::map::ElemFlags;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Map, MapSpec, MapType, PinDir, PinnedLink, PinnedMap, Prog};
use common::*;

mod code {
    include!(concat!(env!("OUT_DIR"), "/pages.rs"));
}

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const APP: &str = "/sys/fs/bpf/app";

/// Runs a test with a bpffs and a network of its own.
fn with_bpffs(test: impl FnOnce() -> Outcome + Send) -> Outcome {
    in_mount_namespace(|| {
        MountOptions::new().mount("/sys/fs/bpf")?;
        in_network_namespace(test)
    })
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 1024).name("flows")
}

fn load(_: &Map) -> bpf_pin::Result<Prog> {
    Ok(prog_returning(ProgType::XDP, AttachType::XDP, 2))
}

#[common::test(TCX)]
fn the_quickstart_runs_and_runs_again() -> Outcome {
    with_bpffs(|| {
        let prog = tcx_prog().pin("/sys/fs/bpf/count")?.id()?;
        code::readme::bpf_pin::main()?;
        let flows = PinnedMap::open("/sys/fs/bpf/app/flows")?;
        let link = PinnedLink::open("/sys/fs/bpf/app/ingress")?;
        assert_eq!(link.info()?.prog_id, prog);
        code::readme::bpf_pin::main()?;
        let app = PinDir::open(APP)?;
        assert_eq!(app.identity("flows")?, flows.identity()?);
        assert_eq!(app.identity("ingress")?, link.identity()?);
        assert_eq!(flows.elements::<u32, u64>()?.lookup(&7)?, Some(1));
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_code_that_replaces_without_a_gap_runs() -> Outcome {
    with_bpffs(|| {
        for _ in 0..2 {
            code::readme::replace_without_a_gap::upgrade(&spec())?;
        }
        assert!(
            PinDir::open(APP)?
                .open_dir("current")?
                .get::<Map>("stats")
                .is_ok()
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_code_that_upgrades_a_map_keeps_its_entries() -> Outcome {
    with_bpffs(|| {
        let app = PinDir::create(APP, 0o700)?;
        let old = spec().create()?;
        old.elements::<u32, u64>()?
            .update(&7, &40, ElemFlags::ANY)?;
        app.pin(&old, "flows")?;
        for _ in 0..2 {
            code::readme::restart_and_upgrade::start(load, LOOPBACK)?;
        }
        let flows: Map = app.get("flows")?;
        assert_eq!(
            flows.elements::<u32, [u64; 2]>()?.lookup(&7)?,
            Some([40, 0])
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_code_that_finds_pins_runs() -> Outcome {
    with_bpffs(|| Ok(code::readme::inspect_what_is_pinned::main()?))
}

#[common::test(ROOT)]
fn the_code_of_the_package_leaves_no_pin() -> Outcome {
    with_bpffs(|| {
        code::package_readme::bpf_pin::main()?;
        let gone = PinnedMap::open("/sys/fs/bpf/flows");
        assert!(gone.is_err_and(|error| error.is_missing()));
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_loader_of_the_guide_restarts() -> Outcome {
    with_bpffs(|| {
        code::restarting::the_loader::start(load, LOOPBACK)?;
        let before = PinDir::open(APP)?.identity("link")?;
        code::restarting::the_loader::start(load, LOOPBACK)?;
        assert_eq!(PinDir::open(APP)?.identity("link")?, before);
        Ok(())
    })
}
