//! Errnos by name.

use std::fmt;

use rustix::io::Errno;

use crate::sys::ENOTSUPP;

/// An errno by its name.
pub(crate) struct Name(pub(crate) i32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(Errno::from_raw_os_error(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// The names of the errnos that bpf(2) and the calls around it return.
fn name(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::PERM => "EPERM",
        Errno::NOENT => "ENOENT",
        Errno::SRCH => "ESRCH",
        Errno::INTR => "EINTR",
        Errno::IO => "EIO",
        Errno::NXIO => "ENXIO",
        Errno::TOOBIG => "E2BIG",
        Errno::BADF => "EBADF",
        Errno::AGAIN => "EAGAIN",
        Errno::NOMEM => "ENOMEM",
        Errno::ACCESS => "EACCES",
        Errno::FAULT => "EFAULT",
        Errno::BUSY => "EBUSY",
        Errno::EXIST => "EEXIST",
        Errno::XDEV => "EXDEV",
        Errno::NODEV => "ENODEV",
        Errno::MLINK => "EMLINK",
        Errno::NOTEMPTY => "ENOTEMPTY",
        Errno::NOTDIR => "ENOTDIR",
        Errno::ISDIR => "EISDIR",
        Errno::INVAL => "EINVAL",
        Errno::NFILE => "ENFILE",
        Errno::MFILE => "EMFILE",
        Errno::NOSPC => "ENOSPC",
        Errno::ROFS => "EROFS",
        Errno::PIPE => "EPIPE",
        Errno::RANGE => "ERANGE",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NOSYS => "ENOSYS",
        Errno::LOOP => "ELOOP",
        Errno::NOLINK => "ENOLINK",
        Errno::OVERFLOW => "EOVERFLOW",
        Errno::BADFD => "EBADFD",
        Errno::NOTSOCK => "ENOTSOCK",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::AFNOSUPPORT => "EAFNOSUPPORT",
        Errno::CONNRESET => "ECONNRESET",
        Errno::STALE => "ESTALE",
        Errno::BADMSG => "EBADMSG",
        Errno::NOKEY => "ENOKEY",
        Errno::KEYEXPIRED => "EKEYEXPIRED",
        Errno::KEYREVOKED => "EKEYREVOKED",
        Errno::KEYREJECTED => "EKEYREJECTED",
        Errno::DQUOT => "EDQUOT",
        ENOTSUPP => "ENOTSUPP",
        _ => return None,
    })
}
