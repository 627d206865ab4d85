//! Finds the cause behind an errno. Runs only after a failure, and reports only a cause that it has checked.

mod access;
#[cfg(feature = "link")]
mod link;
mod memlock;
mod mount;
mod path;
mod privilege;
mod shadowed;

#[cfg(feature = "link")]
pub(crate) use link::{
    for_attach_type, for_cgroup, for_device, for_prog_of_link, for_removed_cgroup, for_tracepoint,
    for_tracepoint_cookie, for_xdp, for_xdp_update,
};
pub(crate) use memlock::{memlock, memlock_is_charged};
pub(crate) use mount::{attach, missing_call, mount, mount_namespace};
pub(crate) use path::{directory, find, list, make, open, open_dir, pin, unpin, walk};
pub(crate) use privilege::{
    for_bpf, for_btf, for_helper, for_id, for_link, for_map, for_next_id, for_prog, for_query,
    missing, no_such_id,
};
pub(crate) use shadowed::not_bpffs;
