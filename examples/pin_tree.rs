//! Prints every pin on every bpffs of this mount namespace as a tree.
//!
//! With `--json`, prints one JSON object per line for each pin, by the library's feature `serde`, and for each
//! error. With `--find map:17`,
//! `--find prog:4` or `--find link:2`, prints only the pins of that object, and fails if there are none.

#[path = "plumbing/exit.rs"]
mod exit;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bpf_pin::bpffs::Mount;
use bpf_pin::inventory::{Inventory, PinEntry};
use bpf_pin::object::ObjectInfo;
use bpf_pin::types::ObjName;
use bpf_pin::{Bpffs, Identity, Kind};

use serde_json::{Value, json};

use exit::{Outcome, Usage, exit_code};

const USAGE: Usage = Usage("pin_tree [--json] [--find map:ID|prog:ID|link:ID]");

/// Runs the program.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let mut out = io::stdout().lock();
    let outcome = match run(&args, &mut out) {
        // The reader of the output, such as head(1), has closed it.
        Err(error) if is_closed(&*error) => Ok(()),
        outcome => outcome,
    };
    exit_code("pin_tree", outcome)
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Writes the pins that the arguments select.
pub fn run(args: &[String], out: &mut dyn Write) -> Outcome {
    let (mut is_json, mut wanted) = (false, None);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--json" => is_json = true,
            "--find" => wanted = Some(args.next().and_then(parse).ok_or(USAGE)?),
            "--help" | "-h" => return Ok(writeln!(out, "{USAGE}")?),
            _ => return Err(USAGE.into()),
        }
    }
    let is_wanted = |pin: &PinEntry| wanted.is_none_or(|wanted| wanted == pin.info.identity());
    let mut pin_count = 0;
    let mut pins = Inventory::take()?
        .filter(|pin| pin.as_ref().map_or(true, is_wanted))
        .inspect(|pin| pin_count += usize::from(pin.is_ok()));
    let mounts = Bpffs::mounts()?;
    if is_json {
        pins.try_for_each(|pin| writeln!(out, "{}", json(&pin)?))?;
    } else if mounts.is_empty() {
        let usual = Bpffs::inspect("/sys/fs/bpf")?;
        let nothing = "No bpffs is mounted in this mount namespace";
        writeln!(out, "{nothing}: {usual}.")?;
    } else {
        print(&mounts, pins, out)?;
    }
    match wanted {
        Some(Identity { kind, id }) if pin_count == 0 => {
            let kind = word(kind);
            Err(format!("no pin of {kind}:{id} was found in this mount namespace").into())
        }
        _ => Ok(()),
    }
}

/// Parses an argument such as "map:17".
fn parse(text: &str) -> Option<Identity> {
    let (kind, id) = text.split_once(':')?;
    let kind = [Kind::Map, Kind::Prog, Kind::Link]
        .into_iter()
        .find(|&known| word(known) == kind)?;
    let id = id.parse().ok()?;
    Some(Identity { kind, id })
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Map => "map",
        Kind::Prog => "prog",
        Kind::Link => "link",
    }
}

fn identity(info: &ObjectInfo) -> (&'static str, u32) {
    let Identity { kind, id } = info.identity();
    (word(kind), id)
}

/// An entry of the tree.
#[derive(Default)]
struct Node {
    text: String,
    children: BTreeMap<String, Node>,
}

fn print(
    mounts: &[Mount],
    pins: impl Iterator<Item = bpf_pin::Result<PinEntry>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let points: HashSet<_> = mounts.iter().map(|mount| &*mount.mount_point).collect();
    let mut trees = BTreeMap::<PathBuf, Node>::new();
    writeln!(out, "Pins on every bpffs of this mount namespace:")?;
    // Lists each instance by its first mount point, even if nothing is pinned on it.
    let mut seen = HashSet::new();
    for mount in mounts.iter().filter(|mount| seen.insert(mount.dev)) {
        trees.entry(mount.mount_point.clone()).or_default();
    }
    for pin in pins {
        let (path, text) = match &pin {
            Ok(PinEntry { path, info, .. }) => {
                let ((kind, id), name) = (identity(info), info.name().map_or("", ObjName::as_str));
                (&**path, format!("{kind}:{id} {name:?}, {info}"))
            }
            Err(error) => (error.path().unwrap_or(Path::new("")), error.to_string()),
        };
        let mount_point = path.ancestors().find(|path| points.contains(path));
        let point = mount_point.unwrap_or(path);
        let mut node = trees.entry(point.to_owned()).or_default();
        for name in path.strip_prefix(point).into_iter().flatten() {
            let child = node.children.entry(escaped(Path::new(name)));
            node = child.or_default();
        }
        node.text += &format!("  [{text}]");
    }
    for (point, tree) in &trees {
        let top = mounts.iter().rfind(|mount| mount.mount_point == *point);
        let of = |mount: &Mount| (mount.dev, mount.root.clone());
        let same = mounts.iter().filter(|mount| top.map(of) == Some(of(mount)));
        let others = same
            .map(|mount| &mount.mount_point)
            .filter(|other| *other != point);
        let others: String = others
            .map(|other| format!(" = {}", escaped(other)))
            .collect();
        writeln!(out, "{}{others}{}", escaped(point), tree.text)?;
        draw(tree, "", out)?;
    }
    Ok(())
}

fn draw(node: &Node, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    for (i, (name, child)) in node.children.iter().enumerate() {
        let is_last = i + 1 == node.children.len();
        let (branch, further) = [("├── ", "│   "), ("└── ", "    ")][usize::from(is_last)];
        writeln!(out, "{indent}{branch}{name}{}", child.text)?;
        draw(child, &format!("{indent}{further}"), out)?;
    }
    Ok(())
}

/// Escapes bytes that are not UTF-8 and characters that control a terminal, as errors do.
fn escaped(path: &Path) -> String {
    let quoted = format!("{path:?}");
    quoted[1..quoted.len() - 1].to_owned()
}

fn json(pin: &bpf_pin::Result<PinEntry>) -> serde_json::Result<String> {
    match pin {
        Ok(pin) => serde_json::to_string(pin),
        Err(error) => Ok(json!({ "path": path(error), "error": error.to_string() }).to_string()),
    }
}

/// The path of an error as that of a pin is written: a path that is not UTF-8 is an array of its bytes.
fn path(error: &bpf_pin::Error) -> Option<Value> {
    let path = error.path()?.as_os_str();
    Some(path.to_str().map_or(path.as_bytes().into(), Value::from))
}
