//! A bpffs for child processes, and helpers to run them.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bpf_pin::bpffs::MountOptions;
use common::{bring_up_loopback, find_program, in_mount_namespace};
use tempfile::NamedTempFile;

use crate::Counter;

/// Runs `test` on a thread with a private bpffs, which only its child processes see. The path has no dot, as libbpf
/// requires.
pub fn mounted<T: Send>(test: impl FnOnce(&Path) -> T + Send) -> T {
    let place = tempfile::Builder::new().prefix("bpf-pin-").tempdir();
    let place = place.expect("a directory to mount on");
    in_mount_namespace(|| {
        let mounted = MountOptions::new().mode(0o700).mount(place.path());
        mounted.expect("a bpffs of the test's own");
        test(place.path())
    })
}

/// A program of another project.
pub fn tool(name: &str) -> Command {
    let mut command = common::command(find_program(name).expect("a need of the test"));
    command.env("LC_ALL", "C");
    command
}

/// Runs a command and returns its output. A failure is an error with the output of both streams.
pub fn output(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    Err(io::Error::other(format!(
        "{command:?}: {status}\n{said}{complaint}"
    )))
}

/// Sends packets over the loopback device of this thread's own network namespace, and waits for each to arrive.
pub fn send_packets(packets: usize) -> io::Result<()> {
    bring_up_loopback()?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    // A dropped packet is an error after this time.
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    for _ in 0..packets {
        socket.send(b"counted")?;
        socket.recv(&mut [0; 8])?;
    }
    Ok(())
}

/// The object as a file, for a program that loads it.
pub fn file(counter: &Counter<'_>) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix("counter-").suffix(".o").tempfile()?;
    fs::write(file.path(), counter.elf())?;
    Ok(file)
}
