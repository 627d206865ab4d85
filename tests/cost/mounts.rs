//! What it costs to see which mounts there are.

use std::mem::forget;

use bpf_pin::{Bpffs, Map};

use super::Measured;

/// These give what they allocate; one after the other, the readings of one file are one.
pub const MEASURED: &[Measured] = measured! {
    // Opened, proven, and read while nothing changed.
    mounts => &["open", "fstatfs", "read", "poll", "close"], |scene| { &scene.map }
        |_: &Map| forget(Bpffs::mounts().unwrap());
    mount_of => &["statx", "open", "fstatfs", "read", "poll", "close"],
        |scene| { Bpffs::at(scene.fs.root()).unwrap() }
        |bpffs: Bpffs| { forget(bpffs.mount().unwrap_err()); forget(bpffs) };
};
