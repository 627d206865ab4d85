//! The same work by other libraries, each with its own functions, on the row's path or map.

use std::path::{Path, PathBuf};

use bpf_pin::{Kind, Map};

use crate::pairs::Contender;

mod aya;
#[cfg(feature = "libbpf-rs")]
mod libbpf;
#[cfg(feature = "libbpf-rs")]
mod libbpf_rs;

/// The libraries that goals compare with, if they are in the build.
pub const NAMES: &[&str] = &["aya", "libbpf-rs"];

macro_rules! for_each_peer {
    ($($(#[$doc:meta])* $call:ident($($name:ident: $type:ty),*);)*) => {
        $($(#[$doc])*
        pub fn $call<'s>($($name: $type),*) -> Vec<Contender<'s>> {
            vec![
                aya::$call($($name),*),
                #[cfg(feature = "libbpf-rs")]
                libbpf_rs::$call($($name),*),
                #[cfg(feature = "libbpf-rs")]
                libbpf::$call($($name),*),
            ]
        })*
    };
}

for_each_peer! {
    open_map(path: &'s Path);
    open_prog(path: &'s Path);
    open_link(path: &'s Path);
    /// Pins and unpins.
    pin(map: &Map, path: &'s Path);
    lookup(map: &'s Map, key: u32);
    update(map: &'s Map, key: u32);
    /// Reads all elements of a map. Their values have this sum.
    read(map: &'s Map, sum: u64);
    fill(map: &'s Map, keys: &'s [u32], values: &'s [u64]);
    /// Opens maps and links.
    open_all(pins: &'s [(Kind, PathBuf)]);
    /// Tries to open each pin, which does not exist, then creates and pins a map. `undo` is not measured.
    make_all(paths: &'s [PathBuf], undo: &'s dyn Fn());
}
