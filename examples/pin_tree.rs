//! Every pin on every bpffs of this mount namespace, as a tree; or, with --json, one JSON object on a
//! line for each pin and each error. With --find only one object's pins: map:17, prog:4, link:2.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bpf_pin::bpffs::Mount;
use bpf_pin::inventory::{Inventory, PinEntry};
use bpf_pin::object::ObjectInfo;
use bpf_pin::types::ObjName;
use bpf_pin::{Bpffs, Identity, Kind};

const USAGE: &str = "usage: pin_tree [--json] [--find map:ID|prog:ID|link:ID]";

/// As a program.
pub fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let mut out = io::stdout().lock();
    match run(&args, &mut out) {
        // Who reads it has read enough.
        Err(error) if is_closed(&*error) => Ok(()),
        done => done,
    }
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Writes what the arguments ask for.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
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
    let is_wanted = |found: &PinEntry| wanted.is_none_or(|wanted| wanted == found.info.identity());
    let mut found = Inventory::take()?.filter(|found| found.as_ref().map_or(true, is_wanted));
    let mounts = Bpffs::mounts()?;
    if is_json {
        found.try_for_each(|found| writeln!(out, "{}", json(&found)))?;
    } else if mounts.is_empty() {
        let usual = Bpffs::inspect("/sys/fs/bpf")?;
        let nothing = "No bpffs is mounted in this mount namespace";
        writeln!(out, "{nothing}: {usual}.")?;
    } else {
        print(&mounts, found, out)?;
    }
    Ok(())
}

/// "map:17"
fn parse(text: &str) -> Option<Identity> {
    let (kind, id) = text.split_once(':')?;
    let kind = [Kind::Map, Kind::Prog, Kind::Link]
        .into_iter()
        .find(|&of| word(of) == kind)?;
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

/// A name: what is said of it, and the names below it.
#[derive(Default)]
struct Node(String, BTreeMap<String, Node>);

fn print(
    mounts: &[Mount],
    found: impl Iterator<Item = bpf_pin::Result<PinEntry>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let points: HashSet<_> = mounts.iter().map(|mount| &*mount.mount_point).collect();
    let mut trees = BTreeMap::<PathBuf, Node>::new();
    // Each instance by the place where it was mounted first, even if nothing is pinned there.
    let mut seen = HashSet::new();
    for mount in mounts.iter().filter(|mount| seen.insert(mount.dev)) {
        trees.entry(mount.mount_point.clone()).or_default();
    }
    for found in found {
        let (path, text) = match &found {
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
            node = node.1.entry(shown(Path::new(name))).or_default();
        }
        node.0 += &format!("  [{text}]");
    }
    for (point, tree) in &trees {
        let top = mounts.iter().rfind(|mount| mount.mount_point == *point);
        let of = |mount: &Mount| (mount.dev, mount.root.clone());
        let same = mounts.iter().filter(|mount| top.map(of) == Some(of(mount)));
        let others = same
            .map(|mount| &mount.mount_point)
            .filter(|other| *other != point);
        let others: String = others.map(|other| format!(" = {}", shown(other))).collect();
        writeln!(out, "{}{others}{}", shown(point), tree.0)?;
        draw(tree, "", out)?;
    }
    Ok(())
}

fn draw(node: &Node, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    for (i, (name, below)) in node.1.iter().enumerate() {
        let is_last = i + 1 == node.1.len();
        let (branch, further) = [("├── ", "│   "), ("└── ", "    ")][usize::from(is_last)];
        writeln!(out, "{indent}{branch}{name}{}", below.0)?;
        draw(below, &format!("{indent}{further}"), out)?;
    }
    Ok(())
}

/// A path for a terminal, as errors have it, too: what is no text, or would move the cursor, is escaped.
fn shown(path: &Path) -> String {
    let quoted = format!("{path:?}");
    quoted[1..quoted.len() - 1].to_owned()
}

fn json(found: &bpf_pin::Result<PinEntry>) -> String {
    let (path, fields) = match found {
        Ok(found) => (&*found.path, fields(&found.info)),
        Err(error) => {
            let path = error.path().unwrap_or(Path::new(""));
            (path, format!("\"error\":{}", quoted(&error.to_string())))
        }
    };
    let text = quoted(&path.to_string_lossy());
    if path.to_str().is_some() {
        return format!("{{\"path\":{text},{fields}}}");
    }
    // JSON has nothing but text: a path that is none is there in hexadecimal digits, too.
    let bytes = path.as_os_str().as_bytes().iter();
    let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"path\":{text},\"path_hex\":\"{hex}\",{fields}}}")
}

fn fields(info: &ObjectInfo) -> String {
    let ((kind, id), name) = (identity(info), info.name().map_or("", ObjName::as_str));
    let pair = |key, number| format!("\"{key}\":{number}");
    let (of_type, sizes) = match info {
        ObjectInfo::Map(of) => {
            let sizes = [
                pair("key_size", of.key_size),
                pair("value_size", of.value_size),
            ];
            let sizes = sizes.join(",") + "," + &pair("max_entries", of.max_entries);
            (of.map_type.to_string(), sizes)
        }
        ObjectInfo::Prog(of) => (of.prog_type.to_string(), pair("size", of.xlated_prog_len)),
        ObjectInfo::Link(of) => (of.link_type.to_string(), pair("prog_id", of.prog_id)),
    };
    let (name, of_type) = (quoted(name), quoted(&of_type));
    format!("\"kind\":\"{kind}\",\"id\":{id},\"name\":{name},\"type\":{of_type},{sizes}")
}

fn quoted(text: &str) -> String {
    let quoted = text.chars().map(|char| match char {
        '"' | '\\' => format!("\\{char}"),
        '\0'..='\x1f' => format!("\\u{:04x}", u32::from(char)),
        _ => char.to_string(),
    });
    format!("\"{}\"", quoted.collect::<String>())
}
