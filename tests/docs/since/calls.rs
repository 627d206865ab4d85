//! Calls that work from the documented release on, and fail on older kernels.

use std::error::Error;
use std::fs::File;

use bpf_pin::link::{LinkTarget, XdpFlags};
use bpf_pin::prog::{Insn, ProgFlags};
use bpf_pin::types::{AttachType, MapFlags, ProgType};
use bpf_pin::{Access, Link, LinkSpec, Map, MapSpec, MapType, Prog, ProgSpec};
use bpf_pin_sys::Version;
use common::*;

/// True if the call works. An error has a cause other than the kernel's age.
type Works = Result<bool, Box<dyn Error + Send + Sync>>;

/// The documented item, its release, and a call that needs it.
type Row = (&'static str, Version, fn() -> Works);

const fn v(major: u8, minor: u8) -> Version {
    Version::new(major, minor)
}

const ROWS: &[Row] = &[
    ("MapFlags::NO_PREALLOC", v(4, 6), || {
        map(MapType::HASH, [4, 8, 4], MapFlags::NO_PREALLOC)
    }),
    ("MapFlags::NO_COMMON_LRU", v(4, 10), || {
        map(MapType::LRU_HASH, [4, 8, 64], MapFlags::NO_COMMON_LRU)
    }),
    ("MapFlags::NUMA_NODE", v(4, 14), || {
        works(MapSpec::new(MapType::HASH, 4, 8, 4).numa_node(0).create())
    }),
    ("MapFlags::RDONLY", v(4, 15), || {
        map(MapType::HASH, [4, 8, 4], MapFlags::RDONLY)
    }),
    ("MapFlags::WRONLY", v(4, 15), || {
        map(MapType::HASH, [4, 8, 4], MapFlags::WRONLY)
    }),
    ("MapFlags::STACK_BUILD_ID", v(4, 17), || {
        map(MapType::STACK_TRACE, [4, 32, 4], MapFlags::STACK_BUILD_ID)
    }),
    ("MapFlags::ZERO_SEED", v(5, 0), || {
        map(MapType::HASH, [4, 8, 4], MapFlags::ZERO_SEED)
    }),
    ("MapFlags::RDONLY_PROG", v(5, 2), || {
        map(MapType::ARRAY, [4, 8, 4], MapFlags::RDONLY_PROG)
    }),
    ("MapFlags::WRONLY_PROG", v(5, 2), || {
        map(MapType::ARRAY, [4, 8, 4], MapFlags::WRONLY_PROG)
    }),
    ("MapFlags::MMAPABLE", v(5, 5), || {
        map(MapType::ARRAY, [4, 8, 4], MapFlags::MMAPABLE)
    }),
    ("MapFlags::PRESERVE_ELEMS", v(5, 10), || {
        map(
            MapType::PERF_EVENT_ARRAY,
            [4, 4, 1],
            MapFlags::PRESERVE_ELEMS,
        )
    }),
    ("MapFlags::INNER_MAP", v(5, 10), || {
        map(MapType::ARRAY, [4, 8, 4], MapFlags::INNER_MAP)
    }),
    ("MapFlags::SEGV_ON_FAULT", v(6, 9), || {
        let flags = MapFlags::MMAPABLE | MapFlags::SEGV_ON_FAULT;
        map(MapType::ARENA, [0, 0, 4], flags)
    }),
    ("MapFlags::NO_USER_CONV", v(6, 9), || {
        let flags = MapFlags::MMAPABLE | MapFlags::NO_USER_CONV;
        map(MapType::ARENA, [0, 0, 4], flags)
    }),
    ("MapFlags::RB_OVERWRITE", v(6, 19), || {
        map(MapType::RINGBUF, [0, 0, 1 << 16], MapFlags::RB_OVERWRITE)
    }),
    ("MapSpec::map_extra", v(5, 16), || {
        let spec = MapSpec::new(MapType::BLOOM_FILTER, 0, 8, 4).map_extra(3);
        Ok(match accepted(spec.create())? {
            Some(map) => map.info()?.map_extra == 3,
            None => false,
        })
    }),
    ("Access::ReadOnly", v(4, 15), || open_with(Access::ReadOnly)),
    ("Access::WriteOnly", v(4, 15), || {
        open_with(Access::WriteOnly)
    }),
    ("ProgFlags::STRICT_ALIGNMENT", v(4, 12), || {
        prog_of(ProgType::SOCKET_FILTER, ProgFlags::STRICT_ALIGNMENT)
    }),
    ("ProgFlags::ANY_ALIGNMENT", v(5, 0), || {
        prog_of(ProgType::SOCKET_FILTER, ProgFlags::ANY_ALIGNMENT)
    }),
    ("ProgFlags::XDP_HAS_FRAGS", v(5, 18), || {
        prog_of(ProgType::XDP, ProgFlags::XDP_HAS_FRAGS)
    }),
    ("ProgInfo::verified_insns", v(5, 16), || {
        Ok(prog().info()?.verified_insns > 0)
    }),
    ("LinkSpec::netns", v(5, 8), || {
        in_network_namespace(|| {
            let netns = File::open("/proc/thread-self/ns/net")?;
            let spec = LinkSpec::netns(&netns, AttachType::FLOW_DISSECTOR);
            let prog = load(ProgType::FLOW_DISSECTOR, ProgFlags::empty())?;
            works(spec.create(&prog))
        })
    }),
    ("LinkSpec::xdp", v(5, 9), || {
        in_network_namespace(|| {
            let Some(link) = xdp()? else { return Ok(false) };
            Ok(link.info()?.target == LinkTarget::Xdp { ifindex: LOOPBACK })
        })
    }),
    ("LinkSpec::tcx", v(6, 6), || {
        in_network_namespace(|| {
            let attach_type = AttachType::TCX_INGRESS;
            let prog = load(ProgType::SCHED_CLS, ProgFlags::empty())?;
            let made = LinkSpec::tcx(LOOPBACK, attach_type).create(&prog);
            let Some(link) = accepted(made)? else {
                return Ok(false);
            };
            let (ifindex, target) = (LOOPBACK, link.info()?.target);
            Ok(target
                == LinkTarget::Tcx {
                    ifindex,
                    attach_type,
                })
        })
    }),
    ("Link::update", v(5, 7), || {
        in_network_namespace(|| {
            let link = xdp()?.ok_or("no XDP link")?;
            works(link.update(&load(ProgType::XDP, ProgFlags::empty())?))
        })
    }),
    ("Link::detach", v(5, 9), || {
        in_network_namespace(|| works(xdp()?.ok_or("no XDP link")?.detach()))
    }),
];

/// The items that need a kernel with tracing.
const TRACING: &[Row] = &[
    ("ProgFlags::SLEEPABLE", v(5, 10), || {
        // A sleepable hook that every kernel with this flag has.
        let id = function_btf_id("bpf_lsm_bprm_committed_creds")?;
        let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
        let spec = ProgSpec::new(ProgType::LSM, &insns)
            .license(c"GPL")
            .flags(ProgFlags::SLEEPABLE)
            .expected_attach_type(AttachType::LSM_MAC)
            .attach_btf_id(id);
        works(spec.load())
    }),
    (
        "ProgSpec::attach_btf_id",
        v(5, 5),
        || Ok(fexit()?.is_some()),
    ),
    ("ProgInfo::attach_btf_id", v(6, 0), || {
        let (prog, id) = fexit()?.ok_or("no fexit program")?;
        let info = prog.info()?;
        match (info.attach_btf_obj_id, info.attach_btf_id) {
            (0, 0) => Ok(false),
            (1.., found) if found == id => Ok(true),
            other => Err(format!("{other:?}, not {id} of the kernel's BTF").into()),
        }
    }),
    ("LinkTarget::Tracing::btf_id", v(5, 13), || {
        let (prog, id) = fexit()?.ok_or("no fexit program")?;
        match LinkSpec::tracing(AttachType::TRACE_FEXIT)
            .create(&prog)?
            .info()?
            .target
        {
            LinkTarget::Tracing {
                attach_type: AttachType::TRACE_FEXIT,
                obj_id,
                btf_id,
                ..
            } => match (obj_id, btf_id) {
                (0, 0) => Ok(false),
                (1.., found) if found == id => Ok(true),
                other => Err(format!("{other:?}, not {id} of the kernel's BTF").into()),
            },
            other => Err(format!("{other:?}").into()),
        }
    }),
];

#[common::test(super::ROOT)]
fn documented_releases_match_the_kernel() -> Outcome {
    check_rows(ROWS)
}

#[common::test(super::TRACER)]
fn documented_releases_of_tracing_match_the_kernel() -> Outcome {
    if Need::File(KPROBES).unmet().is_none() {
        return check_rows(TRACING);
    }
    // A kernel without kprobes has no tracing programs, whatever its release.
    for (what, _, call) in TRACING {
        let works = call().is_ok_and(|works| works);
        assert!(!works, "{what} works without kprobes");
    }
    Ok(())
}

/// Every row works on kernels from its release on, and fails on older ones.
fn check_rows(rows: &[Row]) -> Outcome {
    let mut wrong = vec![];
    for (what, since, call) in rows {
        let unmet = kernel(since.major.into(), since.minor.into()).unmet();
        match (call(), unmet) {
            (Ok(true), None) | (Ok(false), Some(_)) => {}
            (Ok(true), Some(_)) => wrong.push(format!("{what} works before Linux {since}")),
            (Ok(false), None) => wrong.push(format!("{what} does not work")),
            (Err(error), _) => wrong.push(format!("{what}: {error}")),
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(wrong.join("\n").into())
}

/// Returns the new object, or `None` if the kernel does not know the feature.
fn accepted<T>(result: bpf_pin::Result<T>) -> Result<Option<T>, bpf_pin::Error> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn works<T>(result: bpf_pin::Result<T>) -> Works {
    Ok(accepted(result)?.is_some())
}

fn map(map_type: MapType, [key, value, entries]: [u32; 3], flags: MapFlags) -> Works {
    works(
        MapSpec::new(map_type, key, value, entries)
            .flags(flags)
            .create(),
    )
}

/// Opens a pin with restricted access.
fn open_with(access: Access) -> Works {
    let fs = TestFs::new();
    hash().pin(fs.at("map"))?;
    works(Map::open_with(fs.at("map"), access))
}

fn load(prog_type: ProgType, flags: ProgFlags) -> bpf_pin::Result<Prog> {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    ProgSpec::new(prog_type, &insns).flags(flags).load()
}

fn prog_of(prog_type: ProgType, flags: ProgFlags) -> Works {
    works(load(prog_type, flags))
}

/// A program on the return of a kernel function that exists for such tests, and the function's id.
fn fexit() -> Result<Option<(Prog, u32)>, Box<dyn Error + Send + Sync>> {
    let id = function_btf_id("bpf_modify_return_test")?;
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    let spec = ProgSpec::new(ProgType::TRACING, &insns)
        .license(c"GPL")
        .expected_attach_type(AttachType::TRACE_FEXIT)
        .attach_btf_id(id);
    Ok(accepted(spec.load())?.map(|prog| (prog, id)))
}

/// A link to the loopback device of this network namespace.
fn xdp() -> Result<Option<Link>, bpf_pin::Error> {
    let prog = load(ProgType::XDP, ProgFlags::empty())?;
    accepted(
        LinkSpec::xdp(LOOPBACK)
            .xdp_flags(XdpFlags::SKB_MODE)
            .create(&prog),
    )
}
