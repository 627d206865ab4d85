//! The kinds of object that can be pinned, and how a descriptor's kind is proven.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstatfs, openat, readlinkat};
use rustix::io::Errno;

use crate::magic::FileSystem;
use crate::sys::{self, InfoRoom};

pub use crate::types::{Identity, Kind};

/// A descriptor that was proven to be of this kind. Made in this file only.
#[derive(Debug)]
pub struct Proven {
    fd: OwnedFd,
    kind: Kind,
}

impl Proven {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// What could be found out about a descriptor that is not of the kind in question.
pub(crate) enum Verdict {
    /// Proven to be of this kind.
    Is(Kind),
    /// Proven to be none of the three; what /proc calls it, where it can be read.
    IsNone(Option<String>),
    /// Neither. A kernel too new for the one proof and too closed for the others.
    Unknown,
}

/// Proves `fd` to be of the expected kind in one syscall; gives it back where it takes more to tell.
#[inline]
pub(crate) fn prove_at_once(fd: OwnedFd, expected: Option<Kind>) -> Result<Proven, OwnedFd> {
    match expected {
        Some(kind) if is(fd.as_fd(), kind) => Ok(Proven { fd, kind }),
        Some(_) => Err(fd),
        None => match sys::info_head(fd.as_fd()).ok().and_then(judge) {
            Some(kind) => Ok(Proven { fd, kind }),
            None => Err(fd),
        },
    }
}

/// The same by the object's info, for who wants that, too.
#[inline]
pub(crate) fn prove_by_info<const WORDS: usize>(
    fd: OwnedFd,
    expected: Option<Kind>,
    info: &mut InfoRoom<WORDS>,
) -> Result<Proven, OwnedFd> {
    match info.ask(fd.as_fd()).ok().and_then(judge) {
        Some(kind) if expected.is_none_or(|expected| expected == kind) => Ok(Proven { fd, kind }),
        _ => Err(fd),
    }
}

/// Proves `fd` to be of the expected kind, or of any.
pub(crate) fn prove(fd: OwnedFd, expected: Option<Kind>) -> Result<Proven, (OwnedFd, Verdict)> {
    prove_at_once(fd, expected).or_else(|fd| prove_at_length(fd, expected))
}

/// The same of what is not proven at once.
#[cold]
pub(crate) fn prove_at_length(
    fd: OwnedFd,
    expected: Option<Kind>,
) -> Result<Proven, (OwnedFd, Verdict)> {
    match of(fd.as_fd()) {
        Verdict::Is(kind) if expected.is_none_or(|expected| expected == kind) => {
            Ok(Proven { fd, kind })
        }
        other => Err((fd, other)),
    }
}

/// Which object this is, or why that cannot be told.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Result<Identity, Verdict> {
    let head = sys::info_head(fd).map_err(|_| of(fd))?;
    let id = head.id;
    match judge(head).map_or_else(|| of(fd), Verdict::Is) {
        Verdict::Is(kind) => Ok(Identity { kind, id }),
        other => Err(other),
    }
}

/// Proof in one syscall that `fd` is this very object; false where it takes more to tell.
#[inline]
pub(crate) fn is_object(fd: BorrowedFd<'_>, expected: Identity) -> bool {
    let Identity { kind, id } = expected;
    let head = match kind {
        Kind::Map => sys::map_head(fd),
        Kind::Prog => sys::info_head(fd),
        Kind::Link => sys::link_head(fd),
    };
    head.is_ok_and(|head| head.id == id && judge(head) == Some(kind))
}

/// Proof in one syscall that `fd` is of this kind; false where it takes more to tell.
#[inline]
fn is(fd: BorrowedFd<'_>, kind: Kind) -> bool {
    match kind {
        // Rests on no struct's size, and is the cheapest call there is on a map.
        Kind::Map => answers_as_map(fd),
        Kind::Prog => sys::info_head(fd).ok().and_then(judge) == Some(kind),
        Kind::Link => sys::link_head(fd).ok().and_then(judge) == Some(kind),
    }
}

/// The kind of `fd`: by its info, else by its answers to each kind's own commands, else by what
/// /proc calls it.
pub(crate) fn of(fd: BorrowedFd<'_>) -> Verdict {
    let head = sys::info_head(fd);
    if let Some(kind) = head.ok().and_then(judge).or_else(|| by_command(fd)) {
        return Verdict::Is(kind);
    }
    match describe(fd) {
        Some(name) => by_name(&name).map_or(Verdict::IsNone(Some(name)), Verdict::Is),
        // So the kernel answers for what is no BPF object, if it knows the command.
        None if head == Err(Errno::INVAL) && is_bad_fd(sys::gate()) => Verdict::IsNone(None),
        None => Verdict::Unknown,
    }
}

/// What `BPF_OBJ_GET_INFO_BY_FD` says of what is no descriptor to it: closed, or `O_PATH`.
fn is_bad_fd(errno: Errno) -> bool {
    matches!(errno, Errno::BADF | Errno::BADFD)
}

/// `BPF_OBJ_GET_INFO_BY_FD` does not name the kind, but each kind fills in its own struct.
pub fn by_info(fd: BorrowedFd<'_>) -> Option<Kind> {
    sys::info_head(fd).ok().and_then(judge)
}

/// Names a kind only where the struct's size and its content agree on it, for a
/// newer kernel's structs may be of any size.
#[inline]
fn judge(head: sys::InfoHead) -> Option<Kind> {
    match head {
        // The sizes of a program's func, line and jited line records: no other kind has them.
        sys::InfoHead {
            len: 208..,
            record_sizes: [8, 16, 8],
            ..
        } => Some(Kind::Prog),
        // Only a link has a hole after its third word.
        sys::InfoHead {
            len: 24..=64,
            r#type: 1..,
            id: 1..=MAX_ID,
            hole_kept: true,
            ..
        } => Some(Kind::Link),
        // Linux 5.4, 5.16 and 6.18. A program's was as long before 4.18.
        sys::InfoHead {
            len: 80 | 88 | 104,
            r#type: 1..=sys::LAST_MAP_TYPE,
            id: 1..=MAX_ID,
            hole_kept: false,
            middle_is_zero: true,
            ..
        } => Some(Kind::Map),
        _ => None,
    }
}

/// Ids are positive ints.
const MAX_ID: u32 = i32::MAX as u32;

/// Asks each kind's own commands, in forms that do nothing: the kernel looks at the
/// first descriptor's kind before it comes to what is wrong with the rest.
pub fn by_command(fd: BorrowedFd<'_>) -> Option<Kind> {
    // What is no descriptor to bpf(2) at all is EBADF to the commands below, too.
    sys::info_head(fd).ok()?;
    let map = answers_as_map(fd);
    let answers = (sys::prog_bind_no_map(fd), sys::link_update_no_prog(fd));
    match answers {
        (Errno::INVAL, Errno::INVAL) if map => Some(Kind::Map),
        (Errno::BADF, Errno::INVAL) if !map => Some(Kind::Prog),
        (Errno::INVAL, Errno::BADF) if !map => Some(Kind::Link),
        _ => None,
    }
}

/// A batch of no elements succeeds on every map whose type has batches and is
/// ENOTSUPP on all others; what is no map never gets that far.
#[inline]
fn answers_as_map(fd: BorrowedFd<'_>) -> bool {
    let yes = |answer| matches!(answer, Ok(()) | Err(sys::ENOTSUPP));
    match sys::map_lookup_empty_batch(fd) {
        Err(Errno::PERM) => yes(sys::map_update_empty_batch(fd)),
        answer => yes(answer),
    }
}

/// The name of the descriptor's anonymous inode.
pub fn by_proc(fd: BorrowedFd<'_>) -> Option<Kind> {
    by_name(&describe(fd)?)
}

fn by_name(name: &str) -> Option<Kind> {
    match name {
        "anon_inode:bpf-map" => Some(Kind::Map),
        "anon_inode:bpf-prog" => Some(Kind::Prog),
        // Spelled one way when created, the other when opened.
        "anon_inode:bpf-link" | "anon_inode:bpf_link" => Some(Kind::Link),
        _ => None,
    }
}

/// What /proc calls a descriptor: a path, or "anon_inode:…". None without /proc.
pub(crate) fn describe(fd: BorrowedFd<'_>) -> Option<String> {
    proc_name(fd).ok()?
}

/// The same, and an errno where that cannot be said for want of a descriptor or of memory.
pub(crate) fn proc_name(fd: BorrowedFd<'_>) -> Result<Option<String>, Errno> {
    let Some(descriptors) = genuine_proc("fd")? else {
        return Ok(None);
    };
    let name = readlinkat(descriptors, fd.as_raw_fd().to_string(), Vec::new())?;
    Ok(Some(name.to_string_lossy().into_owned()))
}

/// What /proc tells of a descriptor, line by line. None without /proc.
pub(crate) fn fdinfo(fd: BorrowedFd<'_>) -> Option<String> {
    let name = fd.as_raw_fd().to_string();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(proc_dir("fdinfo")?, name, flags, Mode::empty()).ok()?;
    std::io::read_to_string(File::from(file)).ok()
}

/// A directory of this thread's descriptors, which need not be the process's, in a genuine /proc.
pub(crate) fn proc_dir(name: &str) -> Option<OwnedFd> {
    genuine_proc(name).ok()?
}

/// The same; without a descriptor to spare nothing can be said of /proc.
pub(crate) fn genuine_proc(name: &str) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = format!("/proc/thread-self/{name}");
    let dir = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(errno),
        Err(_) => return Ok(None),
        Ok(dir) => dir,
    };
    let found = fstatfs(&dir).map(|stat| FileSystem::from_stat(&stat));
    Ok((found == Ok(FileSystem::PROC)).then_some(dir))
}

#[cfg(test)]
mod tests {
    use super::{Kind, judge};
    use crate::sys::InfoHead;

    fn head(len: u32, hole_kept: bool, record_sizes: [u32; 3]) -> InfoHead {
        InfoHead {
            len,
            r#type: 1,
            id: 1,
            middle_is_zero: true,
            hole_kept,
            record_sizes,
        }
    }

    #[test]
    fn every_size_a_kernel_has_had_is_judged() {
        for len in [80, 88, 104] {
            assert_eq!(judge(head(len, false, [0; 3])), Some(Kind::Map));
        }
        for len in [208, 216, 224, 232, 256] {
            assert_eq!(judge(head(len, false, [8, 16, 8])), Some(Kind::Prog));
        }
        for len in [32, 48, 64] {
            assert_eq!(judge(head(len, true, [0; 3])), Some(Kind::Link));
        }
    }

    #[test]
    fn a_struct_that_grew_into_anothers_size_is_not_judged() {
        // A link as long as a map, a program, or neither.
        for len in [72, 80, 88, 96, 104, 208, 232, 256] {
            assert_eq!(judge(head(len, true, [0; 3])), None, "link of {len}");
        }
        // A map as long as a program, or of a size unknown today.
        for len in [112, 120, 208, 216, 232, 256] {
            assert_eq!(judge(head(len, false, [0; 3])), None, "map of {len}");
        }
        // A program's struct of Linux 4.15 to 4.17 is as long as a map's.
        for len in [80, 104] {
            let old = InfoHead {
                middle_is_zero: false,
                ..head(len, false, [0; 3])
            };
            assert_eq!(judge(old), None, "program of {len}");
        }
        // BTF and token objects, on every kernel that has them.
        for len in [16, 32] {
            assert_eq!(judge(head(len, false, [0; 3])), None, "btf of {len}");
        }
    }
}
