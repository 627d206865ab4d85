//! From an errno to its cause. Runs after a failure only, names only what it has seen.

mod mount;
mod path;
mod privilege;

pub(crate) use mount::{attach, mount, mount_namespace};
pub(crate) use path::{open, pin, unpin, walk};
pub(crate) use privilege::{
    for_bpf, for_helper, for_id, for_link, for_map, for_prog, memlock, missing,
};
