//! For what an object is opened: the `file_flags` of `BPF_OBJ_GET`.

use std::fmt;

use bpf_pin_sys as abi;

/// For what a pin is opened. Linux 4.15; before that only for both.
///
/// It restrains the descriptor, not the user: whoever owns the pin may open it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// To read and write elements. The only one that a link takes.
    #[default]
    ReadWrite,
    /// `BPF_F_RDONLY`: only read permission is asked for; of a map's elements none can be changed.
    ReadOnly,
    /// `BPF_F_WRONLY`: only write permission is asked for; of a map's elements none can be read.
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
