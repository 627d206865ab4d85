//! The same by a path: in the directory that it leads to, under its last name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::dir::PinDir;
use crate::error::{Cause, Result};
use crate::link::LinkSpec;
use crate::map::MapSpec;
use crate::object::open_error;
use crate::object::{PinnedLink, PinnedMap};
use crate::path::Pathname;
use crate::prog::Prog;

use super::{Attached, OpenedMap, Reuse};

impl PinnedMap {
    /// As [`PinDir::open_or_create`], in the directory that the path leads to.
    ///
    /// A symbolic link in the path is followed, but for the last name, which is the pin's own. For more
    /// than one map a [`PinDir`] is cheaper: here each call opens the directory.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_or_create`]; as [`open`](Self::open) if the directory cannot be opened;
    /// [`InvalidPath`](Cause::InvalidPath), without a syscall.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::reuse::Reuse;
    /// use bpf_pin::{MapSpec, MapType, PinnedMap};
    ///
    /// let spec = MapSpec::new(MapType::HASH, 4, 8, 1024);
    /// let reused = PinnedMap::open_or_create("/sys/fs/bpf/flows", &spec, Reuse::Exact)?;
    /// println!("{}: {:?}", reused.map.path().display(), reused.outcome);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_or_create(
        path: impl AsRef<Path>,
        spec: &MapSpec<'_>,
        reuse: Reuse<'_, '_>,
    ) -> Result<OpenedMap<Self>> {
        let (dir, name, pathname) = parted(path.as_ref())?;
        let OpenedMap { map, outcome } = dir.open_or_create(name, spec, reuse)?;
        Ok(OpenedMap {
            map: Self::from_parts(map, pathname),
            outcome,
        })
    }
}

impl PinnedLink {
    /// As [`PinDir::open_or_attach`], of the directory that the path leads to. What that does not compare
    /// with a link that is there is not compared here.
    ///
    /// A symbolic link in the path is followed, but for the last name, which is the pin's own.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_or_attach`]; as [`open`](Self::open) if the directory cannot be opened;
    /// [`InvalidPath`](Cause::InvalidPath), without a syscall.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{LinkSpec, PinnedLink, Prog};
    ///
    /// // Loaded with `expected_attach_type(AttachType::XDP)`, as all that are to follow it.
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
        let (dir, name, pathname) = parted(path.as_ref())?;
        let Attached { link, attachment } = dir.attach_at(name, spec, prog)?;
        Ok(Attached {
            link: Self::from_parts(link, pathname),
            attachment,
        })
    }
}

/// The directory, the name in it, and the whole.
fn parted(path: &Path) -> Result<(PinDir, &OsStr, Pathname)> {
    let pathname = Pathname::new(path).map_err(|nul| open_error(path, nul.into()))?;
    let bytes = path.as_os_str().as_bytes();
    let (parent, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
        None => (&b"."[..], bytes),
        Some(0) => (&b"/"[..], &bytes[1..]),
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
    };
    if name.is_empty() {
        let cause = match bytes {
            [] => Cause::empty_path(),
            _ => Cause::trailing_slash(),
        };
        return Err(open_error(path, cause.into()));
    }
    // Reported for the pin, as every other open of its path does.
    let dir = PinDir::open_path(Path::new(OsStr::from_bytes(parent)))
        .map_err(|reason| open_error(path, reason))?;
    Ok((dir, OsStr::from_bytes(name), pathname))
}
