//! The mounts that a thread sees, and which of them a path leads through.

mod directory;
pub(crate) mod statmount;
mod table;

pub(crate) use directory::{Directory, fdinfo, from_root, magic_link, mount_id, mount_of, path_of};
pub(crate) use table::{MountInfo, Row, Table, of_process_1};
