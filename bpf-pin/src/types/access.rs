//! The access that an object is opened with: the `file_flags` of `BPF_OBJ_GET`.

use std::fmt;

use bpf_pin_sys as abi;

/// The access that a pin is opened with. Linux 4.15; older kernels have only
/// [`ReadWrite`](Self::ReadWrite).
///
/// It restricts the descriptor, not the user: the owner of the pin may open it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// Read and write elements. Links accept no other.
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
