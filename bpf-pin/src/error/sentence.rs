//! Sentences of causes that depend on what is known.

use std::ffi::OsString;
use std::fmt::{Display, Formatter, Result};
use std::path::{Path, PathBuf};

use bpf_pin_sys::Version;
use rustix::fs::{major, minor};

use crate::procfs::ShadowedBpffs;
use crate::types::{AttachType, FileSystem, Identity, ProgType};

use super::errno::Name;
use super::escaped::{Escaped, escaped_path};
use super::{LinkMismatch, Mismatch};

/// A device number as "8:1".
pub(crate) struct Device(pub(crate) u64);

impl Display for Device {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}:{}", major(self.0), minor(self.0))
    }
}

pub(super) fn exists(holder: &Option<Identity>, f: &mut Formatter<'_>) -> Result {
    match holder {
        Some(holder) => write!(f, "{holder} is pinned there already"),
        None => f.write_str("the name is taken already"),
    }
}

pub(super) fn not_bpffs(
    path: &Path,
    found: &FileSystem,
    missing: &Option<PathBuf>,
    shadowed: &Option<ShadowedBpffs>,
    f: &mut Formatter<'_>,
) -> Result {
    if let Some(missing) = missing {
        write!(f, "{} does not exist, and ", escaped_path(missing))?;
    }
    match path == Path::new(".") {
        true => f.write_str("the working directory, where the path begins,")?,
        false => write!(f, "{}", escaped_path(path))?,
    }
    write!(f, " is on {found}, not on a bpffs")?;
    match shadowed {
        Some(shadowed) => write!(f, "; {}", Escaped(shadowed)),
        None if path.is_relative() && path != Path::new(".") => {
            f.write_str("; the path is relative to the working directory")
        }
        // A directory that exists to mount a bpffs on.
        None if path.ends_with("sys/fs/bpf") => {
            write!(f, "; to mount one: mount -t bpf bpf {}", escaped_path(path))
        }
        None => Ok(()),
    }
}

pub(super) fn dot(component: &OsString, f: &mut Formatter<'_>) -> Result {
    let name = component.to_string_lossy();
    match &*name {
        "." | ".." => write!(f, "{name:?} is not a name in a directory"),
        _ => write!(
            f,
            "{name:?} contains '.', which bpffs does not allow in names"
        ),
    }
}

pub(super) fn blocked(
    path: &Path,
    mode: &u32,
    uid: &u32,
    wanted: &str,
    read_only_would_do: &bool,
    f: &mut Formatter<'_>,
) -> Result {
    let path = escaped_path(path);
    write!(
        f,
        "{path} (mode {mode:04o}, owner {uid}) denies this user {wanted} access"
    )?;
    match read_only_would_do {
        true => f.write_str("; open it with Access::ReadOnly"),
        false => Ok(()),
    }
}

pub(super) fn wrong_descriptor(
    expected: &str,
    found: &Option<String>,
    f: &mut Formatter<'_>,
) -> Result {
    match found {
        Some(found) => write!(f, "it is {}, not {expected}", Escaped(found)),
        None => write!(f, "it is not {expected}"),
    }
}

pub(super) fn unproven(info_errno: &Option<i32>, f: &mut Formatter<'_>) -> Result {
    match info_errno {
        Some(errno) => {
            let errno = Name(*errno);
            write!(
                f,
                "it could not be identified: BPF_OBJ_GET_INFO_BY_FD failed with {errno}"
            )
        }
        None => f.write_str("its kind could not be proven"),
    }
}

/// A mismatch may contain commas, so they are separated by semicolons.
pub(super) fn mismatch(id: &u32, mismatches: &[Mismatch], f: &mut Formatter<'_>) -> Result {
    write!(f, "map {id} does not match: ")?;
    list(f, mismatches, "; ", "; ")
}

pub(super) fn link_mismatch(mismatches: &[LinkMismatch], f: &mut Formatter<'_>) -> Result {
    f.write_str("the link does not match: ")?;
    list(f, mismatches, "; ", "; ")
}

pub(super) fn expected_attach_type(
    expected: &Option<AttachType>,
    found: &Option<AttachType>,
    f: &mut Formatter<'_>,
) -> Result {
    let (Some(expected), Some(found)) = (expected, found) else {
        return f.write_str(
            "the program was likely loaded with another expected_attach_type than the link's program",
        );
    };
    let with = |attach_type: &AttachType| match attach_type {
        AttachType(0) => "without expected_attach_type".to_owned(),
        _ => format!("with expected_attach_type {attach_type}"),
    };
    let (expected, found) = (with(expected), with(found));
    write!(
        f,
        "the program was loaded {found}, and the link's program {expected}"
    )
}

pub(super) fn target_full(count: &usize, f: &mut Formatter<'_>) -> Result {
    let programs = if *count == 1 { "program" } else { "programs" };
    write!(f, "the target has {count} {programs}, and takes no more")
}

pub(super) fn already_attached(
    prog_id: &u32,
    link_id: &Option<u32>,
    f: &mut Formatter<'_>,
) -> Result {
    write!(f, "program {prog_id} is already attached there")?;
    match link_id {
        Some(id) => write!(f, " by link {id}"),
        None => Ok(()),
    }
}

pub(super) fn other_inner_map(mismatches: &[Mismatch], f: &mut Formatter<'_>) -> Result {
    f.write_str("the map differs from the inner map that the map of maps was created with: ")?;
    list(f, mismatches, "; ", "; ")
}

pub(super) fn size(what: &str, expected: &usize, found: &usize, f: &mut Formatter<'_>) -> Result {
    match what.starts_with("number") {
        true => write!(f, "the {what} is {found}, expected {expected}"),
        false => write!(
            f,
            "the {what} has {found} bytes, but the map's {what}s have {expected}"
        ),
    }
}

pub(super) fn buffer_too_small(
    what: &str,
    room: &usize,
    needed: &Option<usize>,
    f: &mut Formatter<'_>,
) -> Result {
    match needed {
        Some(needed) => write!(
            f,
            "{what} has room for {room} bytes, and {needed} are needed"
        ),
        None => write!(
            f,
            "the {what} has room for {room} elements, and a bucket of the hash has more"
        ),
    }
}

pub(super) fn per_cpu(is_per_cpu: &bool, f: &mut Formatter<'_>) -> Result {
    f.write_str(match is_per_cpu {
        true => "the map has a value for each CPU: use PerCpu",
        false => "the map has one value for all CPUs: do not use PerCpu",
    })
}

pub(super) fn uptr(problem: &Option<String>, f: &mut Formatter<'_>) -> Result {
    match problem {
        None => f.write_str(
            "the map's BTF has the tag \"uptr\": a value may contain an address at which programs write to this process's memory",
        ),
        Some(problem) => write!(
            f,
            "the map's BTF cannot be read ({}), so a value may contain an address at which programs write to this process's memory",
            Escaped(problem)
        ),
    }
}

pub(super) fn wrong_prog_type(
    prog_id: &u32,
    found: &ProgType,
    attach_type: &AttachType,
    takes: &[ProgType],
    f: &mut Formatter<'_>,
) -> Result {
    write!(
        f,
        "program {prog_id} is of type {found}, and {attach_type} takes "
    )?;
    list(f, takes, ", ", " or ")
}

pub(super) fn not_the_root(
    path: &Option<PathBuf>,
    mount_point: &Option<PathBuf>,
    f: &mut Formatter<'_>,
) -> Result {
    match path {
        Some(path) => write!(f, "{} is", escaped_path(path)),
        None => f.write_str("it is"),
    }?;
    f.write_str(" a directory within a bpffs, not its root")?;
    match mount_point {
        Some(root) => write!(f, ": pass {}", escaped_path(root)),
        None => Ok(()),
    }
}

pub(super) fn in_use(mounted: &Option<PathBuf>, f: &mut Formatter<'_>) -> Result {
    match mounted {
        Some(path) => write!(f, "it is in use: something is mounted at {}", escaped_path(path)),
        None => f.write_str(
            "it is in use: a file or directory in it is open, or a process has its working directory there",
        ),
    }
}

pub(super) fn option_ignored(
    option: &str,
    since: &Option<Version>,
    f: &mut Formatter<'_>,
) -> Result {
    write!(f, "the kernel ignored the option {option}")?;
    match since {
        Some(since) => write!(f, " (Linux {since})"),
        None => Ok(()),
    }
}

/// As in "a, b or c".
fn list(f: &mut Formatter<'_>, all: &[impl Display], between: &str, last: &str) -> Result {
    for (at, each) in all.iter().enumerate() {
        let before = match at {
            0 => "",
            _ if at + 1 == all.len() => last,
            _ => between,
        };
        write!(f, "{before}{each}")?;
    }
    Ok(())
}
