//! Features of the running kernel, found by calling.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::bpffs::MountOptions;
use crate::dir::PinDir;
use crate::error::Cause;
use crate::process::is_filtered;
use crate::sys;

/// The features of the running kernel that this library uses. Each is found by calling, not by the
/// version, because distributions backport features.
///
/// `None`: could not be determined by this thread. Before Linux 5.19 bpf(2) as a whole may be closed to it.
/// Some features need a new bpffs to try them on, which requires `CAP_SYS_ADMIN` in the initial user
/// namespace and fsopen(2). Behind a seccomp filter, which may answer instead of the kernel, no feature
/// counts as missing. A known answer is remembered.
///
/// # Examples
///
/// ```
/// use bpf_pin::probe::Features;
///
/// let kernel = Features::of_this_kernel();
/// if kernel.exchange == Some(false) {
///     eprintln!("Stage::publish will leave a gap");
/// }
/// println!("{kernel}");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// `BPF_F_PATH_FD`: reaches names in an open directory without /proc. Linux 6.5.
    pub path_fd: Option<bool>,
    /// `RENAME_EXCHANGE` on a bpffs, for [`PinDir::exchange`] and for
    /// [`Stage::publish`](crate::dir::Stage::publish) without a gap. Linux 5.17.
    pub exchange: Option<bool>,
    /// `BPF_TOKEN_CREATE`: [`Token`](crate::token::Token)s and delegated bpffs. Linux 6.9.
    pub token: Option<bool>,
    /// The options `uid` and `gid` of a bpffs. Linux 6.8.
    pub owner_options: Option<bool>,
    /// `BPF_LINK_CREATE`: [`Link`](crate::Link)s, and pins of them. Linux 5.7.
    pub link_pins: Option<bool>,
    /// `BPF_MAP_LOOKUP_BATCH` and the other batch commands. Linux 5.6.
    pub batch: Option<bool>,
}

impl Features {
    /// Finds the features of the running kernel.
    pub fn of_this_kernel() -> Self {
        static KNOWN: [OnceLock<bool>; 6] = [const { OnceLock::new() }; 6];
        let [path_fd, exchange, token, owner_options, link_pins, batch] = &KNOWN;
        Self {
            path_fd: once(path_fd, || knows_command(sys::probe_path_fd())),
            exchange: once(exchange, has_exchange),
            token: once(token, || knows_command(sys::probe_token_create())),
            owner_options: once(owner_options, has_owner_options),
            link_pins: once(link_pins, || knows_command(sys::probe_link_create())),
            batch: once(batch, || knows_command(sys::probe_batch())),
        }
    }
}

fn once(known: &OnceLock<bool>, probe: impl FnOnce() -> Option<bool>) -> Option<bool> {
    if known.get().is_none() {
        // Another thread may have set it, to the same answer.
        let _ = known.set(probe()?);
    }
    known.get().copied()
}

/// Interprets the errno of a call with a bad descriptor: the kernel checks the command first.
fn knows_command(errno: Errno) -> Option<bool> {
    match errno {
        Errno::BADF | Errno::BADFD => Some(true),
        // A seccomp filter may answer the same.
        Errno::INVAL if !is_filtered() => Some(false),
        _ => None,
    }
}

fn has_exchange() -> Option<bool> {
    let bpffs = MountOptions::new().detached().ok()?;
    let root = PinDir::from_fd(OwnedFd::from(bpffs)).ok()?;
    for name in ["a", "b"] {
        root.create_dir(name, 0o700).ok()?;
    }
    match root.exchange("a", "b") {
        Ok(()) => Some(true),
        Err(error) => match error.cause() {
            Some(Cause::Unsupported { .. }) => Some(false),
            _ => None,
        },
    }
}

fn has_owner_options() -> Option<bool> {
    match MountOptions::new().uid(1).gid(1).detached() {
        Ok(_) => Some(true),
        Err(error) => match error.cause() {
            Some(Cause::OptionIgnored { .. }) if !is_filtered() => Some(false),
            _ => None,
        },
    }
}

/// One line with an answer for each feature.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("path_fd", self.path_fd),
            ("exchange", self.exchange),
            ("token", self.token),
            ("owner options", self.owner_options),
            ("link pins", self.link_pins),
            ("batch", self.batch),
        ];
        for (i, (name, found)) in all.into_iter().enumerate() {
            let found = match found {
                Some(true) => "yes",
                Some(false) => "no",
                None => "unknown",
            };
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{name}: {found}")?;
        }
        Ok(())
    }
}
