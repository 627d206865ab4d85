//! Pins in a directory.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};

use bpf_pin_sys::Version;
use rustix::fs::{AtFlags, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::object::{
    Object, OpenFailure, Pinnable, TypedObject, get_error, get_typed, get_typed_with_info,
    identify, identity_at, info_of, open_any_access, open_error, open_slow, pin_at, symlink_error,
    unlink_if_held_by,
};
use crate::path::{AtError, AtPath};
use crate::path::{Component, ComponentError};
use crate::process::is_filtered;
use crate::sys::{AnyInfo, InfoBuf};
use crate::types::Access;
use crate::types::Identity;

use super::PinDir;

impl PinDir {
    /// `BPF_OBJ_PIN` with `BPF_F_PATH_FD`: gives an object a name in this directory.
    ///
    /// One syscall from Linux 6.5 on. The object is whatever has the descriptor of a map, program
    /// or link, of this crate or from elsewhere; the new file has mode 0600 less the umask.
    ///
    /// # Errors
    ///
    /// [`Operation::Pin`], and nothing was made. With one of these causes where it was proven:
    /// [`Exists`](Cause::Exists) (EEXIST); [`Removed`](Cause::Removed) (ENOENT) where the directory
    /// is gone; [`Blocked`](Cause::Blocked) (EACCES);
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM); [`WrongDescriptor`](Cause::WrongDescriptor) (EINVAL);
    /// [`NoProc`](Cause::NoProc); what is wrong with a name, as [`open_dir`](Self::open_dir).
    ///
    /// # References
    ///
    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/inode.c: `bpf_obj_pin_user`
    pub fn pin(&self, object: &(impl AsFd + ?Sized), name: impl AsRef<OsStr>) -> Result<()> {
        self.pin_fd(object.as_fd(), name.as_ref())
    }

    fn pin_fd(&self, object: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let fail = |reason| Error::new(Operation::Pin, reason).at(self.path().join(name));
        self.with_path(name, |at| pin_at(at, object))
            .unwrap_or_else(|bad| Err(bad.into()))
            .map_err(fail)
    }

    /// As [`pin`](Self::pin), with the mode and owner of the pin that has the other name.
    pub(crate) fn pin_named_as(
        &self,
        object: BorrowedFd<'_>,
        name: &Component,
        like: &Component,
    ) -> Result<()> {
        let at = self.at_path(name);
        let fail = |reason| Error::new(Operation::Pin, reason).at(at.path());
        let like = self.at_path(like);
        let like = like
            .lstat()
            .map_err(|errno| fail(Reason::new(errno, diagnose::find(&like, errno))))?;
        pin_at(&at, object).map_err(fail)?;
        self.copy_mode(&like, name, object).map_err(|reason| {
            let _ = at.unlink();
            fail(reason)
        })
    }

    /// `BPF_OBJ_GET` with `BPF_F_PATH_FD`: the object that has the name, for reading and writing. With
    /// [`Object`] it may be of any kind.
    ///
    /// Three syscalls from Linux 6.5 on: the second proves the kind, the third that the name is no
    /// symbolic link. Whoever may write to the directory can put one there for the moment of the
    /// first: bpf(2) has no flag against it. On a mount that is
    /// [`nosymfollow`](crate::bpffs::MountOptions::nosymfollow) the kernel refuses it, and two are enough.
    /// Allocates nothing.
    ///
    /// For reading and writing it takes both permissions of the pin: who has one only, as a group
    /// often has, uses [`get_with`](Self::get_with).
    ///
    /// # Errors
    ///
    /// [`Operation::Open`], with one of these causes where it was proven:
    /// [`WrongKind`](Cause::WrongKind); [`SymbolicLink`](Cause::SymbolicLink), which is not followed
    /// (ELOOP on such a mount);
    /// [`Missing`](Cause::Missing) or [`Removed`](Cause::Removed) (ENOENT);
    /// [`NotAnObject`](Cause::NotAnObject) for a directory, or [`Blocked`](Cause::Blocked) (EACCES);
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM); [`NoProc`](Cause::NoProc);
    /// what is wrong with a name, as [`open_dir`](Self::open_dir).
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
    /// As [`get`](Self::get), and [`InvalidArgument`](Cause::InvalidArgument) (EINVAL) for a link.
    pub fn get_with<T: Pinnable>(&self, name: impl AsRef<OsStr>, access: Access) -> Result<T> {
        self.open_checked(name.as_ref(), access)
    }

    fn open_checked<T: Pinnable>(&self, name: &OsStr, access: Access) -> Result<T> {
        match self.with_path(name, |at| get_nofollow(at, access)) {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(failure)) => {
                let explain = |at: &AtPath<'_>| open_nofollow_slow(at, access, failure);
                self.with_path(name, explain)
                    .unwrap_or_else(|bad| Err(self.bad_name(name, bad)))
            }
            Err(bad) => Err(self.bad_name(name, bad)),
        }
    }

    #[cold]
    fn bad_name(&self, name: &OsStr, bad: ComponentError) -> Error {
        open_error(&self.path().join(name), bad.into())
    }

    pub(crate) fn open_named<T: Pinnable>(&self, name: &CStr, access: Access) -> Result<T> {
        let at = self.at_path(name);
        get_nofollow(&at, access).or_else(|failure| open_nofollow_slow(&at, access, failure))
    }

    /// For reading and writing; None where nothing has the name.
    pub(crate) fn find_named<T: Pinnable>(&self, name: &Component) -> Result<Option<T>> {
        let at = self.at_path(name);
        match get_nofollow(&at, Access::ReadWrite) {
            Ok(object) => Ok(Some(object)),
            Err(OpenFailure::Get(AtError::Errno(Errno::NOENT))) => Ok(None),
            Err(failure) => open_nofollow_slow(&at, Access::ReadWrite, failure).map(Some),
        }
    }

    /// The same for what is asked, with what the kernel tells of the object, in one syscall less than it
    /// takes to ask for that afterwards.
    pub(crate) fn find_with_info<T: TypedObject>(
        &self,
        name: &Component,
        access: Access,
    ) -> Result<Option<(T, T::Info)>> {
        /// Enough for a map or a link, and to tell a program from them.
        const WORDS: usize = 32;

        let at = self.at_path(name);
        let mut info = InfoBuf::<WORDS>::new();
        let failure = match get_typed_with_info::<T, WORDS>(&at, access, &mut info) {
            Ok(object) => {
                reject_symlink(&at)?;
                return Ok(Some((object, T::info_from_raw(info.to()))));
            }
            Err(OpenFailure::Get(AtError::Errno(Errno::NOENT))) => return Ok(None),
            Err(failure) => failure,
        };
        let object: T = open_nofollow_slow(&at, access, failure)?;
        let info = info_of(&object).map_err(|error| error.of_opened(at.path()))?;
        Ok(Some((object, info)))
    }

    /// What [`get`](Self::get) says of a name that nothing has.
    #[cold]
    pub(crate) fn missing_error(&self, name: &Component) -> Error {
        get_error(&self.at_path(name), Access::ReadWrite, Errno::NOENT.into())
    }

    /// Any object; false where its info was not what has proven its kind.
    pub(crate) fn open_named_with_info(
        &self,
        name: &CStr,
        info: &mut AnyInfo,
    ) -> Result<(Object, bool)> {
        let at = self.at_path(name);
        match get_typed_with_info(&at, Access::ReadWrite, info) {
            Ok(object) => reject_symlink(&at).map(|()| (object, true)),
            Err(failure) => {
                open_nofollow_slow(&at, Access::ReadWrite, failure).map(|object| (object, false))
            }
        }
    }

    /// An error where the name is a symbolic link's.
    pub(crate) fn refuse_link(&self, name: &Component) -> Result<()> {
        reject_symlink(&self.at_path(name))
    }

    /// Which object has the name: its kind and id, whatever access is granted.
    ///
    /// # Errors
    ///
    /// [`Operation::Open`], as [`get`](Self::get).
    pub fn identity(&self, name: impl AsRef<OsStr>) -> Result<Identity> {
        let fail = |name: &OsStr, reason| open_error(&self.path().join(name), reason);
        let name = name.as_ref();
        self.with_path(name, identity_at)
            .unwrap_or_else(|bad| Err(bad.into()))
            .map_err(|reason| fail(name, reason))
    }

    /// `unlinkat(2)`: takes the name away from this object, if it still has it.
    ///
    /// That the name is this very object's is checked right before, by kind and id. The kernel has
    /// no call that does both, so an object that somebody else puts under the name between the two
    /// is removed in its stead.
    ///
    /// # Errors
    ///
    /// [`Operation::Unpin`], and nothing was removed: [`Replaced`](Cause::Replaced) where another object
    /// has the name; [`Missing`](Cause::Missing) or [`Removed`](Cause::Removed) (ENOENT);
    /// [`SymbolicLink`](Cause::SymbolicLink); [`NotAnObject`](Cause::NotAnObject) for a directory;
    /// [`Sticky`](Cause::Sticky) (EPERM), [`Blocked`](Cause::Blocked) (EACCES),
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// what is wrong with a name, as [`open_dir`](Self::open_dir).
    pub fn unpin(&self, object: &(impl AsFd + ?Sized), name: impl AsRef<OsStr>) -> Result<()> {
        self.unpin_fd(object.as_fd(), name.as_ref())
    }

    fn unpin_fd(&self, object: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let fail = |reason| Error::new(Operation::Unpin, reason).at(self.path().join(name));
        let removed = self.with_path(name, |at| unlink_if_held_by(at, identify(object)?));
        removed.unwrap_or_else(|bad| Err(bad.into())).map_err(fail)
    }

    pub(crate) fn unpin_named(&self, expected: Identity, name: &Component) -> Result<()> {
        let at = self.at_path(name);
        unlink_if_held_by(&at, expected)
            .map_err(|reason| Error::new(Operation::Unpin, reason).at(at.path()))
    }

    /// `unlinkat(2)`: takes a name away, whatever has it but a directory. Nobody looks whose it is.
    ///
    /// # Errors
    ///
    /// [`Operation::Unpin`], as [`unpin`](Self::unpin).
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = name.as_ref();
        let fail = |reason| Error::new(Operation::Unpin, reason).at(self.path().join(name));
        let removed = self.with_path(name, |at| {
            let because = |errno| Reason::new(errno, diagnose::unpin(at, errno));
            at.unlink().map_err(because)
        });
        removed.unwrap_or_else(|bad| Err(bad.into())).map_err(fail)
    }

    /// `linkat(2)`: a second name for a pin: one file, with one mode and owner, under two names.
    /// Linux 4.5.
    ///
    /// To pin the object once more, as a file of its own: [`pin`](Self::pin).
    ///
    /// # Errors
    ///
    /// [`Operation::HardLink`] with [`Exists`](Cause::Exists) (EEXIST), [`Missing`](Cause::Missing) or
    /// [`Removed`](Cause::Removed) (ENOENT), [`Blocked`](Cause::Blocked) (EACCES); EPERM for a
    /// directory, and where `fs.protected_hardlinks` reserves the file for its owner.
    pub fn link(&self, name: impl AsRef<OsStr>, new: impl AsRef<OsStr>) -> Result<()> {
        let call = |from: &Component, to: &Component| {
            let (from, to) = (from.as_c_str(), to.as_c_str());
            linkat(&self.fd, from, &self.fd, to, AtFlags::empty())
        };
        self.between(Operation::HardLink, name.as_ref(), new.as_ref(), call)
    }

    /// `renameat2(2)` with `RENAME_NOREPLACE`: another name for a pin or directory, never one that
    /// is taken. Linux 4.9.
    ///
    /// # Errors
    ///
    /// [`Operation::Rename`] with [`Exists`](Cause::Exists) (EEXIST), [`Missing`](Cause::Missing) or
    /// [`Removed`](Cause::Removed) (ENOENT), [`MountPoint`](Cause::MountPoint) (EBUSY),
    /// [`Sticky`](Cause::Sticky) (EPERM), [`Blocked`](Cause::Blocked) (EACCES).
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Result<()> {
        let call =
            |from: &Component, to: &Component| self.rename_named(from, to, RenameFlags::NOREPLACE);
        self.between(Operation::Rename, from.as_ref(), to.as_ref(), call)
    }

    /// `renameat2(2)` with `RENAME_EXCHANGE`: two names change places at once, each a pin's or a
    /// directory's. Linux 5.17.
    ///
    /// # Errors
    ///
    /// [`Operation::Exchange`] with [`Unsupported`](Cause::Unsupported) (EINVAL) before Linux 5.17;
    /// [`Missing`](Cause::Missing) or [`Removed`](Cause::Removed) (ENOENT),
    /// [`MountPoint`](Cause::MountPoint) (EBUSY), [`Sticky`](Cause::Sticky) (EPERM),
    /// [`Blocked`](Cause::Blocked) (EACCES).
    pub fn exchange(&self, a: impl AsRef<OsStr>, b: impl AsRef<OsStr>) -> Result<()> {
        let call = |a: &Component, b: &Component| self.rename_named(a, b, RenameFlags::EXCHANGE);
        self.between(Operation::Exchange, a.as_ref(), b.as_ref(), call)
    }

    pub(super) fn rename_named(
        &self,
        from: &impl AsRef<CStr>,
        to: &(impl AsRef<CStr> + ?Sized),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        renameat_with(&self.fd, from.as_ref(), &self.fd, to.as_ref(), flags)
    }

    fn between(
        &self,
        operation: Operation,
        from: &OsStr,
        to: &OsStr,
        call: impl FnOnce(&Component, &Component) -> Result<(), Errno>,
    ) -> Result<()> {
        let fail = |reason| self.fail_between(operation, from, to, reason);
        let filename = |name| Component::new(name).map_err(|cause| fail(cause.into()));
        let (a, b) = (filename(from)?, filename(to)?);
        call(&a, &b).map_err(|errno| fail(self.between_reason(operation, &a, &b, errno)))
    }

    #[cold]
    fn between_reason(
        &self,
        operation: Operation,
        from: &Component,
        to: &Component,
        errno: Errno,
    ) -> Reason {
        let (from, to) = (self.at_path(from), self.at_path(to));
        let cause = match (errno, operation) {
            (Errno::EXIST, _) => diagnose::make(&to, errno),
            (Errno::INVAL, Operation::Exchange) => (!is_filtered()).then_some(NO_EXCHANGE),
            // A hard link is denied for reasons of its own.
            (Errno::PERM, Operation::HardLink) => None,
            // Of the names that must be there, one that is missing: links are not followed here.
            (Errno::NOENT, _) => [Some(from), (operation == Operation::Exchange).then_some(to)]
                .into_iter()
                .flatten()
                .find(|at| at.lstat().is_err())
                .and_then(|at| diagnose::unpin(&at, errno)),
            _ => diagnose::unpin(&from, errno).or_else(|| match operation {
                Operation::Exchange => diagnose::unpin(&to, errno),
                _ => None,
            }),
        };
        Reason::new(errno, cause)
    }

    /// Pins the object once more, under the same name in another directory, which may be of
    /// another instance of bpffs: where `rename(2)` and `link(2)` answer EXDEV.
    ///
    /// Which object has the name is seen once; the new pin's mode is 0600 less the umask.
    ///
    /// # Errors
    ///
    /// [`Operation::Open`] as [`get`](Self::get), or [`Operation::Pin`] as [`pin`](Self::pin).
    pub fn copy_to(&self, name: impl AsRef<OsStr>, other: &Self) -> Result<()> {
        let name = name.as_ref();
        let fail = |reason| open_error(&self.path().join(name), reason);
        let filename = Component::new(name).map_err(|cause| fail(cause.into()))?;
        let object = open_any_access(&self.at_path(&filename)).map_err(fail)?;
        other.pin_fd(object.as_fd(), name)
    }
}

/// `BPF_OBJ_GET` of what is no symbolic link's name: it knows no flag for that.
#[inline]
fn get_nofollow<T: Pinnable>(at: &AtPath<'_>, access: Access) -> Result<T, OpenFailure> {
    let object = get_typed(at, access)?;
    match at.is_followed() {
        Ok(true) => Err(OpenFailure::Symlink),
        // Gone meanwhile, or not to be told: the object was opened all the same.
        Ok(false) | Err(_) => Ok(object),
    }
}

/// Where a link leads to is not what is wrong with it.
#[cold]
fn open_nofollow_slow<T: Pinnable>(
    at: &AtPath<'_>,
    access: Access,
    failure: OpenFailure,
) -> Result<T> {
    if let OpenFailure::Unproven(_) = failure {
        reject_symlink(at)?;
    }
    open_slow(at, access, failure)
}

fn reject_symlink(at: &AtPath<'_>) -> Result<()> {
    match at.is_followed() {
        Ok(true) => Err(symlink_error(at)),
        Ok(false) | Err(_) => Ok(()),
    }
}

pub(super) const NO_EXCHANGE: Cause = Cause::Unsupported {
    what: "RENAME_EXCHANGE on bpffs",
    since: Version::new(5, 17),
};
