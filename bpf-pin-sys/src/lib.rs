//! The Linux bpf(2) ABI.
#![no_std]

#[macro_use]
mod abi;

mod attr;
mod cmd;
mod flags;
mod info;
mod insn;
mod magic;
mod syscall;
mod types;

pub use abi::*;
pub use attr::*;
pub use cmd::*;
pub use flags::*;
pub use info::*;
pub use insn::*;
pub use magic::*;
pub use syscall::*;
pub use types::*;
