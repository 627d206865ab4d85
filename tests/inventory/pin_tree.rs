//! The example that draws all pins: what it draws, what it says in JSON, and how it ends.

#[allow(missing_docs)]
#[path = "../../examples/pin_tree.rs"]
mod example;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use bpf_pin::bpffs::MountOptions;
use bpf_pin::{Bpffs, Link};
use common::*;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::pipe::pipe;
use rustix::thread::CapabilitySet;
use serde_json::Value;

const CHILD: &str = "BPF_PIN_TEST_PIN_TREE";

/// What a terminal would be moved by, what ends a text in JSON, and what is no text.
const ODD: &[u8] = b"odd\"\\\n\x1b[2J\xff";

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if env::var_os(CHILD).is_some() {
        return Some(match example::main() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("Error: {error:?}");
                ExitCode::FAILURE
            }
        });
    }
    None
}

fn draw(args: &[&str]) -> Result<Output, std::io::Error> {
    let mut it = Command::new(env::current_exe()?);
    it.args(args).env(CHILD, "1").output()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("a text")
}

struct Pins {
    map: u32,
    prog: u32,
    link: u32,
}

/// What the machine has is not in sight.
fn unmount_all() -> Outcome {
    for mount in Bpffs::mounts()?.iter().rev() {
        unmount(&mount.mount_point, UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// A bpffs with a pin of each kind, mounted a second time, and no other.
fn with_pins(test: impl FnOnce(&Path, Pins) -> Outcome + Send) -> Outcome {
    let place = fs::canonicalize(env::temp_dir())?;
    let dir = tempfile::tempdir_in(place)?;
    own_mounts(|| {
        unmount_all()?;
        let (at, again) = (dir.path().join("at"), dir.path().join("again"));
        fs::create_dir(&at)?;
        fs::create_dir(&again)?;
        MountOptions::new().mode(0o755).mount(&at)?;
        mount_bind(&at, &again)?;
        let (map, prog, link) = (hash(), prog(), link());
        let pins = Pins {
            map: map.id()?,
            prog: prog.id()?,
            link: link.id()?,
        };
        fs::create_dir_all(at.join("app/deep"))?;
        map.try_clone()?.pin(at.join("app/flows"))?;
        map.pin(at.join("app").join(OsStr::from_bytes(ODD)))?;
        prog.pin(at.join("app/deep/filter"))?;
        link.pin(at.join("wire"))?;
        test(&at, pins)
    })
}

#[common::test(ROOT)]
fn as_a_tree() -> Outcome {
    with_pins(|at, Pins { map, prog, link }| {
        let said = text(&draw(&[])?);
        let again = at.with_file_name("again");
        let map = format!("[map:{map} \"test_hash\", ");
        let prog = format!("[prog:{prog} \"test_filter\", ");
        let link = format!("[link:{link} \"\", ");
        let lines = [
            format!("{} = {}", again.display(), at.display()),
            "├── app".into(),
            "│   ├── deep".into(),
            format!("│   │   └── filter  {prog}"),
            format!("│   ├── flows  {map}"),
            format!("│   └── odd\\\"\\\\\\n\\u{{1b}}[2J\\xFF  {map}"),
            format!("└── wire  {link}"),
        ];
        // A fresh bpffs has two files of the kernel's own.
        let found: Vec<_> = said
            .lines()
            .filter(|line| !line.contains(".debug"))
            .collect();
        assert_eq!(found.len(), lines.len(), "{said}");
        let is_swapped = found[0].starts_with(&format!("{} =", at.display()));
        for (line, begin) in found.iter().zip(lines).skip(usize::from(is_swapped)) {
            assert!(line.starts_with(&begin), "{begin}: {said}");
        }
        Ok(())
    })
}

fn lines(output: &Output) -> Vec<Value> {
    let text = text(output);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

#[common::test(ROOT)]
fn as_json() -> Outcome {
    with_pins(|at, pins| {
        let lines = lines(&draw(&["--json"])?);
        let named = |name: &[u8]| {
            let is_named = |line: &&Value| match &line["path_hex"] {
                Value::String(hex) => bytes(hex).ends_with(name),
                _ => line["path"]
                    .as_str()
                    .is_some_and(|path| path.as_bytes().ends_with(name)),
            };
            let mut all = lines.iter().filter(is_named);
            let line = all.next().unwrap_or_else(|| panic!("{name:?}: {lines:#?}"));
            assert!(all.next().is_none());
            line
        };
        for name in [b"/app/flows", &[b"/app/", ODD].concat()[..]] {
            let line = named(name);
            assert_eq!(line["kind"], "map");
            assert_eq!(line["id"], pins.map);
            assert_eq!(line["name"], "test_hash");
            let sizes = ["key_size", "value_size", "max_entries"].map(|size| &line[size]);
            assert_eq!(sizes, [4, 8, 8]);
            assert_eq!(line["type"], hash().info()?.map_type.to_string());
        }
        let filter = named(b"/app/deep/filter");
        assert_eq!(filter["kind"], "prog");
        assert_eq!(filter["id"], pins.prog);
        assert!(filter["size"].as_u64() > Some(0), "{filter}");
        let wire = named(b"/wire");
        assert_eq!(wire["kind"], "link");
        assert_eq!(wire["id"], pins.link);
        assert!(wire["prog_id"].is_u64(), "{wire}");
        // Each once, though it is mounted twice.
        let pins = lines.iter().filter(|line| line["error"].is_null());
        assert_eq!(pins.count(), 4 + debug_files(at));
        Ok(())
    })
}

/// Those of the kernel's own that can be opened.
fn debug_files(at: &Path) -> usize {
    let paths = ["maps.debug", "progs.debug"].map(|name| at.join(name));
    paths.iter().filter(|path| Link::open(path).is_ok()).count()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[common::test(ROOT)]
fn of_one_object() -> Outcome {
    with_pins(|at, pins| {
        let id = pins.map;
        for (wanted, count) in [
            (format!("map:{id}"), 2),
            (format!("prog:{}", pins.prog), 1),
            (format!("link:{}", pins.link), 1),
            ("map:4294967295".into(), 0),
        ] {
            let lines = lines(&draw(&["--json", "--find", &wanted])?);
            let pins = lines.iter().filter(|line| line["error"].is_null());
            assert_eq!(pins.count(), count, "{wanted}: {lines:#?}");
        }
        let said = text(&draw(&["--find", &format!("map:{id}")])?);
        assert!(said.contains("flows") && !said.contains("filter"), "{said}");
        assert!(said.contains(&*at.to_string_lossy()), "{said}");
        Ok(())
    })
}

/// A directory that may not be read.
#[common::test(USER)]
fn errors_have_their_places() -> Outcome {
    with_pins(|at, _| {
        fs::set_permissions(at.join("app"), Permissions::from_mode(0o700))?;
        let drawn = |args: &'static [&str]| {
            let args: Vec<_> = args.iter().copied().map(str::to_owned).collect();
            as_user(CapabilitySet::empty(), || {
                let mut said = vec![];
                example::run(&args, &mut said).map_err(|error| error.to_string())?;
                Ok::<_, String>(String::from_utf8_lossy(&said).into_owned())
            })
        };
        let app = at.join("app").to_string_lossy().into_owned();
        let json = drawn(&["--json"])?;
        let parse = |line: &str| serde_json::from_str::<Value>(line);
        let all: Vec<_> = json.lines().map(parse).collect::<Result<_, _>>()?;
        let is_app = |line: &&Value| {
            line["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("/app"))
        };
        let line = all
            .iter()
            .find(is_app)
            .unwrap_or_else(|| panic!("{app}: {json}"));
        assert!(
            line["error"]
                .as_str()
                .is_some_and(|said| said.contains("/app")),
            "{line}"
        );
        assert!(!json.contains("flows"), "{json}");
        let tree = drawn(&[])?;
        let place = tree
            .lines()
            .find(|line| line.contains("── app  ["))
            .expect("its place");
        let reason = "(mode 0700, owner 0) denies this user search access]";
        assert!(place.ends_with(reason), "{place}");
        Ok(())
    })
}

/// A directory whose name would draw over what is there.
#[common::test(USER)]
fn an_error_moves_no_cursor() -> Outcome {
    with_pins(|at, _| {
        let dir = at.join(OsStr::from_bytes(b"x\x1b]0;owned\x07\x1b[2J\nroot"));
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        let said = as_user(CapabilitySet::empty(), || {
            let mut said = vec![];
            example::run(&[], &mut said).map_err(|error| error.to_string())?;
            Ok::<_, String>(String::from_utf8_lossy(&said).into_owned())
        })?;
        assert!(said.contains("owned"), "{said:?}");
        let is_control = |char: char| char.is_control() && char != '\n';
        assert!(!said.contains(is_control), "{said:?}");
        assert!(
            !said.lines().any(|line| line.starts_with("root")),
            "{said:?}"
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn where_no_bpffs_is() -> Outcome {
    own_mounts(|| {
        unmount_all()?;
        let said = text(&draw(&[])?);
        assert!(
            said.starts_with("No bpffs is mounted in this mount namespace: "),
            "{said}"
        );
        assert_eq!(text(&draw(&["--json"])?), "");
        Ok(())
    })
}

#[common::test]
fn what_it_does_not_understand() -> Outcome {
    let help = text(&draw(&["--help"])?);
    assert!(help.starts_with("usage: "), "{help}");
    for args in [
        &["--tree"][..],
        &["--find"],
        &["--find", "map"],
        &["--find", "map:"],
        &["--find", "map:-1"],
        &["--find", "tracepoint:17"],
        &["--find", "map:1:2"],
    ] {
        let output = draw(args)?;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("usage: "), "{said}");
    }
    Ok(())
}

/// As head(1) does.
#[common::test(ROOT)]
fn who_reads_it_goes() -> Outcome {
    with_pins(|_, _| {
        let (reader, writer) = pipe()?;
        drop(reader);
        let mut it = Command::new(env::current_exe()?);
        let it = it.env(CHILD, "1").stdout(writer).stderr(Stdio::piped());
        let output = it.spawn()?.wait_with_output()?;
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        Ok(())
    })
}
