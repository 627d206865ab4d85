//! Calls that a seccomp filter denies: they use a fallback or report the denial.

use std::os::unix::fs::symlink;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::reuse::Reuse;
use bpf_pin::{Map, MapSpec, MapType, abi};
use common::*;

use crate::helpers::*;
use crate::pin_dir::PINS;

/// The filter may deny any of the calls that detect a symbolic link.
#[common::test(PINS)]
fn a_symbolic_link_is_recognized_behind_a_filter() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    symlink("pin", fs.at("link"))?;
    let open = || {
        dir.get::<Map>("pin").expect("no link");
        let path = fs.at("link");
        let error = dir.get::<Map>("link").unwrap_err();
        assert_eq!(error.cause(), Some(&Cause::SymbolicLink { path }));
        let error = dir.open_with_info("link").unwrap_err();
        assert_cause_matches!(error, Cause::SymbolicLink { .. });
    };
    with_seccomp_errno(libc::SYS_readlinkat, None, libc::EPERM as u32, open);
    // Before Linux 6.5 the path through /proc is verified with fstatat(2), so it cannot be denied.
    if kernel(6, 5).unmet().is_none() {
        with_seccomp_errno(common::syscalls::FSTATAT, None, libc::EPERM as u32, open);
    }
    Ok(())
}

#[common::test(PINS)]
fn a_denied_info_call_names_the_pin() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    let (cmd, errno) = (abi::BPF_OBJ_GET_INFO_BY_FD, libc::EACCES);
    let errors = with_bpf_errno(Some(cmd), errno as u32, || {
        let spec = MapSpec::new(MapType::HASH, 4, 8, 8);
        let reused = dir.open_or_create("pin", &spec, Reuse::OpenOnly);
        [dir.open_with_info("pin").unwrap_err(), reused.unwrap_err()]
    });
    for error in errors {
        assert_eq!(error.operation(), Operation::Open, "{error:?}");
        assert_eq!(error.path(), Some(&*dir.path().join("pin")));
        assert_eq!(error.raw_os_error(), Some(errno));
    }
    Ok(())
}
