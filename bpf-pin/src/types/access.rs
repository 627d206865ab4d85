//! The access mode of an open object: the `file_flags` of `BPF_OBJ_GET`.

use std::fmt;

use bpf_pin_sys as abi;

/// The access mode that a pin is opened with. Linux 4.15; older kernels have only
/// [`ReadWrite`](Self::ReadWrite).
///
/// It restricts the descriptor, not the user: the owner of the pin may open it again with another mode.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Access, Map};
///
/// let flows = Map::open_with("/sys/fs/bpf/flows", Access::ReadOnly)?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// Reads and writes elements. The only mode that links support.
    #[default]
    ReadWrite,
    /// `BPF_F_RDONLY`: needs read permission only; the elements of a map cannot be changed.
    ReadOnly,
    /// `BPF_F_WRONLY`: needs write permission only; the elements of a map cannot be read.
    WriteOnly,
}

impl Access {
    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::ReadWrite => 0,
            Self::ReadOnly => abi::BPF_F_RDONLY,
            Self::WriteOnly => abi::BPF_F_WRONLY,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadWrite => "for reading and writing",
            Self::ReadOnly => "for reading only",
            Self::WriteOnly => "for writing only",
        })
    }
}
