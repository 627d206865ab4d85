//! A pin opened together with its object's info.

use std::ffi::{CStr, OsStr};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::error::Result;
use crate::object::{Object, ObjectInfo, open_error};
use crate::path::Component;
use crate::sys::AnyInfo;
use crate::types::Access;

use super::{Entry, PinDir};

impl PinDir {
    /// Opens a pin of any kind and returns its [`info`](Object::info) as well.
    ///
    /// As [`get`](Self::get), and one system call both proves the kind and fetches the info.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`Object::info`], with the pin's path.
    pub fn open_with_info(&self, name: impl AsRef<OsStr>) -> Result<(Object, ObjectInfo)> {
        let name = name.as_ref();
        let filename = Component::new(name)
            .map_err(|cause| open_error(&self.path().join(name), cause.into()))?;
        with_info(self, filename.as_c_str())
    }
}

impl<D: Deref<Target = PinDir>> Entry<D> {
    /// Opens a pin of any kind and returns its [`info`](Object::info) as well: see
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
        with_info(self.dir(), self.c_name())
    }

    /// The info alone, by any access that is granted.
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

fn with_info(dir: &PinDir, name: &CStr) -> Result<(Object, ObjectInfo)> {
    let mut info = AnyInfo::new();
    let (object, has_info) = dir.open_named_with_info(name, &mut info)?;
    if has_info {
        let info = ObjectInfo::from_raw(object.kind(), &info);
        return Ok((object, info));
    }
    let info = object.info().map_err(|error| {
        let name = OsStr::from_bytes(name.to_bytes());
        error.of_opened(dir.path().join(name))
    })?;
    Ok((object, info))
}
