//! Delegation: a process in a user namespace opens a bpffs, and a privileged one creates it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, read};
use rustix::mount::fsconfig_set_string;

use crate::error::{Cause, Operation, Reason, Result};
use crate::process::is_filtered;
use crate::procfs::{self, BPF};
use crate::token::socket::{self, Request};

use super::instance::error;
use super::mount::{Detached, create, open_context};
use super::options::MountOptions;

impl MountOptions {
    /// Requests a bpffs from a privileged process over `socket`, and returns it detached. Linux 6.9.
    ///
    /// This process, in a user namespace, opens the bpffs. The other process creates it with
    /// [`grant_delegation`](Self::grant_delegation). `socket` is a connected Unix socket of any type. The thread
    /// needs `CAP_SYS_ADMIN` in its user namespace, and a mount namespace that belongs to it. This side chooses mode,
    /// owner, source and flags; the other side chooses what is delegated. Owners are ids of this user namespace. Once
    /// the bpffs is attached, [`Bpffs::delegation`](crate::Bpffs::delegation) returns what was delegated.
    ///
    /// The call waits for the answer until the socket times out (`SO_RCVTIMEO`). Late answers to earlier
    /// requests are skipped. Both sides must use the same version of this library. If the bpffs cannot be opened,
    /// the other side is informed and does not wait.
    ///
    /// # Errors
    ///
    /// [`Operation::RequestDelegation`](crate::error::Operation::RequestDelegation):
    /// - [`PeerRefused`](Cause::PeerRefused) with the other side's errno
    /// - [`Handshake`](Cause::Handshake) if the answer has another form
    /// - [`PeerClosed`](Cause::PeerClosed) if the other side closed the socket (EPIPE, ECONNRESET)
    /// - [`Handshake`](Cause::Handshake) if the socket timed out (EAGAIN)
    /// - [`ForeignUserNamespace`](Cause::ForeignUserNamespace),
    ///   [`MissingCapability`](Cause::MissingCapability) (EPERM)
    /// - [`InvalidArgument`](Cause::InvalidArgument), also if these options delegate anything, or (EINVAL) if
    ///   an owner is not mapped in this user namespace
    /// - [`OptionIgnored`](Cause::OptionIgnored) if the kernel is too old for an owner
    /// - those of [`detached`](Self::detached), and the errnos of sendmsg(2) and recvmsg(2)
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::os::unix::net::UnixStream;
    ///
    /// use bpf_pin::bpffs::MountOptions;
    /// use bpf_pin::token::Token;
    ///
    /// // In a user and mount namespace of its own.
    /// let socket = UnixStream::connect("/run/app/delegate")?;
    /// let bpffs = MountOptions::new().request_delegation(&socket)?;
    /// let token = Token::create(&bpffs)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_delegation(&self, socket: impl AsFd) -> Result<Detached> {
        match self.request(socket.as_fd()) {
            Ok(mount) => Ok(Detached::new(mount, self.clone())),
            Err(reason) => Err(error(Operation::RequestDelegation, Path::new(""), reason)),
        }
    }

    fn request(&self, socket: BorrowedFd<'_>) -> Result<OwnedFd, Reason> {
        let context = self.open_own().inspect_err(|_| {
            // The first error is the one to report.
            let _ = socket::send_no_request(socket);
        })?;
        let number = socket::send_request(socket, context.as_fd())?;
        match socket::receive_answer(socket, number)? {
            // Mode and owner are not checked: those of the other side take precedence, and a kernel with
            // delegation ignores neither.
            0 => self.take_mount(context.as_fd()),
            errno => Err(Cause::PeerRefused { errno }.into()),
        }
    }

    fn open_own(&self) -> Result<OwnedFd, Reason> {
        self.check()?;
        if let Some(option) = self.first_delegated() {
            return Err(Cause::invalid(option, "can only be set by the other side").into());
        }
        let context = open_context()?;
        self.prove_owner_options(context.as_fd())?;
        self.configure(context.as_fd())?;
        Ok(context)
    }

    /// Receives one request from `socket`, creates the bpffs that was opened, with these options, and
    /// answers. Linux 6.9.
    ///
    /// This is the privileged side. Call it again for the next request.
    ///
    /// Mode and owner, if these options set them, take precedence over those that the other side chose. The
    /// other side chooses flags and source. Owners are ids of this side's user namespace, and must be mapped
    /// in the other's.
    ///
    /// # Security
    ///
    /// Authenticate the other side first: it gets everything that these options delegate.
    ///
    /// Nothing that the other side sends is trusted. The descriptor must be the context of a bpffs: with the
    /// context of another file system, a privileged process would mount a file system that the other side may
    /// not mount. This is proven with the descriptor's name in /proc and with the file system's name in the
    /// kernel's message about a wrong option. While this call runs, the other side can set options of the
    /// same context. The kernel checks with the other side's privileges what it may delegate.
    ///
    /// # Blocking
    ///
    /// The call waits for the request, and for room to answer, until the socket times out (`SO_RCVTIMEO` and
    /// `SO_SNDTIMEO`). It closes the received descriptors after the answer. The other side can make closing
    /// take any time, for example with a socket that lingers: if your thread must not block, call this on
    /// another one. (The kernel closes descriptors beyond this process's limit at once.)
    ///
    /// # Errors
    ///
    /// [`Operation::GrantDelegation`](crate::error::Operation::GrantDelegation), and the other side is
    /// informed if that is possible:
    /// - [`Handshake`](Cause::Handshake) if it sent no context of a bpffs
    /// - [`Handshake`](Cause::Handshake) if the context was used before (EBUSY)
    /// - [`Handshake`](Cause::Handshake) if the request has another form, no descriptor or several, or if
    ///   the other side gave up: then it gets no answer
    /// - [`PeerClosed`](Cause::PeerClosed) (EPIPE, ECONNRESET) and [`Handshake`](Cause::Handshake) (EAGAIN)
    /// - [`OptionIgnored`](Cause::OptionIgnored) before Linux 6.9
    /// - [`InvalidArgument`](Cause::InvalidArgument) if an owner is not mapped in the other side's user
    ///   namespace (EINVAL)
    /// - [`MissingCapability`](Cause::MissingCapability) or [`NeedsDelegation`](Cause::NeedsDelegation) if
    ///   this thread is not privileged either (EPERM)
    /// - [`NoProc`](Cause::NoProc)
    /// - the errnos of recvmsg(2) and sendmsg(2)
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::os::unix::net::UnixListener;
    ///
    /// use bpf_pin::bpffs::MountOptions;
    /// use bpf_pin::token::Allowed;
    /// use bpf_pin::types::Command;
    /// use bpf_pin::MapType;
    ///
    /// let listener = UnixListener::bind("/run/app/delegate")?;
    /// let (socket, _) = listener.accept()?;
    /// MountOptions::new()
    ///     .delegate_cmds([Command::MAP_CREATE])
    ///     .delegate_maps([MapType::HASH, MapType::ARRAY])
    ///     .grant_delegation(&socket)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grant_delegation(&self, socket: impl AsFd) -> Result<()> {
        let socket = socket.as_fd();
        let mut request = Request::default();
        let granted = self.grant(socket, &mut request);
        let answered = match &granted {
            Ok(()) => socket::send_answer(socket, request.number, 0),
            Err(reason) if socket::has_given_up(reason) => Ok(()),
            Err(reason) => {
                let errno = reason.raw_os_error();
                let errno = errno.unwrap_or(Errno::OPNOTSUPP.raw_os_error());
                socket::send_answer(socket, request.number, errno)
            }
        };
        // Closes the received descriptors, which may take long.
        drop(request);
        granted
            .and(answered)
            .map_err(|reason| error(Operation::GrantDelegation, Path::new(""), reason))
    }

    fn grant(&self, socket: BorrowedFd<'_>, request: &mut Request) -> Result<(), Reason> {
        self.check()?;
        let context = request.receive(socket)?;
        prove_bpf_context(context)?;
        self.configure_granted(context)
            .and_then(|()| create(context))
            // The other side may have used the context in the meantime.
            .map_err(|reason| reason.explained(used_before))
    }
}

/// A context accepts options until a file system is created from it. The context of an existing mount
/// accepts them too, but nothing can be created from it.
fn used_before(errno: Errno) -> Option<Cause> {
    (errno == Errno::BUSY && !is_filtered())
        .then(|| Cause::handshake("sent a context that was used before"))
}

fn prove_bpf_context(context: BorrowedFd<'_>) -> Result<(), Reason> {
    let name = procfs::fd_name(context)?;
    if name != "anon_inode:[fscontext]" {
        return Err(no_context(Some(&name.to_string_lossy())).into());
    }
    match file_system_of(context)? {
        Some(name) if name == BPF => Ok(()),
        found => Err(no_context(found.as_deref()).into()),
    }
}

fn no_context(found: Option<&str>) -> Cause {
    match found {
        Some(found) => Cause::handshake(format!("sent {found}, not the context of a bpffs")),
        None => Cause::handshake("sent something else than the context of a bpffs"),
    }
}

/// The name at the beginning of the kernel's message about a wrong option.
fn file_system_of(context: BorrowedFd<'_>) -> Result<Option<String>, Reason> {
    /// The other side may read the messages first, or cause other messages.
    const TRIES: usize = 16;

    let mut line = [0; 256];
    for _ in 0..TRIES {
        // Any message, about this option or an earlier one, names the same file system.
        if fsconfig_set_string(context, c"mode", c"none") == Err(Errno::BUSY) {
            return Err(Reason::new(Errno::BUSY, used_before(Errno::BUSY)));
        }
        if let Ok(len) = read(context, &mut line) {
            return Ok(parse_name(&line[..len]));
        }
    }
    Ok(None)
}

fn parse_name(message: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(message).ok()?;
    // The first letter is the level: error, warning or notice.
    let (name, _) = text.get(2..)?.split_once(": ")?;
    Some(name.to_owned())
}
