//! Descriptors over a socket, the alternative to pins: a map that is passed, one that is lost on its way, and the cost
//! of both ways.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, forget};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use bpf_pin::map::ElemFlags;
use bpf_pin::{Kind, Map, Object};
use common::*;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Set in the process that is handed a map over its standard input.
const RECEIVER: &str = "BPF_PIN_TEST_RECEIVER";

/// Set in the process with one thread, which forks the processes that are traced.
const COUNTED: &str = "BPF_PIN_TEST_COUNTED";

fn main() -> ExitCode {
    for (variable, run) in [(RECEIVER, receiver as fn() -> Outcome), (COUNTED, cost)] {
        if std::env::var_os(variable).is_none() {
            continue;
        }
        let Err(error) = run() else {
            return ExitCode::SUCCESS;
        };
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    const BPF: &[Need] = &[cap::BPF];
    const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
    const ROOT: &[Need] = &[cap::SYS_ADMIN];
    Suite::new()
        .test("a_map_passes_to_another_process", BPF, handed_over)
        .test(
            "objects_of_all_kinds_pass_over_a_socket",
            &[cap::BPF, cap::NET_ADMIN, cap::SYS_ADMIN],
            kinds,
        )
        .test(
            "a_map_in_a_message_lives_until_the_socket_closes",
            ROOT,
            on_its_way,
        )
        .test("a_pin_needs_no_running_process", PINS, pinned)
        .test("a_pin_takes_fewer_syscalls_than_a_socket", PINS, || {
            run_in_own_process(COUNTED, "syscalls")
        })
        .run()
}

fn send(socket: impl AsFd, objects: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(objects)));
    // A message of nothing would not be one.
    sendmsg(
        socket,
        &[IoSlice::new(b"m")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn receive(socket: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let data = &mut [IoSliceMut::new(&mut byte)];
    recvmsg(socket, data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = vec![];
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            received.extend(fds);
        }
    }
    Ok(received)
}

fn receive_one(socket: impl AsFd) -> Outcome<Map> {
    let fd = receive(socket)?.pop().ok_or("no descriptor came")?;
    Ok(Map::try_from(fd)?)
}

/// The other process: it has nothing but the socket.
fn receiver() -> Outcome {
    let stdin = io::stdin();
    let map = receive_one(&stdin)?;
    let flows = map.elements::<u32, u64>()?;
    let seen = flows.lookup(&1)?.ok_or("no entry")?;
    flows.update(&2, &(seen * 2), ElemFlags::ANY)?;
    send(&stdin, &[map.as_fd()])?;
    Ok(())
}

fn handed_over() -> Outcome {
    let map = hash();
    map.elements::<u32, u64>()?
        .update(&1_u32, &21_u64, ElemFlags::ANY)?;
    let (here, there) = UnixStream::pair()?;
    let mut child = command(std::env::current_exe()?)
        .env(RECEIVER, "1")
        .stdin(OwnedFd::from(there))
        .spawn()?;
    send(&here, &[map.as_fd()])?;
    let back = receive_one(&here);
    assert!(child.wait()?.success());
    let back = back?;
    assert_eq!(back.id()?, map.id()?);
    assert_eq!(back.elements::<u32, u64>()?.lookup(&2)?, Some(42));
    Ok(())
}

fn kinds() -> Outcome {
    let (map, prog, link) = (hash(), prog(), detached_link());
    let (here, there) = UnixStream::pair()?;
    send(&here, &[link.as_fd(), map.as_fd(), prog.as_fd()])?;
    let mut received = vec![];
    for fd in receive(&there)? {
        received.push(Object::try_from(fd)?.identity()?);
    }
    assert_eq!(
        received,
        [link.identity()?, map.identity()?, prog.identity()?]
    );
    // A descriptor that is expected to be a map and is not.
    send(&here, &[prog.as_fd()])?;
    let fd = receive(&there)?.pop().ok_or("no descriptor came")?;
    let failed = Map::try_from(fd).expect_err("a program");
    assert_eq!(Object::try_from(failed.into_object())?.kind(), Kind::Prog);
    Ok(())
}

fn on_its_way() -> Outcome {
    let (here, there) = UnixStream::pair()?;
    let map = hash();
    map.elements::<u32, u64>()?
        .update(&3_u32, &33_u64, ElemFlags::ANY)?;
    send(&here, &[map.as_fd()])?;
    drop((map, here));
    // Its sender is gone, and so are all its descriptors but the one in the message.
    let map = receive_one(&there)?;
    assert_eq!(map.elements::<u32, u64>()?.lookup(&3)?, Some(33));

    let (here, there) = UnixStream::pair()?;
    let id = map.id()?;
    send(&here, &[map.as_fd()])?;
    drop(map);
    assert_eq!(Map::from_id(id)?.id()?, id);
    drop((here, there));
    wait_until("gone", || {
        Map::from_id(id).is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
    });
    Ok(())
}

/// A pin needs neither a running sender nor a running receiver.
fn pinned() -> Outcome {
    let fs = TestFs::new();
    let map = hash();
    map.elements::<u32, u64>()?
        .update(&4_u32, &44_u64, ElemFlags::ANY)?;
    drop(map.pin(fs.at("flows"))?);
    for _ in 0..2 {
        let map = Map::open(fs.at("flows"))?;
        assert_eq!(map.elements::<u32, u64>()?.lookup(&4)?, Some(44));
    }
    Ok(())
}

/// The ways to pass a map from one process to another.
struct Scene {
    fs: TestFs,
    map: Map,
    giver: UnixStream,
    taker: UnixStream,
}

impl Scene {
    fn new() -> Outcome<Self> {
        let fs = TestFs::new();
        let map = hash();
        drop(map.try_clone()?.pin(fs.at("flows"))?);
        let (giver, taker) = UnixStream::pair()?;
        Ok(Self {
            fs,
            map,
            giver,
            taker,
        })
    }

    fn given(&self) -> Outcome {
        send(&self.giver, &[self.map.as_fd()])?;
        receive_one(&self.taker)?;
        Ok(())
    }

    /// Both sides: the process with the map must run, and wake up.
    fn asked_for(&self) -> Outcome {
        rustix::io::write(&self.taker, b"?")?;
        rustix::io::read(&self.giver, &mut [0])?;
        self.given()
    }

    fn opened(&self) -> Outcome {
        Map::open(self.fs.at("flows"))?;
        Ok(())
    }
}

/// Opening a pin takes fewer syscalls than receiving a descriptor, and needs no request.
fn cost() -> Outcome {
    const PROOF: &str = "MAP_LOOKUP_BATCH";
    /// A way to a map, and the syscalls that it takes.
    type Way = (fn(&Scene) -> Outcome, &'static [&'static str]);
    let ways: [Way; 3] = [
        (Scene::opened, &["OBJ_GET", PROOF, "close"]),
        (Scene::given, &["sendmsg", "recvmsg", PROOF, "close"]),
        (
            Scene::asked_for,
            &["write", "read", "sendmsg", "recvmsg", PROOF, "close"],
        ),
    ];
    for (way, expected) in ways {
        let ready = || {
            let scene = Scene::new().expect("a map, a pin and a socket");
            // Work that a process does only once.
            way(&scene).expect("a map");
            scene
        };
        let run = |scene: Scene| {
            way(&scene).expect("a map");
            // To be dropped is no part of it.
            forget(scene);
            0
        };
        let mut tracee = Tracee::fork(ready, run)?;
        let mut seen = Vec::new();
        while let Some(stop) = tracee.next()? {
            if stop.is_entry() {
                seen.push(stop.name());
            }
        }
        assert_eq!(tracee.finish()?, 0);
        assert_eq!(seen, expected);
    }
    Ok(())
}
