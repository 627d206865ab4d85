//! A descriptor over a Unix socket, the alternative to a pin.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bpf_pin::Map;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::Failure;
use crate::bench::Bench;
use crate::pairs::{Contender, Notes, goal};
use crate::place::{aligned, c_path, hash};
use crate::raw;

use super::object::assert_is_hash;

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let path = aligned(&bench.place.at("rights"));
    let map = hash(8)?.pin(path)?;
    let (here, there) = UnixStream::pair()?;
    let raw_path = c_path(path);
    let contenders = vec![
        Contender::new("raw", || assert_is_hash(&raw::get(&raw_path))),
        Contender::new("raw, SCM_RIGHTS", || {
            send(&here, map.as_fd());
            assert_is_hash(&receive(&there));
        }),
        Contender::new("bpf-pin", || drop(Map::open(path).expect("a map"))),
        Contender::new("bpf-pin, SCM_RIGHTS", || {
            send(&here, map.as_fd());
            drop(Map::try_from(receive(&there)).expect("a map"));
        }),
    ];
    let goals = vec![
        goal("bpf-pin", "raw", 1.02),
        goal("bpf-pin", "bpf-pin, SCM_RIGHTS", 1.0),
    ];
    let notes = Notes {
        raw: "BPF_OBJ_GET, info, close. Over a socket, sendmsg and recvmsg replace BPF_OBJ_GET",
        why: "sendmsg and recvmsg take as long as the path lookup if both ends are in one process, so that no \
              daemon has to be woken.",
    };
    let name = "another process's map, by pin or over a socket";
    bench.call(name, contenders, goals, notes);
    map.unpin().map_err(bpf_pin::Error::from)?;
    Ok(())
}

fn send(socket: &UnixStream, fd: BorrowedFd<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    // A message needs at least one byte.
    let data = [IoSlice::new(b"m")];
    sendmsg(socket, &data, &mut control, SendFlags::empty()).expect("sendmsg");
}

fn receive(socket: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let data = &mut [IoSliceMut::new(&mut byte)];
    recvmsg(socket, data, &mut control, RecvFlags::CMSG_CLOEXEC).expect("recvmsg");
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.next().expect("a descriptor")
}
