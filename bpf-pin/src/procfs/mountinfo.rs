//! Parses mountinfo.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::makedev;

#[cfg(feature = "serde")]
use crate::types::serialize::text;

/// A mount: one line of `/proc/<pid>/mountinfo`.
///
/// The fields have the names of proc(5). The kernel's escapes are decoded, except in
/// [`options`](Self::options) and [`super_options`](Self::super_options).
///
/// # Examples
///
/// ```no_run
/// for mount in bpf_pin::Bpffs::mounts()? {
///     println!("{} from {:?}", mount.mount_point.display(), mount.source);
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// # References
///
/// [proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html),
/// fs/proc_namespace.c: `show_mountinfo`
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Mount {
    /// The id, unique among the mounts that exist. The kernel reuses ids.
    pub mount_id: u64,
    /// The id of the mount that it is mounted on. The topmost mount has its own id here.
    pub parent_id: u64,
    /// The `st_dev` of the file system, which identifies the instance.
    pub dev: u64,
    /// The directory of the file system that is mounted: "/", or the directory that was bind-mounted.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub root: PathBuf,
    /// The path where it is mounted, from this process's root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub mount_point: PathBuf,
    /// The options of the mount, separated by commas, with the kernel's escapes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub options: OsString,
    /// How mounts and unmounts below it propagate.
    pub propagation: Propagation,
    /// The type, such as "bpf" or "fuse.sshfs".
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub fs_type: OsString,
    /// The source given to mount(2). For a bpffs it can be any text.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub source: OsString,
    /// The options of the file system, which all its mounts share, in the format of [`options`](Self::options).
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub super_options: OsString,
}

/// How mounts and unmounts propagate between mounts.
///
/// # References
///
/// [mount_namespaces(7)](https://man7.org/linux/man-pages/man7/mount_namespaces.7.html)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Propagation {
    /// `shared`: the peer group that it exchanges events with.
    pub shared: Option<u64>,
    /// `master`: the peer group that it receives events from.
    pub master: Option<u64>,
    /// `propagate_from`: the nearest group above `master` that this process can see.
    pub propagate_from: Option<u64>,
    /// `unbindable`: private, and cannot be bind-mounted.
    pub unbindable: bool,
}

impl Propagation {
    /// Returns `true` if the mount neither receives nor sends events.
    pub fn is_private(self) -> bool {
        self.shared.is_none() && self.master.is_none()
    }
}

impl Mount {
    /// Returns `true` if its type is "bpf". The source does not depend on the type.
    pub fn is_bpffs(&self) -> bool {
        self.fs_type == BPF
    }

    /// The value of an option of the file system: "700" for "mode=700", empty for "ro".
    pub fn super_option(&self, name: &str) -> Option<OsString> {
        option(&self.super_options, name)
    }

    /// The value of an option of the mount.
    pub fn option(&self, name: &str) -> Option<OsString> {
        option(&self.options, name)
    }

    /// Returns `true` if this mount or the file system has `ro`.
    pub fn is_read_only(&self) -> bool {
        self.option("ro").is_some() || self.super_option("ro").is_some()
    }

    /// Returns `true` if this mount has `nosuid`.
    pub fn is_nosuid(&self) -> bool {
        self.option("nosuid").is_some()
    }

    /// Returns `true` if this mount has `nodev`.
    pub fn is_nodev(&self) -> bool {
        self.option("nodev").is_some()
    }

    /// Returns `true` if this mount has `noexec`.
    pub fn is_noexec(&self) -> bool {
        self.option("noexec").is_some()
    }

    /// Returns `true` if this mount has `nosymfollow`: the kernel follows no symbolic links in it.
    pub fn is_nosymfollow(&self) -> bool {
        self.option("nosymfollow").is_some()
    }

    /// The mode of a bpffs's root without the sticky bit: 0o777 if mountinfo has no `mode`. `None` for another
    /// file system.
    pub fn mode(&self) -> Option<u32> {
        if !self.is_bpffs() {
            return None;
        }
        match self.super_option("mode") {
            Some(mode) => u32::from_str_radix(mode.to_str()?, 8).ok(),
            None => Some(0o777),
        }
    }

    /// Parses a line, or returns `None` if it is malformed.
    #[doc(hidden)]
    pub fn parse(line: &[u8]) -> Option<Self> {
        Line::parse(line).map(|line| line.to_mount())
    }

    /// Parses all lines that are not malformed.
    #[doc(hidden)]
    pub fn parse_all(mut source: impl Read) -> io::Result<Vec<Self>> {
        let mut text = Vec::new();
        source.read_to_end(&mut text)?;
        Ok(lines(&text).map(|line| line.to_mount()).collect())
    }
}

/// The lines of mountinfo that are not malformed.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(Line::parse)
}

pub(crate) const BPF: &str = "bpf";

fn option(options: &OsStr, name: &str) -> Option<OsString> {
    let mut options = options.as_bytes().split(|&byte| byte == b',');
    options.find_map(|option| match option.strip_prefix(name.as_bytes())? {
        [] => Some(OsString::new()),
        [b'=', value @ ..] => Some(unescape(value)),
        _ => None,
    })
}

/// The fields of a line of mountinfo, still escaped.
pub(crate) struct Line<'a> {
    pub(crate) mount_id: u64,
    pub(crate) parent_id: u64,
    dev: u64,
    root: &'a [u8],
    mount_point: &'a [u8],
    options: &'a [u8],
    propagation: Propagation,
    fs_type: &'a [u8],
    source: &'a [u8],
    super_options: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        // Any field may be empty. The last one may hold spaces that the file system did not escape.
        let mut rest = Some(line);
        let mut next = || {
            let (field, after) = split_at(rest?, b' ');
            rest = after;
            Some(field)
        };
        let (mount_id, parent_id) = (number(next()?)?, number(next()?)?);
        let (major, minor) = split_at(next()?, b':');
        let (major, minor) = (number(major)?, number(minor?)?);
        let dev = makedev(major.try_into().ok()?, minor.try_into().ok()?);
        let (root, mount_point, options) = (next()?, next()?, next()?);
        let mut propagation = Propagation::default();
        loop {
            match next()? {
                b"-" => break,
                b"unbindable" => propagation.unbindable = true,
                field => match split_at(field, b':') {
                    (b"shared", Some(group)) => propagation.shared = number(group),
                    (b"master", Some(group)) => propagation.master = number(group),
                    (b"propagate_from", Some(group)) => propagation.propagate_from = number(group),
                    // proc(5) requires to ignore unknown fields.
                    _ => {}
                },
            }
        }
        let (fs_type, source) = (next()?, next()?);
        Some(Self {
            mount_id,
            parent_id,
            dev,
            root,
            mount_point,
            options,
            propagation,
            fs_type,
            source,
            super_options: rest?,
        })
    }

    pub(crate) fn is_bpffs(&self) -> bool {
        self.fs_type == BPF.as_bytes()
    }

    pub(crate) fn mount_point(&self) -> Cow<'a, Path> {
        if self.mount_point.contains(&b'\\') {
            PathBuf::from(unescape(self.mount_point)).into()
        } else {
            Path::new(OsStr::from_bytes(self.mount_point)).into()
        }
    }

    pub(crate) fn is_mounted_at(&self, path: &Path) -> bool {
        self.mount_point().as_os_str() == path.as_os_str()
    }

    pub(crate) fn to_mount(&self) -> Mount {
        let raw = |bytes| OsStr::from_bytes(bytes).to_owned();
        Mount {
            mount_id: self.mount_id,
            parent_id: self.parent_id,
            dev: self.dev,
            root: unescape(self.root).into(),
            mount_point: unescape(self.mount_point).into(),
            options: raw(self.options),
            propagation: self.propagation,
            fs_type: unescape(self.fs_type),
            source: unescape(self.source),
            super_options: raw(self.super_options),
        }
    }
}

fn split_at(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&byte| byte == separator) {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    }
}

/// Parses decimal digits, without the sign that `parse` would accept.
fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

/// Decodes octal escapes such as `\040`.
fn unescape(text: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal = after.first_chunk().filter(|_| *first == b'\\').copied();
        let (byte, after) = match octal {
            Some([a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7']) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), &after[3..])
            }
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    OsString::from_vec(bytes)
}
