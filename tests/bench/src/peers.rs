//! What other libraries make of the same work. The path or the map is the row's, the way is theirs.

use std::path::{Path, PathBuf};

use bpf_pin::{Kind, Map};

use crate::pairs::Contender;

mod aya;
#[cfg(feature = "libbpf-rs")]
mod libbpf;
#[cfg(feature = "libbpf-rs")]
mod libbpf_rs;

/// Who is to be beaten, where they were built in.
pub const NAMES: &[&str] = &["aya", "libbpf-rs"];

macro_rules! of_each {
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

of_each! {
    open_map(path: &'s Path);
    open_prog(path: &'s Path);
    open_link(path: &'s Path);
    /// Pins and unpins.
    pin(map: &Map, path: &'s Path);
    lookup(map: &'s Map, key: u32);
    update(map: &'s Map, key: u32);
    /// All of a map whose values have this sum.
    read(map: &'s Map, sum: u64);
    fill(map: &'s Map, keys: &'s [u32], values: &'s [u64]);
    /// Maps and links.
    open_all(pins: &'s [(Kind, PathBuf)]);
    /// Looks for each pin, and makes a map and pins it, as it is not there; then `undo`, unmeasured.
    make_all(paths: &'s [PathBuf], undo: &'s dyn Fn());
}
