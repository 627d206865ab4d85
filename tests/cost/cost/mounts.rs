//! What it costs to see which mounts there are.

use std::mem::forget;

use bpf_pin::{Bpffs, Map};

use super::Measured;

/// These give what they allocate; one after the other, the readings of one file are one.
pub const MEASURED: &[Measured] = measured! {
    // Opened, proven, and read while nothing changed.
    mounts => &["open", "fstatfs", "read", "poll", "close"], |scene| { &scene.map }
        |_: &Map| forget(Bpffs::mounts().unwrap());
};

/// Of one that is listed nowhere: statmount(2), which has no name here, is asked in vain, and then all
/// are read. Linux 6.8 has ids of mounts that are never used again.
pub const OF_ONE: &[Measured] = measured! {
    mount_of => &[
            "open", "fstatfs", "statx", "prctl", "statx", "read", "poll", "statx", "close",
        ],
        |scene| { Bpffs::at(scene.fs.root()).unwrap() }
        |bpffs: Bpffs| { forget(bpffs.mount().unwrap_err()); forget(bpffs) };
};

/// As [`OF_ONE`], before.
pub const OF_ONE_BEFORE: &[Measured] = measured! {
    mount_of => &["open", "fstatfs", "statx", "read", "poll", "statx", "close"],
        |scene| { Bpffs::at(scene.fs.root()).unwrap() }
        |bpffs: Bpffs| { forget(bpffs.mount().unwrap_err()); forget(bpffs) };
};
