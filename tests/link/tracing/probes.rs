//! Links to perf events, and to many kprobes or uprobes at once.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{LinkTarget, Uprobes};
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{LinkSpec, PinDir, abi};
use common::*;

use super::{
    assert_cannot_be_detached_or_updated, check_runs, clear, cookie_map, has_kprobes, load, read,
    spawn, store_cookie,
};
use crate::lifecycle::{assert_refused, assert_unsupported};

/// A perf event for this thread's CPU time, with a short sample period.
fn counter() -> io::Result<OwnedFd> {
    // struct perf_event_attr: type, size, config, sample_period. PERF_TYPE_SOFTWARE,
    // PERF_COUNT_SW_TASK_CLOCK.
    let mut attr = [0u64; 16];
    attr[0] = u64::from_ne_bytes(bytemuck::cast([1u32, 128]));
    attr[1] = 1;
    attr[2] = 100_000;
    // SAFETY: the argument has the size that it states and contains no address.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, 0, -1, -1, 8) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn work() {
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_millis(30) {
        std::hint::spin_loop();
    }
}

#[common::test(super::PERF)]
fn a_perf_event_program_sees_its_cookie() -> Outcome {
    let map = cookie_map();
    let event = counter()?;
    let insns = store_cookie(&map, true);
    let prog = load(ProgType::PERF_EVENT, AttachType::PERF_EVENT, 0, &insns);
    let spec = LinkSpec::perf_event(&event);
    let link = spec.cookie(1 << 40).create(&prog)?;
    let info = link.info()?;
    assert_eq!(info.link_type, LinkType::PERF_EVENT);
    let (expected_type, cookie) = match (kernel(6, 6).unmet(), kernel(6, 9).unmet()) {
        (Some(_), _) => (0, 0),
        (None, Some(_)) => (abi::BPF_PERF_EVENT_EVENT, 0),
        (None, None) => (abi::BPF_PERF_EVENT_EVENT, 1 << 40),
    };
    let LinkTarget::PerfEvent {
        event_type,
        cookie: found,
        ..
    } = info.target
    else {
        panic!("{:?}", info.target);
    };
    assert_eq!((event_type, found), (expected_type, cookie));
    let other = prog_returning(ProgType::PERF_EVENT, AttachType::PERF_EVENT, 0);
    assert_cannot_be_detached_or_updated(&link, &other, LinkType::PERF_EVENT)?;
    let second = spec.create(&other);
    assert_refused(second, Operation::CreateLink, libc::EEXIST, None);
    check_runs(&map, link, 1 << 40, work)?;
    let file = File::open("/proc/self/status")?;
    let no_event = LinkSpec::perf_event(&file).create(&other);
    assert_refused(no_event, Operation::CreateLink, libc::EBADF, None);
    Ok(())
}

#[common::test(super::TRACER)]
fn perf_event_links_need_linux_5_15() -> Outcome {
    let event = counter()?;
    let prog = prog_returning(ProgType::PERF_EVENT, AttachType(0), 0);
    let made = LinkSpec::perf_event(&event).create(&prog);
    if kernel(5, 15).unmet().is_none() {
        made?;
        return Ok(());
    }
    assert_refused(made, Operation::CreateLink, libc::EINVAL, None);
    Ok(())
}

#[common::test(super::TRACER)]
fn kprobes_are_attached_by_name_and_address() -> Outcome {
    let attach_type = AttachType::TRACE_KPROBE_MULTI;
    if !has_kprobes() || Need::Feature(Feature::KprobeMulti).unmet().is_some() {
        let prog = prog_returning(ProgType::KPROBE, AttachType(0), 0);
        let made = LinkSpec::kprobe_multi(&[c"kernel_clone"]).create(&prog);
        let error = made.expect_err("a kernel without kprobe_multi");
        assert!(error.cause().is_none(), "{error}");
        return Ok(());
    }
    let map = cookie_map();
    let insns = store_cookie(&map, true);
    let prog = load(ProgType::KPROBE, attach_type, 0, &insns);
    // Not necessarily in the order of their addresses.
    let names = [c"kernel_clone", c"do_exit"];
    let address = |name: &CStr| -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        let symbols = std::fs::read_to_string("/proc/kallsyms")?;
        let end = format!(" {}", name.to_str()?);
        let line = symbols.lines().find(|line| line.ends_with(&end));
        let line = line.ok_or("no such symbol")?;
        Ok(u64::from_str_radix(
            line.split(' ').next().unwrap_or(""),
            16,
        )?)
    };
    let addresses = [address(names[0])?];
    let by_name = LinkSpec::kprobe_multi(&names).cookies(&[5, 6]);
    let by_address = LinkSpec::kprobe_multi_at(&addresses).cookies(&[5]);
    for (spec, count) in [(by_name, 2), (by_address, 1)] {
        for flags in [0, abi::BPF_F_KPROBE_MULTI_RETURN] {
            let link = spec.flags(flags).create(&prog)?;
            let info = link.info()?;
            assert_eq!(info.link_type, LinkType::KPROBE_MULTI);
            let LinkTarget::KprobeMulti {
                count: found,
                flags: found_flags,
                ..
            } = info.target
            else {
                panic!("{:?}", info.target);
            };
            assert_eq!((found, found_flags), (count, flags));
            assert_unsupported(
                link.update(&prog),
                Operation::UpdateLink,
                libc::EINVAL,
                LinkType::KPROBE_MULTI,
            );
            clear(&map);
            spawn();
            let (cookie, has_run) = read(&map);
            assert!(
                has_run && (cookie == 5 || cookie == 6 && count == 2),
                "{cookie}"
            );
        }
    }
    let nowhere = LinkSpec::kprobe_multi(&[c"no_such_function"]).create(&prog);
    let error = nowhere.expect_err("no such function");
    assert!(
        matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)),
        "{error}"
    );

    let attach_type = AttachType::TRACE_KPROBE_SESSION;
    let session = load(ProgType::KPROBE, attach_type, 0, &insns);
    let spec = LinkSpec::kprobe_multi(&names).session();
    assert_eq!(spec.attach_type(), attach_type);
    let link = spec.create(&session)?;
    assert_eq!(link.info()?.link_type, LinkType::KPROBE_MULTI);
    Ok(())
}

#[inline(never)]
extern "C" fn probed(number: u64) -> u64 {
    std::hint::black_box(number.wrapping_mul(3))
}

/// The offset of the function in this program's file.
fn offset() -> u64 {
    let address = probed as *const () as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let within = |line: &str| -> Option<u64> {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = (hex(start)?, hex(end)?);
        let offset = hex(fields.nth(1)?)?;
        (start..end)
            .contains(&address)
            .then(|| address - start + offset)
    };
    maps.lines().find_map(within).expect("a mapping of it")
}

/// Probe points at the starts of functions of this program.
fn uprobes<'a>(path: &'a CStr, offsets: &'a [u64]) -> Uprobes<'a> {
    // SAFETY: the caller's offsets are those of functions, as `offset` finds them.
    unsafe { Uprobes::new(path, offsets) }
}

#[common::test(super::UPROBE_MULTI)]
fn uprobes_are_attached_by_offset() -> Outcome {
    let map = cookie_map();
    let insns = store_cookie(&map, true);
    let prog = load(ProgType::KPROBE, AttachType::TRACE_UPROBE_MULTI, 0, &insns);
    let (path, offsets) = (c"/proc/self/exe", [offset()]);
    let call = || {
        std::hint::black_box(probed)(4);
    };
    let points = uprobes(path, &offsets);
    let spec = LinkSpec::uprobe_multi(points).cookies(&[1 << 33]);
    let own = points.pid(std::process::id());
    for flags in [0, abi::BPF_F_UPROBE_MULTI_RETURN] {
        for pid in [0, std::process::id()] {
            let link = LinkSpec::uprobe_multi(points.pid(pid))
                .cookies(&[1 << 33])
                .flags(flags)
                .create(&prog)?;
            let info = link.info()?;
            assert_eq!(info.link_type, LinkType::UPROBE_MULTI);
            let LinkTarget::UprobeMulti {
                count,
                flags: found,
                pid: found_pid,
                ..
            } = info.target
            else {
                panic!("{:?}", info.target);
            };
            if kernel(6, 8).unmet().is_none() {
                assert_eq!((count, found, found_pid), (1, flags, pid));
            }
            check_runs(&map, link, 1 << 33, call)?;
        }
    }
    // A pinned link to other offsets, or of another process, is reported.
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let pinned = LinkSpec::uprobe_multi(own).cookies(&[1 << 33]);
    let made = dir.open_or_attach("link", &pinned, &prog)?;
    let same = dir.open_or_attach("link", &pinned, &prog)?;
    assert_eq!(same.attachment, Attachment::Unchanged);
    let twice = [offset(), offset()];
    let others = [
        spec,
        pinned.flags(abi::BPF_F_UPROBE_MULTI_RETURN),
        LinkSpec::uprobe_multi(uprobes(path, &twice).pid(std::process::id())),
    ];
    for other in others {
        let found = dir.open_or_attach("link", &other, &prog);
        if kernel(6, 8).unmet().is_some() {
            assert_eq!(found?.attachment, Attachment::Unchanged);
            continue;
        }
        let error = found.expect_err("other offsets");
        assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
    }
    drop((made, same));
    dir.unlink("link")?;

    let nowhere = LinkSpec::uprobe_multi(uprobes(c"/nowhere", &offsets)).create(&prog);
    assert_refused(nowhere, Operation::CreateLink, libc::ENOENT, None);
    if kernel(6, 13).unmet().is_none() {
        let attach_type = AttachType::TRACE_UPROBE_SESSION;
        let session = load(ProgType::KPROBE, attach_type, 0, &insns);
        let spec = LinkSpec::uprobe_multi(points).session();
        assert_eq!(spec.attach_type(), attach_type);
        let link = spec.create(&session)?;
        check_runs(&map, link, 0, call)?;
    }
    Ok(())
}
