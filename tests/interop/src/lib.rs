//! What the tests and examples beside other loaders stand on: objects to load, and a bpffs that
//! other processes can see.

mod btf;
mod count;
mod elf;
mod place;
pub mod story;

pub use count::{count_of, counter, counting, test_run};
pub use elf::{Counter, Maps};
pub use place::{file, mounted, output, send_packets, tool};

/// Whether libbpf's header and library were there when this was built.
pub const LIBBPF: common::Need = common::Need::Built(cfg!(libbpf), "gcc and Debian's libbpf-dev");

/// Whether that libbpf has bpf_obj_pin_opts with path_fd.
pub const LIBBPF_PATH_FD: common::Need = common::Need::Release(
    cfg!(libbpf_path_fd),
    "libbpf 1.3 or later: bpf_obj_pin_opts with path_fd",
);

/// A C program that uses Debian's libbpf.
pub const CLIENT: &str = env!("CLIENT");

/// The same, with the libbpf that libbpf-rs has built.
pub const CLIENT_OF_LIBBPF_RS: &str = env!("CLIENT_OF_LIBBPF_RS");

/// Whether this was built with libbpf-rs.
pub const LIBBPF_RS: common::Need = common::Need::Built(
    cfg!(feature = "libbpf-rs"),
    "--features libbpf-rs, and gcc, make, pkg-config, libelf-dev and zlib1g-dev",
);

/// Tests that are skipped in a build without what they need, so that they are counted.
#[macro_export]
macro_rules! skipped {
    ($($name:ident)*) => {$(
        pub fn $name() -> common::Outcome {
            unreachable!("it is skipped")
        }
    )*};
}
