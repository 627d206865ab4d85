//! Temporary names, and the locks that protect them.
//!
//! # Which lock protects what
//!
//! Everything that is prepared, swapped or removed has a hidden name in its directory for a while:
//! "_bpf-pin-", the token of the process, a number, and a suffix for the kind. A process locks the byte of
//! its token, with a shared lock on the directory at that offset. It takes that lock *before* it makes such
//! a name by `mkdir(2)`, `BPF_OBJ_PIN` or `rename(2)`, and holds it until its [`PinDir`] is closed. The
//! kernel releases the byte however the process ends. Pids are not used.
//!
//! | lock | owner | how long | excludes |
//! |---|---|---|---|
//! | the byte of a token | each process with hidden names | while its `PinDir` is open | the removal of leftovers, which checks it first and for every type of file |
//! | byte 0 of the directory | `replace_if`, `open_or_create`, `open_or_attach` | while they check and swap a name | each other |
//! | the same | `publish` without `RENAME_EXCHANGE`, and `remove_leftovers` that moves its set back | while the name may be missing | each other |
//! | two bytes of a name | a migration of that name | until it is committed or dropped | other migrations, the removal of leftovers |
//! | `flock(2)` of a directory | its readers, and callers of `lock` | as long as they like | the removal of a set that was published before |
//!
//! A pin or directory needs no lock of its own while it is prepared: the byte of its token is enough. If a
//! reader still locks an old set, its process renames it to a hidden name with a random token, which no
//! process holds. Then it is a leftover.
//!
//! # Files of other processes
//!
//! `RENAME_EXCHANGE` cannot check what it displaces. Another process may have put a file under the target, and
//! after the exchange that file has the hidden name. So a process checks the file before it removes it, and
//! exchanges the names again if the file is not the expected one. If the process is killed in between, the file
//! keeps the hidden name. A hidden name says if it is for a pin or for a directory. A file of the other type
//! was displaced in this way, and the removal of leftovers keeps it.
//!
//! # Forked processes
//!
//! A forked child shares its parent's open file descriptions. The byte is held until both have closed them:
//! a name of a killed child is a leftover only when its parent has closed the directory, too. For the same
//! reason byte 0 stays locked after a process was killed with the lock until its children have ended.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use crate::error::{Cause, Reason};
use crate::path::Component;
use crate::sys;
use crate::sys::random::random;

use super::{PinDir, TRIES};

/// The prefix of all hidden names.
const PREFIX: &str = "_bpf-pin-";

/// The kind of a temporary name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TempKind {
    /// A pin that is about to replace another.
    Pin,
    /// A directory that is being prepared or removed.
    Directory,
    /// A directory that holds the old set while a new one is published without `RENAME_EXCHANGE`.
    Aside,
}

impl TempKind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Pin => "",
            Self::Directory => "-dir",
            Self::Aside => "-aside",
        }
    }
}

/// A temporary pin's name, of at most 34 bytes.
pub(super) type TempName = Component<64>;

/// The temporary names of a [`PinDir`], and the lock that shows that its process is alive.
#[derive(Debug)]
pub(super) struct TempNames {
    _file: OwnedFd,
    /// The beginning of all its names, with the token.
    stem: TempName,
    next: AtomicU32,
}

impl TempNames {
    fn new(dir: &PinDir) -> Result<Self, Reason> {
        let file = dir.open_to_read()?;
        let token = random();
        sys::hold_byte(file.as_fd(), token).map_err(Reason::errno_only)?;
        Ok(Self {
            _file: file,
            stem: stem(token),
            next: AtomicU32::new(0),
        })
    }

    /// A name that this process has not used yet. A forked child acquires the same names.
    fn acquire<const ROOM: usize>(&self, kind: TempKind) -> Component<ROOM> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let suffix = kind.suffix();
        Component::of_entry(self.stem.as_bytes()).with(format_args!("{number:x}{suffix}"))
    }
}

impl PinDir {
    /// Calls `make` with temporary names, until one is not taken.
    pub(super) fn with_temp_name<T, const ROOM: usize>(
        &self,
        kind: TempKind,
        make: impl Fn(&Component<ROOM>) -> Result<T, Reason>,
    ) -> Result<(Component<ROOM>, T), Reason> {
        let names = self.temp_names()?;
        let mut last = Reason::errno_only(Errno::EXIST);
        for _ in 0..TRIES {
            let name = names.acquire(kind);
            match make(&name) {
                Ok(made) => return Ok((name, made)),
                Err(reason) if is_taken(&reason) => last = reason,
                Err(reason) => return Err(reason),
            }
        }
        Err(last)
    }

    fn temp_names(&self) -> Result<&TempNames, Reason> {
        if let Some(names) = self.temp_names.get() {
            return Ok(names);
        }
        // If two threads get here, both use the names of the first.
        let names = TempNames::new(self)?;
        Ok(self.temp_names.get_or_init(|| names))
    }
}

/// True if another process has taken a temporary name. A forked process acquires the same ones, and any
/// process may guess one.
pub(super) fn is_taken(reason: &Reason) -> bool {
    reason.is(Errno::EXIST) || matches!(reason.cause(), Some(Cause::NotOwner { .. }))
}

fn stem<const ROOM: usize>(token: u64) -> Component<ROOM> {
    Component::format(format_args!("{PREFIX}{token:016x}-"))
}

fn temp_name(token: u64, number: u64, kind: TempKind) -> Component {
    let suffix = kind.suffix();
    stem(token).with(format_args!("{number:x}{suffix}"))
}

/// A temporary name with a token that no process holds. A file with this name is a leftover.
pub(super) fn leftover_name(kind: TempKind) -> Component {
    temp_name(random(), 0, kind)
}

/// The token and the kind in a temporary name.
pub(super) fn parse_temp_name(name: &[u8]) -> Option<(u64, TempKind)> {
    let rest = std::str::from_utf8(name.strip_prefix(PREFIX.as_bytes())?).ok()?;
    let (token, rest) = rest.split_at_checked(16)?;
    let rest = rest.strip_prefix('-')?;
    let kinds = [TempKind::Directory, TempKind::Aside];
    let (number, kind) = kinds
        .into_iter()
        .find_map(|kind| Some((rest.strip_suffix(kind.suffix())?, kind)))
        .unwrap_or((rest, TempKind::Pin));
    let parse = |digits| u64::from_str_radix(digits, 16).ok();
    let (token, number) = (parse(token)?, parse(number)?);
    // Excludes a sign, upper case and leading zeroes.
    let made: Component = temp_name(token, number, kind);
    (made.as_bytes() == name).then_some((token, kind))
}

/// A number for a name, the same in every process: 63 bits, not 0. FNV-1a.
pub(super) fn hash_name(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash & i64::MAX as u64).max(1)
}

/// Follows the prefix in the backup name of a migrated map.
const OLD: &str = "old-";

/// The name for the old map after a migration of `name` to the map with this id.
pub(crate) fn backup_name(name: &Component, id: u32) -> Result<Component, Cause> {
    let mut backup = Component::format(format_args!("{PREFIX}{OLD}{id:08x}-"));
    let length = backup.as_bytes().len() + name.as_bytes().len();
    match backup.push(name.as_bytes()) {
        Some(()) => Ok(backup),
        None => Err(Cause::name_too_long(length)),
    }
}

/// The name that was migrated, and the id of the new map.
pub(super) fn parse_backup_name(backup: &[u8]) -> Option<(Component, u32)> {
    let rest = backup.strip_prefix(PREFIX.as_bytes())?;
    let rest = rest.strip_prefix(OLD.as_bytes())?;
    let (id, rest) = rest.split_at_checked(8)?;
    let name = Component::new(OsStr::from_bytes(rest.strip_prefix(b"-")?)).ok()?;
    let id = u32::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()?;
    // Excludes a sign and upper case.
    let is_backup = backup_name(&name, id).is_ok_and(|made| made.as_bytes() == backup);
    is_backup.then_some((name, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_holds_its_token_and_kind() {
        for (token, number) in [(0, 0), (u64::MAX >> 1, u64::MAX), (0xabc, 17)] {
            for kind in [TempKind::Pin, TempKind::Directory, TempKind::Aside] {
                let name: Component = temp_name(token, number, kind);
                assert_eq!(
                    parse_temp_name(name.as_bytes()),
                    Some((token, kind)),
                    "{name:?}"
                );
            }
        }
    }

    #[test]
    fn other_names_are_not_temporary() {
        for name in [
            "",
            "flows",
            "_bpf-pin-",
            "_bpf-pin-0123456789abcdef",
            "_bpf-pin-0123456789abcdef-",
            "_bpf-pin-0123456789ABCDEF-1",
            "_bpf-pin-0123456789abcdef-01",
            "_bpf-pin-0123456789abcdef-+1",
            "_bpf-pin-0123456789abcdef-1-asid",
            "_bpf-pin-0123456789abcdef-1-aside-aside",
            "_bpf-pin-0123456789abcdef-1-di",
            "_bpf-pin-0123456789abcdef-1-dir-dir",
            "x_bpf-pin-0123456789abcdef-1",
            "_bpf-pin-\u{e9}123456789abcdef-1",
        ] {
            assert_eq!(parse_temp_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_backup_name_is_not_temporary() {
        let name = |name: &str| Component::of_entry(name.as_bytes());
        for (text, id) in [("flows", 1), ("0123456789abcdef-1", u32::MAX), ("-", 0xabc)] {
            let backup = backup_name(&name(text), id).unwrap();
            assert_eq!(parse_temp_name(backup.as_bytes()), None, "{backup:?}");
            let (parsed, parsed_id) = parse_backup_name(backup.as_bytes()).unwrap();
            assert_eq!((parsed.as_bytes(), parsed_id), (text.as_bytes(), id));
        }
        assert!(backup_name(&name(&"n".repeat(255 - 22)), 7).is_ok());
        assert!(matches!(
            backup_name(&name(&"n".repeat(255 - 21)), 7),
            Err(Cause::TooLong { .. })
        ));
    }

    #[test]
    fn other_names_are_not_backup_names() {
        for name in [
            "flows",
            "_bpf-pin-old-",
            "_bpf-pin-old-flows",
            "_bpf-pin-old-0000001-flows",
            "_bpf-pin-old-0000000A-flows",
            "_bpf-pin-old-+0000001-flows",
            "_bpf-pin-old-00000001-",
            "_bpf-pin-old-00000001-a.b",
            "_bpf-pin-0123456789abcdef-1",
        ] {
            assert!(parse_backup_name(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn equal_names_have_equal_hashes() {
        assert_eq!(hash_name(b"flows"), hash_name(b"flows"));
        assert_ne!(hash_name(b"flows"), hash_name(b"flow"));
        assert!((1..=i64::MAX as u64).contains(&hash_name(b"")));
    }
}
