//! Proves the kind of a descriptor: by its info, by the commands of each kind, or by its name in /proc.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::error::{Cause, Reason};
use crate::procfs;
use crate::sys::{self, InfoBuf};

pub(crate) use crate::types::{Identity, Kind};

/// A descriptor of a proven kind. Only this module creates one.
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

/// Why a descriptor was not proven to be of the expected kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProofError {
    /// It was proven to be of this other kind.
    Other(Kind),
    /// It was proven to be of no kind. Holds its name in /proc, if that could be read.
    NotBpf(Option<String>),
    /// Nothing was proven: the kernel is too new for one proof, and the other proofs are denied. Holds the
    /// errno of `BPF_OBJ_GET_INFO_BY_FD`, if that failed.
    Unknown(Option<Errno>),
}

impl ProofError {
    /// The reason to report if `expected`, or any kind, was requested.
    #[cold]
    pub(crate) fn into_reason(self, expected: Option<Kind>) -> Reason {
        match (self, expected) {
            (Self::Other(found), Some(expected)) => Cause::WrongKind { expected, found }.into(),
            (Self::Other(_), None) => unproven(None),
            (Self::NotBpf(found), _) => {
                let expected = "a map, program or link";
                Cause::WrongDescriptor { expected, found }.into()
            }
            (Self::Unknown(errno), _) => unproven(errno),
        }
    }
}

fn unproven(errno: Option<Errno>) -> Reason {
    let info_errno = errno.map(Errno::raw_os_error);
    let cause = Cause::Unproven { info_errno };
    match errno {
        Some(errno) => Reason::new(errno, Some(cause)),
        None => cause.into(),
    }
}

/// Proves the expected kind, or any, with one system call. Returns the descriptor if that proves nothing.
#[inline]
pub(crate) fn prove_fast(fd: OwnedFd, expected: Option<Kind>) -> Result<Proven, OwnedFd> {
    let proven = match expected {
        Some(kind) => is_kind(fd.as_fd(), kind).then_some(kind),
        None => by_info(fd.as_fd()),
    };
    match proven {
        Some(kind) => Ok(Proven { fd, kind }),
        None => Err(fd),
    }
}

/// As [`prove_fast`], by the object's info, for a caller that needs the info as well.
#[inline]
pub(crate) fn prove_with_info<const WORDS: usize>(
    fd: OwnedFd,
    expected: Option<Kind>,
    info: &mut InfoBuf<WORDS>,
) -> Result<Proven, OwnedFd> {
    match info.fetch(fd.as_fd()).ok().and_then(classify) {
        Some(kind) if expected.is_none_or(|expected| expected == kind) => Ok(Proven { fd, kind }),
        _ => Err(fd),
    }
}

/// Proves the expected kind, or any.
pub(crate) fn prove(fd: OwnedFd, expected: Option<Kind>) -> Result<Proven, (OwnedFd, ProofError)> {
    prove_fast(fd, expected).or_else(|fd| prove_slow(fd, expected))
}

/// Proves what [`prove_fast`] did not prove.
#[cold]
pub(crate) fn prove_slow(
    fd: OwnedFd,
    expected: Option<Kind>,
) -> Result<Proven, (OwnedFd, ProofError)> {
    match find_kind(fd.as_fd()) {
        Ok(kind) if expected.is_none_or(|expected| expected == kind) => Ok(Proven { fd, kind }),
        Ok(kind) => Err((fd, ProofError::Other(kind))),
        Err(error) => Err((fd, error)),
    }
}

/// The kind and id of `fd`. An id of 0 is not valid.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Result<Identity, ProofError> {
    let head = match sys::info_head(fd) {
        Ok(head) => head,
        Err(errno) => {
            return Err(match find_kind(fd) {
                Err(error @ ProofError::NotBpf(_)) => error,
                _ => ProofError::Unknown(Some(errno)),
            });
        }
    };
    let kind = classify(head).map_or_else(|| find_kind(fd), Ok)?;
    match head.id {
        0 => Err(ProofError::Unknown(None)),
        id => Ok(Identity { kind, id }),
    }
}

/// Proves with one system call that `fd` is this object; false if that does not prove it.
#[inline]
pub(crate) fn is_object(fd: BorrowedFd<'_>, expected: Identity) -> bool {
    let Identity { kind, id } = expected;
    let head = match kind {
        Kind::Map => sys::map_head(fd),
        Kind::Prog => sys::info_head(fd),
        Kind::Link => sys::link_head(fd),
    };
    head.is_ok_and(|head| id != 0 && head.id == id && classify(head) == Some(kind))
}

/// Proves with one system call that `fd` is of this kind; false if that does not prove it.
#[inline]
fn is_kind(fd: BorrowedFd<'_>, kind: Kind) -> bool {
    match kind {
        // Independent of any struct's size, and the cheapest call on a map.
        Kind::Map => answers_as_map(fd),
        Kind::Prog => sys::info_head(fd).ok().and_then(classify) == Some(kind),
        Kind::Link => sys::link_head(fd).ok().and_then(classify) == Some(kind),
    }
}

/// The kind of `fd`: by its info, else by its answers to each kind's own commands, else by its name in
/// /proc.
pub(crate) fn find_kind(fd: BorrowedFd<'_>) -> Result<Kind, ProofError> {
    let head = sys::info_head(fd);
    if let Some(kind) = head.ok().and_then(classify).or_else(|| by_command(fd)) {
        return Ok(kind);
    }
    match (describe(fd), head.err()) {
        (Some(name), _) => kind_of_name(&name).ok_or(ProofError::NotBpf(Some(name))),
        // A kernel with this command returns EINVAL for a descriptor that is not a BPF object.
        (None, Some(Errno::INVAL)) if is_bad_fd(sys::probe_bpf_allowed()) => {
            Err(ProofError::NotBpf(None))
        }
        (None, errno) => Err(ProofError::Unknown(errno)),
    }
}

/// True for the errnos of `BPF_OBJ_GET_INFO_BY_FD` for a closed descriptor, or one opened with `O_PATH`.
fn is_bad_fd(errno: Errno) -> bool {
    matches!(errno, Errno::BADF | Errno::BADFD)
}

/// Proves the kind by `BPF_OBJ_GET_INFO_BY_FD`, which does not report it, but fills a struct of its own for each
/// kind.
#[inline]
pub fn by_info(fd: BorrowedFd<'_>) -> Option<Kind> {
    sys::info_head(fd).ok().and_then(classify)
}

/// Returns a kind only if the struct's size and its content agree, because a newer kernel's structs may have
/// any size. An answer of zeroes, which a seccomp filter can forge, proves nothing.
#[inline]
fn classify(head: sys::InfoHead) -> Option<Kind> {
    match head {
        // The sizes of func, line and jited line records: only a program has them.
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
        // The sizes of Linux 5.4, 5.16 and 6.18. Before 4.18 a program's struct had one of these sizes.
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

/// Proves the kind by calling each kind's own commands with invalid arguments, so that they have no effect. The
/// kernel checks the kind of the first descriptor before it rejects the other arguments.
pub fn by_command(fd: BorrowedFd<'_>) -> Option<Kind> {
    // The commands below also fail with EBADF if `fd` is not a BPF object. Every map, program and link has a
    // type, so type 0 means another object or a forged answer.
    if sys::info_head(fd).ok()?.r#type == 0 {
        return None;
    }
    let map = answers_as_map(fd);
    let answers = (sys::probe_prog(fd), sys::probe_link(fd));
    match answers {
        (Errno::INVAL, Errno::INVAL) if map => Some(Kind::Map),
        (Errno::BADF, Errno::INVAL) if !map => Some(Kind::Prog),
        (Errno::INVAL, Errno::BADF) if !map => Some(Kind::Link),
        _ => None,
    }
}

/// True if a batch of no elements shows that `fd` is a map: it succeeds if the map's type has batches, else it
/// fails with ENOTSUPP. Other objects fail earlier, with another errno.
#[inline]
fn answers_as_map(fd: BorrowedFd<'_>) -> bool {
    let is_map = |answer| matches!(answer, Ok(()) | Err(sys::ENOTSUPP));
    match sys::map_lookup_empty_batch(fd) {
        Err(Errno::PERM) => is_map(sys::map_update_empty_batch(fd)),
        answer => is_map(answer),
    }
}

/// Proves the kind by the name of the descriptor's anonymous inode in /proc.
pub fn by_proc(fd: BorrowedFd<'_>) -> Option<Kind> {
    kind_of_name(&describe(fd)?)
}

fn kind_of_name(name: &str) -> Option<Kind> {
    match name {
        "anon_inode:bpf-map" => Some(Kind::Map),
        "anon_inode:bpf-prog" => Some(Kind::Prog),
        // The name depends on whether the link was opened (bpf-link) or created (bpf_link).
        "anon_inode:bpf-link" | "anon_inode:bpf_link" => Some(Kind::Link),
        _ => None,
    }
}

/// The name of a descriptor in /proc. `None` without /proc.
fn describe(fd: BorrowedFd<'_>) -> Option<String> {
    Some(procfs::fd_name(fd).ok()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Kind, classify};
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
    fn every_size_a_kernel_has_had_is_classified() {
        for len in [80, 88, 104] {
            assert_eq!(classify(head(len, false, [0; 3])), Some(Kind::Map));
        }
        for len in [208, 216, 224, 232, 256] {
            assert_eq!(classify(head(len, false, [8, 16, 8])), Some(Kind::Prog));
        }
        for len in [32, 48, 64] {
            assert_eq!(classify(head(len, true, [0; 3])), Some(Kind::Link));
        }
    }

    #[test]
    fn a_struct_that_grew_into_anothers_size_is_not_classified() {
        // A link as long as a map, a program, or neither.
        for len in [72, 80, 88, 96, 104, 208, 232, 256] {
            assert_eq!(classify(head(len, true, [0; 3])), None, "link of {len}");
        }
        // A map as long as a program, or of a size unknown today.
        for len in [112, 120, 208, 216, 232, 256] {
            assert_eq!(classify(head(len, false, [0; 3])), None, "map of {len}");
        }
        // A program's struct of Linux 4.15 to 4.17 is as long as a map's.
        for len in [80, 104] {
            let old = InfoHead {
                middle_is_zero: false,
                ..head(len, false, [0; 3])
            };
            assert_eq!(classify(old), None, "program of {len}");
        }
        // BTF and token objects, on every kernel that has them.
        for len in [16, 32] {
            assert_eq!(classify(head(len, false, [0; 3])), None, "btf of {len}");
        }
    }

    #[test]
    fn an_answer_of_zeroes_is_of_no_kind() {
        for len in 0..=256 {
            for (hole_kept, middle_is_zero) in [(true, true), (false, true), (true, false)] {
                let zeroes = InfoHead {
                    r#type: 0,
                    id: 0,
                    middle_is_zero,
                    ..head(len, hole_kept, [0; 3])
                };
                assert_eq!(classify(zeroes), None, "zeroes of {len}");
            }
        }
    }
}
