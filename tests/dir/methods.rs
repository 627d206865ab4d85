//! All methods that take a name in a directory.

use std::ffi::OsStr;

use bpf_pin::{Access, Map, PinDir, Result};

use crate::helpers::{any_identity, any_map};

pub type Call = fn(&PinDir, &OsStr) -> Result<()>;

/// Each method with a description. "{}" is the name under test; "{pin}" and "{new}" are other
/// names.
#[rustfmt::skip]
pub const METHODS: &[(&str, Call)] = &[
    ("pin {}", |d, n| d.pin(&any_map(), n)),
    ("open {}", |d, n| d.get::<Map>(n).map(drop)),
    ("open {}", |d, n| d.get_with::<Map>(n, Access::ReadOnly).map(drop)),
    ("open {}", |d, n| d.get::<bpf_pin::Object>(n).map(drop)),
    ("open {}", |d, n| d.open_with_info(n).map(drop)),
    ("open {}", |d, n| d.identity(n).map(drop)),
    ("unpin {}", |d, n| d.unpin(&any_map(), n)),
    ("unpin {}", |d, n| d.unlink(n)),
    ("link {} as {new}", |d, n| d.link(n, "new")),
    ("link {pin} as {}", |d, n| d.link("pin", n)),
    ("rename {} to {new}", |d, n| d.rename(n, "new")),
    ("rename {pin} to {}", |d, n| d.rename("pin", n)),
    ("exchange {} and {pin}", |d, n| d.exchange(n, "pin")),
    ("exchange {pin} and {}", |d, n| d.exchange("pin", n)),
    ("open {}", |d, n| d.copy_to(n, d)),
    ("stat {}", |d, n| d.metadata(n).map(drop)),
    ("change the mode of {}", |d, n| d.set_mode(n, 0o600)),
    ("change the owner of {}", |d, n| d.set_owner(n, None, None)),
    ("open directory {}", |d, n| d.open_dir(n).map(drop)),
    ("create directory {}", |d, n| d.create_dir(n, 0o700).map(drop)),
    ("remove {}", |d, n| d.remove_dir(n)),
    ("remove {}", |d, n| d.remove_dir_all(n)),
    ("replace {}", |d, n| d.replace(&any_map(), n)),
    ("replace {}", |d, n| d.replace_keeping_mode(&any_map(), n)),
    ("replace {}", |d, n| d.replace_if(&any_map(), n, any_identity())),
    ("stage {}", |d, n| d.stage(n).map(drop)),
];
