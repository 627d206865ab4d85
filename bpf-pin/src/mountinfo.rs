//! mountinfo: the mounts of a mount namespace, as /proc tells them.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::iter;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::makedev;

use crate::sys::find_byte;

/// A line of `/proc/<pid>/mountinfo`: one mount.
///
/// The names are those of proc(5). Names and paths are bytes as they are, not as the kernel writes
/// them, but for [`options`](Self::options) and [`super_options`](Self::super_options).
///
/// # References
///
/// [proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html),
/// fs/proc_namespace.c: `show_mountinfo`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// Unique among the mounts that there are; given to another one later.
    pub mount_id: u64,
    /// The mount that it is mounted on, or itself at the top.
    pub parent_id: u64,
    /// The file system's `st_dev`: which instance it is.
    pub dev: u64,
    /// The directory of the file system that is mounted: "/", or where a bind mount begins.
    pub root: PathBuf,
    /// Where, from this process's root.
    pub mount_point: PathBuf,
    /// The options of the mount, with commas between and characters escaped as the kernel has it.
    pub options: OsString,
    /// What becomes of mounts and unmounts below it.
    pub propagation: Propagation,
    /// The type, as "bpf" or "fuse.sshfs".
    pub fs_type: OsString,
    /// What the one who mounted it gave: of a bpffs any words at all.
    pub source: OsString,
    /// The options of the file system, however often it is mounted; as [`options`](Self::options).
    pub super_options: OsString,
}

/// How a mount shares what is mounted below it.
///
/// # References
///
/// [mount_namespaces(7)](https://man7.org/linux/man-pages/man7/mount_namespaces.7.html)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Propagation {
    /// `shared`: the peer group that it exchanges them with.
    pub shared: Option<u64>,
    /// `master`: the peer group that it receives them from.
    pub master: Option<u64>,
    /// `propagate_from`: the nearest group above `master` that this process can see.
    pub propagate_from: Option<u64>,
    /// `unbindable`: private, and not to be bind-mounted.
    pub unbindable: bool,
}

impl Propagation {
    /// Whether nothing reaches it and nothing leaves it.
    pub fn is_private(self) -> bool {
        self.shared.is_none() && self.master.is_none()
    }
}

impl Mount {
    /// Whether it is of type "bpf". The source is anybody's guess.
    pub fn is_bpffs(&self) -> bool {
        self.fs_type == BPF
    }

    /// The value of an option of the file system: of "mode=700" for "mode" it is "700", of "ro" it
    /// is empty.
    pub fn super_option(&self, name: &str) -> Option<OsString> {
        option(self.super_options.as_bytes(), name)
    }

    /// The value of an option of the mount.
    pub fn option(&self, name: &str) -> Option<OsString> {
        option(self.options.as_bytes(), name)
    }

    /// `ro`: of this mount, or of the file system however often it is mounted.
    pub fn is_read_only(&self) -> bool {
        self.option("ro").is_some() || self.super_option("ro").is_some()
    }

    /// `nosuid`, of this mount.
    pub fn is_nosuid(&self) -> bool {
        self.option("nosuid").is_some()
    }

    /// `nodev`, of this mount.
    pub fn is_nodev(&self) -> bool {
        self.option("nodev").is_some()
    }

    /// `noexec`, of this mount.
    pub fn is_noexec(&self) -> bool {
        self.option("noexec").is_some()
    }

    /// `nosymfollow`, of this mount: no symbolic link in it is followed.
    pub fn is_nosymfollow(&self) -> bool {
        self.option("nosymfollow").is_some()
    }

    /// Of a bpffs, the permissions of its root, without the sticky bit: 0o777 where none are shown. None
    /// for another file system.
    pub fn mode(&self) -> Option<u32> {
        let shown = match self.is_bpffs() {
            true => self.super_option("mode"),
            false => return None,
        };
        match shown {
            Some(mode) => u32::from_str_radix(mode.to_str()?, 8).ok(),
            None => Some(0o777),
        }
    }

    /// Reads a line, or None where it is not of that form.
    #[doc(hidden)]
    pub fn parse(line: &[u8]) -> Option<Self> {
        Line::parse(line).map(|line| line.to_mount())
    }

    /// Reads all lines that are of that form.
    #[doc(hidden)]
    pub fn parse_all(mut source: impl Read) -> io::Result<Vec<Self>> {
        let mut mounts = Vec::new();
        each_line(&mut source, |line| mounts.extend(Self::parse(line)))?;
        Ok(mounts)
    }
}

/// Calls `each` with every line, of whatever length.
fn each_line(source: &mut dyn Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    each_piece(source, |text| lines(text).for_each(&mut each))
}

/// Calls `each` with whole lines, as many as were read at once, without the newline of the last.
pub(crate) fn each_piece(source: &mut dyn Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    /// The kernel gives a page of whole lines at once.
    const ROOM: usize = 8 << 10;

    let mut buffer = vec![0; ROOM];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(filled * 2, 0);
        }
        let count = match source.read(&mut buffer[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            if filled > 0 {
                each(&buffer[..filled]);
            }
            return Ok(());
        }
        let begun = filled;
        filled += count;
        if let Some(len) = last_newline(&buffer[begun..filled]) {
            let end = begun + len;
            each(&buffer[..end]);
            buffer.copy_within(end + 1..filled, 0);
            filled -= end + 1;
        }
    }
}

fn last_newline(text: &[u8]) -> Option<usize> {
    text.iter().rposition(|&byte| byte == b'\n')
}

pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest?;
        let end = find_byte(b'\n', text);
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// The lines of type bpf, and hardly another: looked for by what stands before the type, where there
/// is one dash in a line as a rule, which is cheaper than to read all of each.
pub(crate) fn bpffs_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    iter::from_fn(move || {
        let mut searched = 0;
        loop {
            let dash = searched + find_byte(b'-', &rest[searched..])?;
            searched = dash + 1;
            if !rest[..dash].ends_with(b" ") || !rest[searched..].starts_with(b" bpf ") {
                continue;
            }
            let begin = last_newline(&rest[..dash]).map_or(0, |end| end + 1);
            let end = find_byte(b'\n', &rest[dash..]).map_or(rest.len(), |len| dash + len);
            let line = &rest[begin..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            return Some(line);
        }
    })
}

pub(crate) const BPF: &str = "bpf";

fn option(options: &[u8], name: &str) -> Option<OsString> {
    options.split(|&byte| byte == b',').find_map(|option| {
        match option.strip_prefix(name.as_bytes())? {
            [] => Some(OsString::new()),
            [b'=', value @ ..] => Some(OsString::from_vec(unescape(value).into_owned())),
            _ => None,
        }
    })
}

/// Of a line what tells where the mount is; the rest, which the kernel has written, is not looked at.
pub(crate) struct Place<'a> {
    pub(crate) mount_id: u64,
    pub(crate) parent_id: u64,
    pub(crate) mount_point: Cow<'a, [u8]>,
}

impl<'a> Place<'a> {
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let (mount_id, rest) = split_at(line, b' ');
        let (parent_id, rest) = split_at(rest?, b' ');
        // Device and root.
        let rest = split_at(split_at(rest?, b' ').1?, b' ').1?;
        Some(Self {
            mount_id: number(mount_id)?,
            parent_id: number(parent_id)?,
            mount_point: unescape(split_at(rest, b' ').0),
        })
    }
}

/// A line in its parts, still escaped.
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
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        // Any field may be empty, and the last may hold blanks that its file system did not escape.
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
                    // proc(5) wants unknown ones to be passed over.
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

    pub(crate) fn mount_point(&self) -> Cow<'a, [u8]> {
        unescape(self.mount_point)
    }

    pub(crate) fn is_mounted_at(&self, path: &Path) -> bool {
        self.mount_point() == path.as_os_str().as_bytes()
    }

    pub(crate) fn to_mount(&self) -> Mount {
        let os = |bytes| OsString::from_vec(unescape(bytes).into_owned());
        let raw = |bytes| OsStr::from_bytes(bytes).to_owned();
        Mount {
            mount_id: self.mount_id,
            parent_id: self.parent_id,
            dev: self.dev,
            root: os(self.root).into(),
            mount_point: os(self.mount_point).into(),
            options: raw(self.options),
            propagation: self.propagation,
            fs_type: os(self.fs_type),
            source: os(self.source),
            super_options: raw(self.super_options),
        }
    }
}

fn split_at(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&byte| byte == at) {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let (first, rest) = digits.split_first()?;
    rest.iter().try_fold(digit(*first)?, |number, &next| {
        number.checked_mul(10)?.checked_add(digit(next)?)
    })
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}

/// `\040` and the like.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they are found by reading all of each line.
    fn of_type_bpf(text: &[u8]) -> Vec<&[u8]> {
        let is_bpffs = |line: &&[u8]| Line::parse(line).is_some_and(|line| line.is_bpffs());
        text.split(|&byte| byte == b'\n').filter(is_bpffs).collect()
    }

    #[test]
    fn no_line_of_type_bpf_is_passed_over() {
        let words = [
            "1 1 0:1 / / rw - bpf bpf rw",
            "2 1 0:1 / /a-b rw shared:1 - bpf  ",
            "3 1 0:1 / /-\\040bpf rw - tmpfs - bpf x",
            "4 1 0:1 / / rw - bpf x -",
            "5 1 0:1 / / - bpf - bpf x - bpf y",
            "6 1 0:1 / / rw - bpffs bpf rw",
            "7 1 0:1 / / rw -  bpf rw",
            "8 1 0:1 / / rw - bpf",
            "- bpf x",
            "",
        ];
        for a in words {
            for b in words {
                for c in words {
                    let text = [a, b, c].join("\n").into_bytes();
                    let read = |line: &&[u8]| Line::parse(line).is_some_and(|it| it.is_bpffs());
                    let found: Vec<_> = bpffs_lines(&text).filter(read).collect();
                    assert_eq!(found, of_type_bpf(&text), "{a}\n{b}\n{c}");
                }
            }
        }
    }

    #[test]
    fn where_a_mount_is_stands_before_the_rest() {
        let line = b"66 44 0:40 /x /m\\040nt rw,relatime shared:2 - bpf src rw";
        let (place, whole) = (Place::parse(line).unwrap(), Line::parse(line).unwrap());
        assert_eq!((place.mount_id, place.parent_id), (66, 44));
        assert_eq!(place.mount_point, whole.mount_point());
        for nonsense in [&b""[..], b"66", b"66 44 0:40 /x", b"x 44 0:40 /x /y"] {
            assert!(Place::parse(nonsense).is_none());
        }
    }
}
