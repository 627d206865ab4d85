//! The life of a link of a type with updates, and assertions of refusals.

use std::fmt::Debug;

use bpf_pin::error::{Cause, ObjectType, Operation};
use bpf_pin::link::LinkTarget;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{Link, LinkSpec, Prog};
use common::*;

/// Asserts that a call failed in this operation, with this errno and for this cause.
#[track_caller]
pub fn assert_refused<T: Debug>(
    result: bpf_pin::Result<T>,
    operation: Operation,
    errno: i32,
    cause: impl Into<Option<Cause>>,
) {
    assert_fails(&result.expect_err("a refusal"), operation, errno, cause);
}

/// Asserts that an argument was rejected without a system call.
#[track_caller]
pub fn assert_invalid<T: Debug>(result: bpf_pin::Result<T>, argument: &str) {
    let error = result.expect_err(argument);
    assert_cause_matches!(error, Cause::InvalidArgument { what, .. } if *what == argument);
    assert_eq!(error.operation(), Operation::CreateLink, "{error}");
    assert_eq!(error.raw_os_error(), None, "{error}");
}

/// Asserts that a link of this type does not support the operation.
#[track_caller]
pub fn assert_unsupported<T: Debug>(
    result: bpf_pin::Result<T>,
    operation: Operation,
    errno: i32,
    link_type: LinkType,
) {
    let error = result.expect_err("an operation that the type does not support");
    let expected = ObjectType::Link(link_type);
    assert_cause_matches!(error, &Cause::UnsupportedType { object_type, .. } if object_type == expected);
    assert_eq!(error.operation(), operation, "{error}");
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
}

/// The cause for a program of the wrong type.
pub fn wrong_prog_type(prog: &Prog, attach_type: AttachType, takes: &'static [ProgType]) -> Cause {
    let info = prog.info().expect("the program's info");
    Cause::WrongProgType {
        prog_id: info.id,
        found: info.prog_type,
        attach_type,
        takes,
    }
}

/// Creates a link, updates it, compares the program to replace, detaches the link and creates it again.
pub fn check_lifecycle(
    spec: LinkSpec<'_>,
    make: impl Fn() -> Prog,
    kind: LinkType,
    target: LinkTarget,
) -> Outcome {
    let (first, second, third) = (make(), make(), make());
    let link = spec.create(&first)?;
    let info = link.info()?;
    assert_eq!((info.link_type, info.target), (kind, target));
    assert_eq!(info.prog_id, first.id()?);
    assert!(info.id > 0);
    assert_eq!(info.id, link.id()?);
    assert_eq!(Link::from_id(info.id)?.info()?, info);
    let clone = link.try_clone()?;
    assert_eq!(clone.info()?, info);

    let prog_id = || link.info().map(|info| info.prog_id);
    link.update(&second)?;
    assert_eq!(prog_id()?, second.id()?);
    let holds = Cause::UnexpectedProgram {
        prog_id: second.id()?,
    };
    let update = link.update_from(&third, &first);
    assert_refused(update, Operation::UpdateLink, libc::EPERM, holds);
    assert_eq!(prog_id()?, second.id()?);
    link.update_from(&third, &second)?;
    assert_eq!(prog_id()?, third.id()?);
    let attach_type = match target {
        LinkTarget::Cgroup { attach_type, .. }
        | LinkTarget::Netns { attach_type, .. }
        | LinkTarget::Tcx { attach_type, .. }
        | LinkTarget::Netkit { attach_type, .. }
        | LinkTarget::Sockmap { attach_type, .. } => attach_type,
        _ => AttachType::XDP,
    };
    let other = prog();
    let takes = Vec::leak(vec![first.info()?.prog_type]);
    for update in [link.update(&other), link.update_from(&other, &third)] {
        let cause = wrong_prog_type(&other, attach_type, takes);
        assert_refused(update, Operation::UpdateLink, libc::EINVAL, cause);
    }
    assert_eq!(prog_id()?, third.id()?);
    assert_eq!(link.info()?.target, target);

    // Detached through one descriptor, it is detached for all.
    clone.detach()?;
    for link in [&link, &clone] {
        for update in [link.update(&first), link.update_from(&first, &third)] {
            assert_refused(
                update,
                Operation::UpdateLink,
                libc::ENOLINK,
                Cause::Detached,
            );
        }
    }
    let info = link.info()?;
    assert_eq!((info.link_type, info.id), (kind, clone.id()?));
    let gone = match target {
        LinkTarget::Netns { attach_type, .. } => LinkTarget::Netns {
            netns_ino: 0,
            attach_type,
        },
        LinkTarget::Cgroup { attach_type, .. } => LinkTarget::Cgroup {
            cgroup_id: 0,
            attach_type,
        },
        LinkTarget::Xdp { .. } => LinkTarget::Xdp { ifindex: 0 },
        LinkTarget::Tcx { attach_type, .. } => LinkTarget::Tcx {
            ifindex: 0,
            attach_type,
        },
        LinkTarget::Netkit { attach_type, .. } => LinkTarget::Netkit {
            ifindex: 0,
            attach_type,
        },
        LinkTarget::Sockmap { attach_type, .. } => LinkTarget::Sockmap {
            map_id: 0,
            attach_type,
        },
        other => other,
    };
    assert_eq!(info.target, gone);
    assert!(info.target.is_gone());
    link.detach()?;
    // The target is free again.
    let again = spec.create(&first)?;
    assert_eq!(again.info()?.target, target);
    Ok(())
}
