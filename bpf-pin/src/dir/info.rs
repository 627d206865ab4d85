//! Opens a pin and reads its object's info, which proves the kind as well.

use std::ffi::{CStr, OsStr};
use std::ops::Deref;

use rustix::io::Errno;

use crate::error::{Error, Operation, Result};
use crate::object::{
    Object, ObjectInfo, OpenFailure, TypedObject, get_error, get_typed_with_info, info_of,
};
use crate::path::{AtError, Component, with_name};
use crate::sys::{AnyInfo, InfoBuf};
use crate::types::Access;

use super::pins::{open_nofollow_slow, reject_symlink};
use super::{Entry, PinDir};

impl PinDir {
    /// Opens a pin of any kind and returns the object with its [`info`](Object::info).
    ///
    /// Like [`get`](Self::get), but one system call both proves the kind and reads the info.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`Object::info`], with the pin's path.
    pub fn open_with_info(&self, name: impl AsRef<OsStr>) -> Result<(Object, ObjectInfo)> {
        let name = name.as_ref();
        with_name(name, |name| self.open_named_with_info(name))
            .unwrap_or_else(|bad| Err(self.fail_at(Operation::Open, name, bad)))
    }

    fn open_named_with_info(&self, name: &CStr) -> Result<(Object, ObjectInfo)> {
        let at = self.at_path(name);
        let mut info = AnyInfo::new();
        let opened: std::result::Result<Object, _> =
            get_typed_with_info(&at, Access::ReadWrite, &mut info);
        match opened {
            Ok(object) => {
                reject_symlink(&at)?;
                let info = ObjectInfo::from_raw(object.kind(), &info);
                Ok((object, info))
            }
            Err(failure) => {
                let object: Object = open_nofollow_slow(&at, Access::ReadWrite, failure)?;
                let info = object.info().map_err(|error| error.of_opened(at.path()))?;
                Ok((object, info))
            }
        }
    }

    /// Opens a pin of one kind and returns the object with its info. `None` if nothing has the name.
    pub(crate) fn find_with_info<T: TypedObject>(
        &self,
        name: &Component,
        access: Access,
    ) -> Result<Option<(T, T::Info)>> {
        /// Enough for the info of a map or a link, and to prove that a program is none.
        const WORDS: usize = 32;

        let at = self.at_path(name);
        let mut info = InfoBuf::<WORDS>::new();
        match get_typed_with_info::<T, WORDS>(&at, access, &mut info) {
            Ok(object) => {
                reject_symlink(&at)?;
                Ok(Some((object, T::info_from_raw(info.to()))))
            }
            Err(OpenFailure::Get(AtError::Errno(Errno::NOENT))) => Ok(None),
            Err(failure) => {
                let object: T = open_nofollow_slow(&at, access, failure)?;
                let info = info_of(&object).map_err(|error| error.of_opened(at.path()))?;
                Ok(Some((object, info)))
            }
        }
    }

    /// The error of [`get`](Self::get) for a name that nothing has.
    #[cold]
    pub(crate) fn missing_error(&self, name: &Component) -> Error {
        get_error(&self.at_path(name), Access::ReadWrite, Errno::NOENT.into())
    }
}

impl<D: Deref<Target = PinDir>> Entry<D> {
    /// Opens a pin of any kind and returns the object with its [`info`](Object::info): see
    /// [`PinDir::open_with_info`].
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_with_info`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::dir::EntryType;
    /// use bpf_pin::PinDir;
    ///
    /// for entry in PinDir::open("/sys/fs/bpf")?.walk()? {
    ///     let entry = entry?;
    ///     if entry.entry_type() == EntryType::Pin {
    ///         let (_, info) = entry.open_with_info()?;
    ///         println!("{}: {} ({info})", entry.path().display(), info.identity());
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_with_info(&self) -> Result<(Object, ObjectInfo)> {
        self.dir().open_named_with_info(self.c_name())
    }

    /// The info alone, with any access that is granted.
    pub(crate) fn info_any_access(&self) -> Result<ObjectInfo> {
        let error = match self.open_with_info() {
            Ok((_, info)) => return Ok(info),
            Err(error) => error,
        };
        if !error.is(Errno::ACCESS) && !error.is(Errno::ROFS) {
            return Err(error);
        }
        self.get_with::<Object>(Access::ReadOnly)
            .or_else(|_| self.get_with(Access::WriteOnly))
            .map_err(|_| error)?
            .info()
            .map_err(|error| error.of_opened(self.path()))
    }
}
