//! Pins, opens and removes objects in a directory.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};

use bpf_pin_sys::Version;
use rustix::fs::{AtFlags, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::object::{
    OpenFailure, Pinnable, get_typed, identify, identity_at, open_any_access, open_slow, pin_at,
    symlink_error, unlink_if_held_by,
};
use crate::path::{AtError, AtPath, Component, with_name};
use crate::process::is_filtered;
use crate::types::{Access, Identity};

use super::{PinDir, unlink_reason};

impl PinDir {
    /// `BPF_OBJ_PIN` with `BPF_F_PATH_FD`: pins an object in this directory.
    ///
    /// One syscall from Linux 6.5 on. `object` is any descriptor of a map, program or link, of this crate
    /// or another. The new file has mode 0600 less the umask.
    ///
    /// # Errors
    ///
    /// [`Operation::Pin`]; nothing was made. With these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | the name is taken | [`Exists`](Cause::Exists) | EEXIST |
    /// | the descriptor is not a map, program or link | [`WrongDescriptor`](Cause::WrongDescriptor) | EINVAL |
    ///
    /// # References
    ///
    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/inode.c: `bpf_obj_pin_user`
    pub fn pin(&self, object: &(impl AsFd + ?Sized), name: impl AsRef<OsStr>) -> Result<()> {
        self.pin_fd(object.as_fd(), name.as_ref())
    }

    fn pin_fd(&self, object: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        self.on_name(Operation::Pin, name, |at| pin_at(at, object))
    }

    /// As [`pin`](Self::pin), with the mode and owner of the pin `like`.
    pub(crate) fn pin_named_as(
        &self,
        object: BorrowedFd<'_>,
        name: &Component,
        like: &Component,
    ) -> Result<()> {
        let (at, like) = (self.at_path(name), self.at_path(like));
        pin_at(&at, object)
            .and_then(|()| {
                self.copy_mode(&like, name, object).inspect_err(|_| {
                    let _ = at.unlink();
                })
            })
            .map_err(|reason| self.fail_at(Operation::Pin, name.as_os_str(), reason))
    }

    /// `BPF_OBJ_GET` with `BPF_F_PATH_FD`: opens a pinned object for reading and writing. As an
    /// [`Object`](crate::Object) it may be of any kind.
    ///
    /// Three syscalls from Linux 6.5 on: the second proves the kind, the third that the name is not a
    /// symbolic link. Two on a mount that is [`nosymfollow`](crate::bpffs::MountOptions::nosymfollow). See
    /// [races](Self#races). Allocates nothing.
    ///
    /// Requires both permissions, to read and to write. A process with one of them, as a group often has,
    /// uses [`get_with`](Self::get_with).
    ///
    /// # Errors
    ///
    /// [`Operation::Open`], with these causes and those of [names](Self#names) and [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | it is an object of another kind | [`WrongKind`](Cause::WrongKind) | |
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | it is a symbolic link, which is not followed | [`SymbolicLink`](Cause::SymbolicLink) | none; ELOOP if the mount follows none |
    /// | it is a directory | [`NotAnObject`](Cause::NotAnObject) | EACCES |
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Link, Map, PinDir};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let (flows, link) = (dir.get::<Map>("flows")?, dir.get::<Link>("ingress")?);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn get<T: Pinnable>(&self, name: impl AsRef<OsStr>) -> Result<T> {
        self.open_checked(name.as_ref(), Access::ReadWrite)
    }

    /// As [`get`](Self::get), with `BPF_F_RDONLY` or `BPF_F_WRONLY`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`InvalidArgument`](Cause::InvalidArgument) (EINVAL) for a link.
    pub fn get_with<T: Pinnable>(&self, name: impl AsRef<OsStr>, access: Access) -> Result<T> {
        self.open_checked(name.as_ref(), access)
    }

    fn open_checked<T: Pinnable>(&self, name: &OsStr, access: Access) -> Result<T> {
        with_name(name, |name| self.open_named(name, access))
            .unwrap_or_else(|bad| Err(self.fail_at(Operation::Open, name, bad)))
    }

    #[inline]
    pub(crate) fn open_named<T: Pinnable>(&self, name: &CStr, access: Access) -> Result<T> {
        let at = self.at_path(name);
        get_nofollow(&at, access).or_else(|failure| open_nofollow_slow(&at, access, failure))
    }

    /// Opens for reading and writing. `None` if nothing has the name.
    pub(crate) fn find_named<T: Pinnable>(&self, name: &Component) -> Result<Option<T>> {
        let at = self.at_path(name);
        match get_nofollow(&at, Access::ReadWrite) {
            Ok(object) => Ok(Some(object)),
            Err(OpenFailure::Get(AtError::Errno(Errno::NOENT))) => Ok(None),
            Err(failure) => open_nofollow_slow(&at, Access::ReadWrite, failure).map(Some),
        }
    }

    /// Fails if the name is a symbolic link.
    pub(crate) fn refuse_link(&self, name: &Component) -> Result<()> {
        reject_symlink(&self.at_path(name))
    }

    /// Returns kind and id of the pinned object, with any access that is granted.
    ///
    /// # Errors
    ///
    /// [`Operation::Open`], as [`get`](Self::get).
    pub fn identity(&self, name: impl AsRef<OsStr>) -> Result<Identity> {
        self.on_name(Operation::Open, name.as_ref(), identity_at)
    }

    /// `unlinkat(2)`: removes the pin of this object.
    ///
    /// A prog array is emptied when its last pin and descriptor are gone, even while programs tail-call into
    /// it: [`Prog::ids_using`](crate::Prog::ids_using) lists them.
    ///
    /// # Races
    ///
    /// The pin is compared with the object right before, by kind and id. The kernel has no call that does
    /// both. If another process replaces the pin between the two, the other object's pin is removed.
    ///
    /// # Errors
    ///
    /// [`Operation::Unpin`]; nothing was removed. With these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | it is another object | [`Replaced`](Cause::Replaced) | |
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | it is a symbolic link | [`SymbolicLink`](Cause::SymbolicLink) | |
    /// | it is a directory | [`NotAnObject`](Cause::NotAnObject) | EACCES |
    pub fn unpin(&self, object: &(impl AsFd + ?Sized), name: impl AsRef<OsStr>) -> Result<()> {
        let object = object.as_fd();
        self.on_name(Operation::Unpin, name.as_ref(), |at| {
            unlink_if_held_by(at, identify(object)?)
        })
    }

    pub(crate) fn unpin_named(&self, expected: Identity, name: &Component) -> Result<()> {
        unlink_if_held_by(&self.at_path(name), expected)
            .map_err(|reason| self.fail_at(Operation::Unpin, name.as_os_str(), reason))
    }

    /// `unlinkat(2)`: removes a name, unless it is a directory. Does not check which object it holds.
    ///
    /// Empties a prog array if this was its last pin, as [`unpin`](Self::unpin).
    ///
    /// # Errors
    ///
    /// [`Operation::Unpin`], as [`unpin`](Self::unpin) except [`Replaced`](Cause::Replaced). A directory has EISDIR.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.on_name(Operation::Unpin, name.as_ref(), |at| {
            at.unlink().map_err(|errno| unlink_reason(at, errno))
        })
    }

    /// `linkat(2)`: gives a pin a second name. Both are one file, with one mode and owner. Linux 4.5.
    ///
    /// [`pin`](Self::pin) pins the object again, as a file of its own.
    ///
    /// # Errors
    ///
    /// [`Operation::HardLink`], with these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | the new name is taken | [`Exists`](Cause::Exists) | EEXIST |
    /// | nothing has the old name | [`Missing`](Cause::Missing) | ENOENT |
    /// | it is a directory, or `fs.protected_hardlinks` reserves it for its owner | | EPERM |
    pub fn link(&self, name: impl AsRef<OsStr>, new: impl AsRef<OsStr>) -> Result<()> {
        self.on_names(Operation::HardLink, name.as_ref(), new.as_ref())
    }

    /// `renameat2(2)` with `RENAME_NOREPLACE`: renames a pin or directory. Replaces nothing. Linux 4.9.
    ///
    /// # Errors
    ///
    /// [`Operation::Rename`], with these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | the new name is taken | [`Exists`](Cause::Exists) | EEXIST |
    /// | nothing has the old name | [`Missing`](Cause::Missing) | ENOENT |
    /// | something is mounted on it | [`MountPoint`](Cause::MountPoint) | EBUSY |
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Result<()> {
        self.on_names(Operation::Rename, from.as_ref(), to.as_ref())
    }

    /// `renameat2(2)` with `RENAME_EXCHANGE`: exchanges two names in one step. Each is a pin or a
    /// directory. Linux 5.17.
    ///
    /// # Errors
    ///
    /// [`Operation::Exchange`], with these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | bpffs has no `RENAME_EXCHANGE`, before Linux 5.17 | [`Unsupported`](Cause::Unsupported) | EINVAL |
    /// | nothing has one of the names | [`Missing`](Cause::Missing) | ENOENT |
    /// | something is mounted on one | [`MountPoint`](Cause::MountPoint) | EBUSY |
    pub fn exchange(&self, a: impl AsRef<OsStr>, b: impl AsRef<OsStr>) -> Result<()> {
        self.on_names(Operation::Exchange, a.as_ref(), b.as_ref())
    }

    pub(super) fn rename_named(
        &self,
        from: &(impl AsRef<CStr> + ?Sized),
        to: &(impl AsRef<CStr> + ?Sized),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        renameat_with(&self.fd, from.as_ref(), &self.fd, to.as_ref(), flags)
    }

    /// The operations on two names.
    fn on_names(&self, operation: Operation, from: &OsStr, to: &OsStr) -> Result<()> {
        let run = || -> Result<(), Reason> {
            let (from, to) = (Component::new(from)?, Component::new(to)?);
            match operation {
                Operation::HardLink => {
                    let (from, to) = (from.as_c_str(), to.as_c_str());
                    linkat(&self.fd, from, &self.fd, to, AtFlags::empty())
                }
                Operation::Exchange => self.rename_named(&from, &to, RenameFlags::EXCHANGE),
                _ => self.rename_named(&from, &to, RenameFlags::NOREPLACE),
            }
            .map_err(|errno| names_reason(operation, self.at_path(&from), self.at_path(&to), errno))
        };
        run().map_err(|reason| {
            let subject = Subject::Paths(self.path().join(from), self.path().join(to));
            Error::new(operation, reason).of(subject)
        })
    }

    /// Pins the object again, under the same name in another directory.
    ///
    /// The other directory may be on another instance of bpffs, where `rename(2)` and `link(2)` fail with
    /// EXDEV. The name is opened once. The new pin has mode 0600 less the umask.
    ///
    /// # Errors
    ///
    /// [`Operation::Open`] as [`get`](Self::get), or [`Operation::Pin`] as [`pin`](Self::pin).
    pub fn copy_to(&self, name: impl AsRef<OsStr>, other: &Self) -> Result<()> {
        let name = name.as_ref();
        let object = self.on_name(Operation::Open, name, open_any_access)?;
        other.pin_fd(object.as_fd(), name)
    }
}

/// Why an operation on two names failed.
#[cold]
fn names_reason(operation: Operation, from: AtPath<'_>, to: AtPath<'_>, errno: Errno) -> Reason {
    let is_exchange = operation == Operation::Exchange;
    let cause = match errno {
        Errno::EXIST => diagnose::make(&to, errno),
        Errno::INVAL if is_exchange => (!is_filtered()).then_some(Cause::Unsupported {
            what: "RENAME_EXCHANGE on bpffs",
            since: Version::new(5, 17),
        }),
        // A hard link is denied for reasons of its own.
        Errno::PERM if operation == Operation::HardLink => None,
        // The name that is missing. Links are not followed here.
        Errno::NOENT => [Some(from), is_exchange.then_some(to)]
            .into_iter()
            .flatten()
            .find(|at| at.lstat().is_err())
            .and_then(|at| diagnose::unpin(&at, errno)),
        _ => diagnose::unpin(&from, errno)
            .or_else(|| is_exchange.then(|| diagnose::unpin(&to, errno)).flatten()),
    };
    Reason::new(errno, cause)
}

/// `BPF_OBJ_GET`, which has no flag against symbolic links.
#[inline]
fn get_nofollow<T: Pinnable>(at: &AtPath<'_>, access: Access) -> Result<T, OpenFailure> {
    let object = get_typed(at, access)?;
    match at.is_followed() {
        Ok(true) => Err(OpenFailure::Symlink),
        // Removed meanwhile, or not allowed to look: the object was opened all the same.
        Ok(false) | Err(_) => Ok(object),
    }
}

/// Reports a symbolic link rather than the wrong kind of the object that it leads to.
#[cold]
pub(super) fn open_nofollow_slow<T: Pinnable>(
    at: &AtPath<'_>,
    access: Access,
    failure: OpenFailure,
) -> Result<T> {
    if let OpenFailure::Unproven(_) = failure {
        reject_symlink(at)?;
    }
    open_slow(at, access, failure)
}

pub(super) fn reject_symlink(at: &AtPath<'_>) -> Result<()> {
    match at.is_followed() {
        Ok(true) => Err(symlink_error(at)),
        Ok(false) | Err(_) => Ok(()),
    }
}
