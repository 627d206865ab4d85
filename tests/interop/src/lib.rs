//! Helpers of the interop tests and examples: objects to load, and a bpffs that child processes see.

mod btf;
mod count;
mod elf;
mod place;
pub mod story;

pub use count::{count_of, counter, counting, test_run};
pub use elf::{Counter, Maps};
pub use place::{file, mounted, output, send_packets, tool};

/// Set if the build found the header and the library of libbpf.
pub const LIBBPF: common::Need = common::Need::Built(cfg!(libbpf), "gcc and Debian's libbpf-dev");

/// Set if that libbpf has bpf_obj_pin_opts with path_fd.
pub const LIBBPF_PATH_FD: common::Need = common::Need::Release(
    cfg!(libbpf_path_fd),
    "libbpf 1.3 or later: bpf_obj_pin_opts with path_fd",
);

/// A C program that uses Debian's libbpf.
pub const CLIENT: &str = env!("CLIENT");

/// The same program, linked with the libbpf that libbpf-rs builds.
pub const CLIENT_OF_LIBBPF_RS: &str = env!("CLIENT_OF_LIBBPF_RS");

/// Set in a build with libbpf-rs.
pub const LIBBPF_RS: common::Need = common::Need::Built(
    cfg!(feature = "libbpf-rs"),
    "--features libbpf-rs, and gcc, make, pkg-config, libelf-dev and zlib1g-dev",
);

/// Defines tests that the build lacks the requirements for, so that they are skipped and counted.
#[macro_export]
macro_rules! skipped {
    ($($name:ident)*) => {$(
        pub fn $name() -> common::Outcome {
            unreachable!("it is skipped")
        }
    )*};
}
