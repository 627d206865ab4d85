//! `Features` reports what the kernel supports. The tests use each feature and compare.

use std::env;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::Cause;
use bpf_pin::probe::{Action, Capabilities, Features, Permission};
use bpf_pin::{Map, PinDir, PinnedLink, abi};
use common::*;
use rustix::thread::CapabilitySet;

/// The environment variable with the task of a process that has not probed yet.
const CHILD: &str = "BPF_PIN_TEST_FEATURES";

const USED: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    match env::var(CHILD).as_deref() {
        Ok("user first") => return Some(user_first()),
        Ok("all at once") => return Some(all_at_once()),
        Ok("filtered first") => return Some(filtered_first()),
        Ok("a bpffs filtered first") => return Some(bpffs_filtered_first()),
        _ => {}
    }
    None
}

#[common::test(USERS)]
fn features_unknown_to_a_user_are_probed_later_by_root() -> Outcome {
    run("user first")
}

#[common::test(&[cap::SYS_ADMIN])]
fn many_threads_probe_at_once() -> Outcome {
    run("all at once")
}

#[common::test]
fn a_filtered_probe_is_not_remembered() -> Outcome {
    run("filtered first")
}

#[common::test(&[cap::SYS_ADMIN])]
fn a_filtered_mount_is_not_remembered() -> Outcome {
    run("a bpffs filtered first")
}

fn run(child: &str) -> Outcome {
    let output = common::command(env::current_exe()?)
        .env(CHILD, child)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(())
}

/// Calls bpf(2) with this argument, and returns the errno or `None` on success.
fn call<T>(cmd: abi::bpf_cmd, attr: &mut T) -> Option<i32> {
    // SAFETY: the addresses in `attr` are valid during the call, and its lengths fit.
    let done = unsafe { abi::bpf(cmd, (&raw mut *attr).cast(), size_of::<T>() as u32) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    if done >= 0 { None } else { errno }
}

#[common::test(USED)]
fn features_match_the_outcomes() -> Outcome {
    let kernel = Features::of_this_kernel();
    let fs = TestFs::detached("700");
    let root = fs.mount().expect("a mount of its own");

    let map = hash();
    let mut pin = abi::bpf_attr_obj {
        pathname: c"map".as_ptr() as u64,
        bpf_fd: map.as_fd().as_raw_fd() as u32,
        file_flags: abi::BPF_F_PATH_FD,
        path_fd: root.as_raw_fd(),
        ..abi::bpf_attr_obj::zeroed()
    };
    let pinned = call(abi::BPF_OBJ_PIN, &mut pin);
    assert_eq!(kernel.path_fd, Some(pinned.is_none()), "{pinned:?}");
    assert!(matches!(pinned, None | Some(libc::EINVAL)), "{pinned:?}");
    assert_eq!(Map::open(fs.at("map")).is_ok(), pinned.is_none());

    let dir = PinDir::open(fs.root())?;
    dir.create_dir("a", 0o700)?;
    dir.create_dir("b", 0o700)?;
    let inode = |name| fs::metadata(fs.at(name)).map(|file| file.ino());
    let before = (inode("a")?, inode("b")?);
    let exchanged = dir.exchange("a", "b");
    assert_eq!(kernel.exchange, Some(exchanged.is_ok()), "{exchanged:?}");
    let after = match exchanged {
        Ok(()) => (before.1, before.0),
        Err(_) => before,
    };
    assert_eq!((inode("a")?, inode("b")?), after);

    let top = fs::File::open(fs.root())?;
    let mut token = abi::bpf_attr_token_create {
        flags: 0,
        bpffs_fd: top.as_raw_fd() as u32,
    };
    // A kernel with tokens creates none for the initial user namespace.
    let refused = call(abi::BPF_TOKEN_CREATE, &mut token);
    let expected = match kernel.token {
        Some(true) => libc::EOPNOTSUPP,
        _ => libc::EINVAL,
    };
    assert_eq!(refused, Some(expected), "{:?}", kernel.token);
    let delegated = MountOptions::new()
        .delegate_cmds([bpf_pin::types::Command::MAP_CREATE])
        .detached();
    assert_eq!(kernel.token, Some(delegated.is_ok()), "{delegated:?}");

    let owned = MountOptions::new().uid(1234).gid(4321).detached();
    assert_eq!(kernel.owner_options, Some(owned.is_ok()), "{owned:?}");
    match owned {
        Ok(owned) => {
            let root = fs::metadata(owned.path())?;
            assert_eq!((root.uid(), root.gid()), (1234, 4321));
        }
        Err(error) => {
            assert_cause_matches!(error, Cause::OptionIgnored { .. });
        }
    }

    // Every tested kernel has links and batches.
    let linked = PinnedLink::open(detached_link().pin(fs.at("link"))?.path())?;
    assert_ne!(linked.id()?, 0);
    assert_eq!(kernel.link_pins, Some(true));

    let elems = map.elements::<u32, u64>()?;
    elems.update(&7, &70, bpf_pin::map::ElemFlags::ANY)?;
    let (mut next, mut keys, mut values) = ([0_u32; 2], [0_u32; 8], [0_u64; 8]);
    let mut batch = abi::bpf_attr_batch {
        out_batch: next.as_mut_ptr() as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: 8,
        map_fd: map.as_fd().as_raw_fd() as u32,
        ..abi::bpf_attr_batch::zeroed()
    };
    // ENOENT marks the end of the map.
    assert_eq!(
        call(abi::BPF_MAP_LOOKUP_BATCH, &mut batch),
        Some(libc::ENOENT)
    );
    assert_eq!((batch.count, keys[0], values[0]), (1, 7, 70));
    assert_eq!(kernel.batch, Some(true));
    Ok(())
}

/// No tested distribution has backported one of these features to an older release.
#[common::test(&[cap::SYS_ADMIN])]
fn features_match_the_release() -> Outcome {
    let since = |major, minor| Some(kernel(major, minor).unmet().is_none());
    let found = Features::of_this_kernel();
    assert_eq!(found.path_fd, since(6, 5));
    assert_eq!(found.exchange, since(5, 17));
    assert_eq!(found.token, since(6, 9));
    assert_eq!(found.owner_options, since(6, 8));
    assert_eq!(found.link_pins, since(5, 7));
    assert_eq!(found.batch, since(5, 6));
    Ok(())
}

fn commands(found: Features) -> [Option<bool>; 4] {
    [found.path_fd, found.token, found.link_pins, found.batch]
}

/// A feature that is unknown for a user becomes known once root has probed it. All users then see it.
fn user_first() -> ExitCode {
    let sysctl = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    let is_open = sysctl.is_ok_and(|text| text.trim() == "0");
    let is_closed = kernel(5, 19).unmet().is_some() && !is_open;
    let of_user = || as_user(CapabilitySet::empty(), Features::of_this_kernel);
    let first = of_user();
    assert_eq!((first.exchange, first.owner_options), (None, None));
    for command in commands(first) {
        assert_eq!(command.is_none(), is_closed, "{first:?}");
    }
    // CAP_BPF is sufficient for the commands.
    let more = as_user(CapabilitySet::BPF, Features::of_this_kernel);
    assert_eq!((more.exchange, more.owner_options), (None, None));
    assert!(commands(more).iter().all(Option::is_some), "{more:?}");
    assert_eq!(commands(of_user()), commands(more));

    let by_root = Features::of_this_kernel();
    assert_eq!(commands(by_root), commands(more));
    assert!(
        by_root.exchange.is_some() && by_root.owner_options.is_some(),
        "{by_root:?}"
    );
    assert_eq!(of_user(), by_root);
    // A known feature is not probed again.
    let remembered = with_seccomp_errno(libc::SYS_bpf, None, libc::EPERM as u32, || {
        with_seccomp_errno(
            libc::SYS_fsopen,
            None,
            libc::EPERM as u32,
            Features::of_this_kernel,
        )
    });
    assert_eq!(remembered, by_root);
    ExitCode::SUCCESS
}

fn all_at_once() -> ExitCode {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(Features::of_this_kernel))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(answers[0], Features::of_this_kernel());
    assert_eq!(open(), before, "descriptors of the probe are closed");
    ExitCode::SUCCESS
}

/// The errno of a filter is never taken for the kernel's. Other threads may have probed already.
#[common::test]
fn a_filtered_probe_is_unknown() -> Outcome {
    for errno in [libc::EPERM, libc::ENOSYS, libc::EACCES] {
        let within = with_bpf_errno(None, errno as u32, Features::of_this_kernel);
        let outside = Features::of_this_kernel();
        for (within, outside) in commands(within).into_iter().zip(commands(outside)) {
            assert!(within.is_none() || within == outside);
        }
    }
    Ok(())
}

/// Behind a filter everything is unknown, and nothing is remembered.
fn filtered_first() -> ExitCode {
    for errno in [libc::EPERM, libc::EINVAL, libc::ENOSYS, libc::EACCES] {
        let within = with_bpf_errno(None, errno as u32, || {
            with_seccomp_errno(
                libc::SYS_fsopen,
                None,
                libc::EPERM as u32,
                Features::of_this_kernel,
            )
        });
        assert_eq!(commands(within), [None; 4], "{errno}");
        assert_eq!((within.exchange, within.owner_options), (None, None));
        assert_eq!(
            within.to_string(),
            "path_fd: unknown, exchange: unknown, token: unknown, owner options: unknown, \
             link pins: unknown, batch: unknown"
        );
    }
    // Without the filter the kernel answers, unless bpf(2) is closed to this user.
    let closed = Capabilities::of_this_thread().may(Action::Open) != Permission::Granted;
    for command in commands(Features::of_this_kernel()) {
        assert_eq!(command.is_none(), closed);
    }
    ExitCode::SUCCESS
}

/// System calls that are missing, rejected, or ignored with success.
fn bpffs_filtered_first() -> ExitCode {
    let calls = [
        (libc::SYS_fsopen, None, libc::ENOSYS),
        (libc::SYS_fsopen, None, libc::EPERM),
        (libc::SYS_fsmount, None, libc::ENOSYS),
        // FSCONFIG_SET_STRING
        (libc::SYS_fsconfig, Some((1, 1)), libc::EINVAL),
        (libc::SYS_fsconfig, Some((1, 1)), 0),
    ];
    for (call, argument, errno) in calls {
        let within = with_seccomp_errno(call, argument, errno as u32, Features::of_this_kernel);
        assert_eq!(within.owner_options, None, "{call} {errno}");
    }
    let by_kernel = Features::of_this_kernel();
    assert_eq!(
        by_kernel.owner_options,
        Some(kernel(6, 8).unmet().is_none())
    );
    assert_eq!(by_kernel.exchange, Some(kernel(5, 17).unmet().is_none()));
    ExitCode::SUCCESS
}

#[common::test]
fn features_are_printed_in_one_line() -> Outcome {
    let found = Features::of_this_kernel();
    let word = |found| match found {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let expected = format!(
        "path_fd: {}, exchange: {}, token: {}, owner options: {}, link pins: {}, batch: {}",
        word(found.path_fd),
        word(found.exchange),
        word(found.token),
        word(found.owner_options),
        word(found.link_pins),
        word(found.batch)
    );
    assert_eq!(Features::of_this_kernel(), found);
    assert_eq!(found.to_string(), expected);
    Ok(())
}
