//! The steps of the examples: a loader, packets, a reader, the next loader, more packets, a reader.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use common::{LOOPBACK, cap, in_network_namespace};

use crate::{Counter, Maps, mounted, send_packets};

/// The result of a step.
pub type Outcome<T = ()> = common::Outcome<T>;

/// The object that both loaders load: an XDP program `count`, which passes every packet, and its map
/// `packets`.
pub fn object() -> Vec<u8> {
    let object = Counter {
        section: "xdp",
        prog: "count",
        map: "packets",
        maps: Maps::Btf,
        returns: 2,
    };
    object.elf()
}

/// Runs the step of the command line, or without arguments all steps, each in its own process.
pub fn main(
    load: impl Fn(&Path, u32) -> Outcome,
    count: impl Fn(&Path) -> Outcome<u64>,
) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => story(),
        ["load", directory, ifindex] => ifindex
            .parse()
            .map_err(Into::into)
            .and_then(|ifindex| load(directory.as_ref(), ifindex)),
        ["count", directory] => {
            count(directory.as_ref()).map(|count| println!("{count} packets counted"))
        }
        _ => Err("usage: [load DIRECTORY IFINDEX | count DIRECTORY]".into()),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{error}");
    ExitCode::FAILURE
}

fn story() -> Outcome {
    if let Some(lacks) = [cap::SYS_ADMIN, cap::NET_ADMIN]
        .iter()
        .find_map(|need| need.unmet())
    {
        return Err(lacks.into());
    }
    mounted(|root| {
        in_network_namespace(|| {
            let directory = root.join("app");
            let directory = directory.as_os_str();
            let ifindex = LOOPBACK.to_string();
            let ifindex = ifindex.as_ref();
            run(&["load".as_ref(), directory, ifindex])?;
            send_packets(5)?;
            run(&["count".as_ref(), directory])?;
            run(&["load".as_ref(), directory, ifindex])?;
            send_packets(5)?;
            run(&["count".as_ref(), directory])
        })
    })
}

/// Runs a step in a process of its own.
fn run(args: &[&OsStr]) -> Outcome {
    let status = common::command(std::env::current_exe()?)
        .args(args)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{args:?}: {status}").into()),
    }
}
