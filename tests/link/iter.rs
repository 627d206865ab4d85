//! Iterators: programs that generate the content of a file, read by descriptor or by pin.

use std::fs::{self, File};
use std::io::{Read, read_to_string};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{IterTask, LinkTarget};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Insn;
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, CgroupIterOrder, LinkType, ProgType};
use bpf_pin::{Link, LinkSpec, MapSpec, MapType, PinDir, Prog, ProgSpec, abi};
use common::*;

const FUNCTIONS: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, Need::Feature(Feature::Btf)];
const CGROUPS: &[Need] = &[
    cap::SYS_ADMIN,
    cap::PERFMON,
    Need::Feature(Feature::Btf),
    kernel(6, 1),
];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

/// A program that writes one byte for each object. The second field of the context is the object's address.
fn for_each(what: &str, byte: u8) -> Prog {
    let insns = [
        // The address is null after the last object.
        Insn::ldx_mem(abi::BPF_DW, 2, 1, 8),
        Insn::jmp_imm(abi::BPF_JEQ, 2, 0, 7),
        Insn::st_mem(abi::BPF_B, 10, -1, byte.into()),
        // context->meta->seq
        Insn::ldx_mem(abi::BPF_DW, 1, 1, 0),
        Insn::ldx_mem(abi::BPF_DW, 1, 1, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(abi::BPF_ADD, 2, -1),
        Insn::mov64_imm(3, 1),
        Insn::call(abi::BPF_FUNC_seq_write),
        Insn::mov64_imm(0, 0),
        Insn::exit(),
    ];
    load(what, &insns)
}

/// A program that writes the 4-byte key of each element, which is the third field of the context.
fn keys() -> Prog {
    let insns = [
        Insn::ldx_mem(abi::BPF_DW, 2, 1, 16),
        Insn::jmp_imm(abi::BPF_JEQ, 2, 0, 4),
        Insn::ldx_mem(abi::BPF_DW, 1, 1, 0),
        Insn::ldx_mem(abi::BPF_DW, 1, 1, 0),
        Insn::mov64_imm(3, 4),
        Insn::call(abi::BPF_FUNC_seq_write),
        Insn::mov64_imm(0, 0),
        Insn::exit(),
    ];
    load("bpf_map_elem", &insns)
}

fn load(what: &str, insns: &[Insn]) -> Prog {
    let function = function_btf_id(&format!("bpf_iter_{what}")).unwrap();
    ProgSpec::new(ProgType::TRACING, insns)
        .license(c"GPL")
        .expected_attach_type(AttachType::TRACE_ITER)
        .attach_btf_id(function)
        .load()
        .unwrap_or_else(|error| panic!("{error}"))
}

#[common::test(FUNCTIONS)]
fn a_map_iterator_is_read_pinned_and_updated() -> Outcome {
    let fs = TestFs::new();
    let _one = hash();
    let prog = for_each("bpf_map", b'm');
    let link = LinkSpec::iter().create(&prog)?;
    let info = link.info()?;
    assert_eq!((info.link_type, info.prog_id), (LinkType::ITER, prog.id()?));
    let LinkTarget::Iter {
        map_id,
        cgroup_id,
        tid,
        pid,
        ..
    } = info.target
    else {
        panic!("{:?}", info.target);
    };
    assert_eq!((map_id, cgroup_id, tid, pid), (0, 0, 0, 0));
    assert_eq!(link.target_name()?.as_deref(), Some("bpf_map"));

    let text = read_to_string(link.iter()?)?;
    assert!(
        !text.is_empty() && text.bytes().all(|byte| byte == b'm'),
        "{text}"
    );
    // Each file is read from the start, and keeps the link alive.
    let file = link.iter()?;
    let pinned = link.pin(fs.at("maps")).map_err(bpf_pin::Error::from)?;
    assert!(!read_to_string(File::open(fs.at("maps"))?)?.is_empty());
    assert!(!fs::read(fs.at("maps"))?.is_empty());
    // After an update, the pin has the output of the new program.
    pinned.update(&for_each("bpf_map", b'n'))?;
    let text = fs::read_to_string(fs.at("maps"))?;
    assert!(
        !text.is_empty() && text.bytes().all(|byte| byte == b'n'),
        "{text}"
    );
    let other = keys();
    let error = pinned.update(&other).expect_err("a program for elements");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(error.cause().is_none());
    let id = info.id;
    let error = pinned.detach().expect_err("an iterator");
    assert_cause_matches!(error, Cause::UnsupportedType { .. });
    assert_eq!(error.operation(), Operation::DetachLink);
    drop(pinned.unpin().map_err(bpf_pin::Error::from)?);
    assert!(!read_to_string(file)?.is_empty());
    wait_until("gone", || Link::from_id(id).is_err());
    Ok(())
}

#[common::test(FUNCTIONS)]
fn an_element_iterator_writes_every_key() -> Outcome {
    let fs = TestFs::new();
    let map = MapSpec::new(MapType::HASH, 4, 8, 64).create()?;
    let elems = map.elements::<u32, u64>()?;
    for key in 0..50 {
        elems.update(&key, &1, ElemFlags::ANY)?;
    }
    let prog = keys();
    let link = LinkSpec::iter_map(&map).create(&prog)?;
    let expected = map.id()?;
    assert!(matches!(
        link.info()?.target,
        LinkTarget::Iter { map_id, .. } if map_id == expected
    ));
    assert_eq!(link.target_name()?.as_deref(), Some("bpf_map_elem"));
    let read = |mut file: File| -> std::io::Result<Vec<u32>> {
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        let chunks = bytes.chunks_exact(4);
        let mut keys: Vec<u32> = chunks.map(bytemuck::pod_read_unaligned).collect();
        keys.sort();
        Ok(keys)
    };
    let all: Vec<u32> = (0..50).collect();
    assert_eq!(read(link.iter()?)?, all);
    let _pinned = link.pin(fs.at("elements")).map_err(bpf_pin::Error::from)?;
    assert_eq!(read(File::open(fs.at("elements"))?)?, all);
    for key in (0..50).step_by(2) {
        elems.delete(&key)?;
    }
    let odd: Vec<u32> = (1..50).step_by(2).collect();
    assert_eq!(read(File::open(fs.at("elements"))?)?, odd);

    // No map, and a map that has no keys.
    let error = LinkSpec::iter().create(&prog).expect_err("no map");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
    let queue = MapSpec::new(MapType::QUEUE, 0, 4, 4).create()?;
    let error = LinkSpec::iter_map(&queue)
        .create(&prog)
        .expect_err("a queue");
    assert_fails(&error, Operation::CreateLink, libc::EINVAL, None);
    Ok(())
}

#[common::test(CGROUPS)]
fn a_cgroup_iterator_visits_cgroups_in_its_order() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        for below in ["a", "b"] {
            fs::create_dir(cgroup.path.join(below))?;
        }
        let (file, prog) = (cgroup.open(), for_each("cgroup", b'c'));
        let expected = common::cgroup_id(&file);
        for (order, count) in [
            (CgroupIterOrder::SELF_ONLY, 1),
            (CgroupIterOrder::DESCENDANTS_PRE, 3),
            (CgroupIterOrder::DESCENDANTS_POST, 3),
            (CgroupIterOrder::ANCESTORS_UP, 2),
        ] {
            let by_id = LinkSpec::iter_cgroup_id(expected, order);
            for spec in [LinkSpec::iter_cgroup(&file, order), by_id] {
                let link = spec.create(&prog)?;
                let LinkTarget::Iter {
                    cgroup_id,
                    order: found,
                    tid,
                    ..
                } = link.info()?.target
                else {
                    panic!("an iterator");
                };
                assert_eq!((cgroup_id, found, tid), (expected, order, 0));
                assert_eq!(read_to_string(link.iter()?)?.len(), count, "{order}");
            }
        }
        let link = LinkSpec::iter_cgroup_id(0, CgroupIterOrder::SELF_ONLY).create(&prog)?;
        assert_eq!(read_to_string(link.iter()?)?, "c");
        for below in ["a", "b"] {
            fs::remove_dir(cgroup.path.join(below))?;
        }
        Ok(())
    })
}

#[common::test(CGROUPS)]
fn a_task_iterator_is_limited_to_a_thread_or_process() -> Outcome {
    let prog = for_each("task", b't');
    let all = read_to_string(LinkSpec::iter().create(&prog)?.iter()?)?;
    assert!(all.len() > 2);
    let (own, thread) = (std::process::id(), rustix::thread::gettid());
    let thread = u32::try_from(thread.as_raw_nonzero().get())?;
    let link = LinkSpec::iter_task(IterTask::Tid(thread)).create(&prog)?;
    assert_eq!(read_to_string(link.iter()?)?, "t");
    assert!(matches!(
        link.info()?.target,
        LinkTarget::Iter { tid, pid: 0, .. } if tid == thread
    ));
    let link = LinkSpec::iter_task(IterTask::Pid(own)).create(&prog)?;
    let own_threads = read_to_string(link.iter()?)?;
    assert!((1..all.len()).contains(&own_threads.len()));
    assert!(matches!(
        link.info()?.target,
        LinkTarget::Iter { tid: 0, pid, .. } if pid == own
    ));
    Ok(())
}

#[common::test(CGROUPS)]
fn a_symbol_iterator_is_read() -> Outcome {
    let prog = for_each("ksym", b's');
    let link = LinkSpec::iter().create(&prog)?;
    assert_eq!(link.target_name()?.as_deref(), Some("ksym"));
    assert!(read_to_string(link.iter()?)?.len() > 1000);
    Ok(())
}

/// Older kernels reject the larger struct.
#[common::test(FUNCTIONS)]
fn a_task_iterator_with_a_process_needs_linux_6_1() -> Outcome {
    let prog = for_each("task", b't');
    let made = LinkSpec::iter_task(IterTask::Pid(std::process::id())).create(&prog);
    if kernel(6, 1).unmet().is_none() {
        made?;
        return Ok(());
    }
    let error = made.err();
    // Older kernels read the process id as the descriptor of a map.
    let errno = error.as_ref().and_then(bpf_pin::Error::raw_os_error);
    assert!(
        matches!(errno, Some(libc::E2BIG | libc::EINVAL)),
        "{error:?}"
    );
    Ok(())
}

#[common::test(FUNCTIONS)]
fn open_or_attach_opens_and_updates_iterators() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second) = (keys(), keys());
    let (map, other) = (hash(), hash());
    let spec = LinkSpec::iter_map(&map);
    let made = dir.open_or_attach("keys", &spec, &first)?;
    assert_eq!(made.attachment, Attachment::Attached);
    let again = dir.open_or_attach("keys", &spec, &first)?;
    assert_eq!(again.attachment, Attachment::Unchanged);
    let old_prog_id = first.id()?;
    let updated = dir.open_or_attach("keys", &spec, &second)?;
    assert_eq!(updated.attachment, Attachment::Updated { old_prog_id });
    let elsewhere = LinkSpec::iter_map(&other);
    let error = dir
        .open_or_attach("keys", &elsewhere, &first)
        .expect_err("another map");
    assert_eq!(error.during(), Some(Operation::Attach));
    assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
    assert_eq!(fs.names(), ["keys"]);
    Ok(())
}

#[common::test(ROOT)]
fn only_an_iterator_link_can_be_read() -> Outcome {
    let error = detached_link().iter().expect_err("no iterator");
    assert_eq!(error.operation(), Operation::CreateIter);
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_cause_matches!(error, Cause::UnsupportedType { .. });
    Ok(())
}
