//! The same operations by path: in the directory that the path leads to, under its last name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::dir::PinDir;
use crate::error::{Cause, Result};
use crate::link::LinkSpec;
use crate::map::MapSpec;
use crate::object::Prog;
use crate::object::open_error;
use crate::object::{PinnedLink, PinnedMap};
use crate::path::Pathname;

use super::{Attached, OpenedMap, Reuse};

impl PinnedMap {
    /// Opens the map pinned at `path` if it fits `spec`, and otherwise does what `reuse` says: see
    /// [`PinDir::open_or_create`].
    ///
    /// Symbolic links in the path are followed, except for its last name, which is the pin's own. Each call
    /// opens the directory, so a [`PinDir`] is cheaper for several maps.
    ///
    /// # Errors
    ///
    /// - As [`PinDir::open_or_create`].
    /// - As [`open`](Self::open), if the directory cannot be opened.
    /// - [`InvalidPath`](Cause::InvalidPath), without a syscall.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::reuse::Reuse;
    /// use bpf_pin::{MapSpec, MapType, PinnedMap};
    ///
    /// let spec = MapSpec::new(MapType::HASH, 4, 8, 1024);
    /// let opened = PinnedMap::open_or_create("/sys/fs/bpf/flows", &spec, Reuse::Exact)?;
    /// println!("{}: {:?}", opened.map.path().display(), opened.outcome);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_or_create(
        path: impl AsRef<Path>,
        spec: &MapSpec<'_>,
        reuse: Reuse<'_, '_>,
    ) -> Result<OpenedMap<Self>> {
        let (dir, name, pathname) = split(path.as_ref())?;
        let opened = dir.open_or_create(name, spec, reuse)?;
        Ok(OpenedMap {
            map: Self::from_parts(opened.map, pathname),
            outcome: opened.outcome,
            unverified: opened.unverified,
        })
    }
}

impl PinnedLink {
    /// Opens the link pinned at `path` and makes it hold `prog`, or attaches `prog` and pins the link: see
    /// [`PinDir::open_or_attach`].
    ///
    /// Symbolic links in the path are followed, except for its last name, which is the pin's own.
    ///
    /// # Errors
    ///
    /// - As [`PinDir::open_or_attach`].
    /// - As [`open`](Self::open), if the directory cannot be opened.
    /// - [`InvalidPath`](Cause::InvalidPath), without a syscall.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{LinkSpec, PinnedLink, Prog};
    ///
    /// let prog = Prog::open("/sys/fs/bpf/filter")?;
    /// let attached = PinnedLink::open_or_attach("/sys/fs/bpf/xdp_eth0", &LinkSpec::xdp(2), &prog)?;
    /// println!("{}: {:?}", attached.link.path().display(), attached.attachment);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_or_attach(
        path: impl AsRef<Path>,
        spec: &LinkSpec<'_>,
        prog: &Prog,
    ) -> Result<Attached<Self>> {
        let (dir, name, pathname) = split(path.as_ref())?;
        let attached = dir.open_or_attach(name, spec, prog)?;
        Ok(attached.map(|link| Self::from_parts(link, pathname)))
    }
}

/// Opens the directory of a path. Returns it, the name in it and the whole path.
fn split(path: &Path) -> Result<(PinDir, &OsStr, Pathname)> {
    // Errors name the pin's path, as those of any other open.
    let fail = |reason| open_error(path, reason);
    let pathname = Pathname::new(path).map_err(|nul| fail(nul.into()))?;
    let bytes = path.as_os_str().as_bytes();
    let (parent, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
        None => (&b"."[..], bytes),
        Some(0) => (&b"/"[..], &bytes[1..]),
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
    };
    match (bytes, name) {
        ([], _) => return Err(fail(Cause::empty_path().into())),
        (_, []) => return Err(fail(Cause::trailing_slash().into())),
        _ => {}
    }
    let dir = PinDir::open_path(Path::new(OsStr::from_bytes(parent))).map_err(fail)?;
    Ok((dir, OsStr::from_bytes(name), pathname))
}
