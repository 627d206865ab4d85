//! A directory is found by its path, or the error says what stands in the way.

use std::path::Path;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::Reason;
use crate::mounts::Directory;

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, Reason> {
        let explain = |errno| diagnose::walk(path, errno);
        Self::hold(path).map_err(|reason| reason.explained(explain))
    }

    /// Of a bpffs, or the error that says what is there instead.
    pub(crate) fn on_bpffs(self, path: &Path) -> Result<Self, Cause> {
        match self.fs.is_bpffs() {
            true => Ok(self),
            false => Err(diagnose::not_bpffs(path, self.fs)),
        }
    }
}
