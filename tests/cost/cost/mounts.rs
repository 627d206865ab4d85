//! The cost of reading mounts.

use std::mem::forget;

use bpf_pin::{Bpffs, Map};

use super::Measured;

/// These allocate what they return. Successive reads of one file count as one.
pub const MEASURED: &[Measured] = measured! {
    // Opened, verified, and read while nothing changes.
    mounts => &["open", "fstatfs", "read", "poll", "close"], |fixture| { &fixture.map }
        |_: &Map| forget(Bpffs::mounts().unwrap());
};

/// A mount that is listed nowhere: statmount(2), which has no name here, fails, and then all mounts are
/// read. Since Linux 6.8 mounts have ids that are never reused.
pub const ONE_MOUNT: &[Measured] = measured! {
    mount_of => &[
            "open", "fstatfs", "statx", "prctl", "statx", "read", "poll", "statx", "close",
        ],
        |fixture| { Bpffs::at(fixture.fs.root()).unwrap() }
        |bpffs: Bpffs| { forget(bpffs.mount().unwrap_err()); forget(bpffs) };
};

/// As [`ONE_MOUNT`], on older kernels.
pub const ONE_MOUNT_BEFORE_6_8: &[Measured] = measured! {
    mount_of => &["open", "fstatfs", "statx", "read", "poll", "statx", "close"],
        |fixture| { Bpffs::at(fixture.fs.root()).unwrap() }
        |bpffs: Bpffs| { forget(bpffs.mount().unwrap_err()); forget(bpffs) };
};
