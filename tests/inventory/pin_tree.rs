//! The example pin_tree: its tree, its JSON, its errors and its exit codes.

#[allow(missing_docs)]
#[path = "../../examples/pin_tree.rs"]
mod example;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use bpf_pin::bpffs::MountOptions;
use bpf_pin::{Bpffs, Link};
use common::*;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::pipe::pipe;
use rustix::thread::CapabilitySet;
use serde_json::Value;

const CHILD: &str = "BPF_PIN_TEST_PIN_TREE";

/// A name that would move a terminal's cursor, end a JSON string, and is not UTF-8.
const ODD: &[u8] = b"odd\"\\\n\x1b[2J\xff";

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    env::var_os(CHILD).map(|_| example::main())
}

fn pin_tree(args: &[&str]) -> Result<Output, std::io::Error> {
    let mut child = common::command(env::current_exe()?);
    child.args(args).env(CHILD, "1").output()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

struct Pins {
    map: u32,
    prog: u32,
    link: u32,
}

/// Hides every bpffs of the machine from this mount namespace.
fn unmount_all() -> Outcome {
    for mount in Bpffs::mounts()?.iter().rev() {
        unmount(&mount.mount_point, UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// Runs a test with one bpffs, which is mounted twice and has a pin of each kind.
fn with_pins(test: impl FnOnce(&Path, Pins) -> Outcome + Send) -> Outcome {
    let place = fs::canonicalize(env::temp_dir())?;
    let dir = tempfile::tempdir_in(place)?;
    in_mount_namespace(|| {
        unmount_all()?;
        let (at, again) = (dir.path().join("at"), dir.path().join("again"));
        fs::create_dir(&at)?;
        fs::create_dir(&again)?;
        MountOptions::new().mode(0o755).mount(&at)?;
        mount_bind(&at, &again)?;
        let (map, prog, link) = (hash(), prog(), detached_link());
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
fn it_prints_each_pin_in_a_tree() -> Outcome {
    with_pins(|at, Pins { map, prog, link }| {
        let output = text(&pin_tree(&[])?);
        let again = at.with_file_name("again");
        let map = format!("[map:{map} \"test_hash\", ");
        let prog = format!("[prog:{prog} \"test_filter\", ");
        let link = format!("[link:{link} \"\", ");
        let lines = [
            "Pins on every bpffs of this mount namespace:".into(),
            format!("{} = {}", again.display(), at.display()),
            "├── app".into(),
            "│   ├── deep".into(),
            format!("│   │   └── filter  {prog}"),
            format!("│   ├── flows  {map}"),
            format!("│   └── odd\\\"\\\\\\n\\u{{1b}}[2J\\xFF  {map}"),
            format!("└── wire  {link}"),
        ];
        // The kernel puts two files into each bpffs.
        let mut found: Vec<_> = output
            .lines()
            .filter(|line| !line.contains(".debug"))
            .collect();
        assert_eq!(found.len(), lines.len(), "{output}");
        // The two mount points may have either order.
        let other_order = format!("{} = {}", at.display(), again.display());
        if found[1].starts_with(&other_order) {
            found[1] = &lines[1];
        }
        for (line, start) in found.iter().zip(&lines) {
            assert!(line.starts_with(start), "{start}: {output}");
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
fn it_prints_each_pin_once_as_json() -> Outcome {
    with_pins(|at, pins| {
        let lines = lines(&pin_tree(&["--json"])?);
        let named = |name: &[u8]| {
            let is_named = |line: &&Value| bytes(&line["path"]).ends_with(name);
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
            assert_eq!(line["type"], "hash");
        }
        let filter = named(b"/app/deep/filter");
        assert_eq!(filter["kind"], "prog");
        assert_eq!(filter["id"], pins.prog);
        assert!(filter["xlated_prog_len"].as_u64() > Some(0), "{filter}");
        let wire = named(b"/wire");
        assert_eq!(wire["kind"], "link");
        assert_eq!(wire["id"], pins.link);
        assert!(wire["prog_id"].is_u64(), "{wire}");
        // Each pin once, although the bpffs is mounted twice.
        let pins = lines.iter().filter(|line| line["error"].is_null());
        assert_eq!(pins.count(), 4 + debug_files(at));
        Ok(())
    })
}

/// The number of the kernel's two files that can be opened.
fn debug_files(at: &Path) -> usize {
    let paths = ["maps.debug", "progs.debug"].map(|name| at.join(name));
    paths.iter().filter(|path| Link::open(path).is_ok()).count()
}

/// A path: a string, or an array of bytes if it is not UTF-8.
fn bytes(path: &Value) -> Vec<u8> {
    match path {
        Value::String(text) => text.clone().into_bytes(),
        _ => serde_json::from_value(path.clone()).expect("an array of bytes"),
    }
}

#[common::test(ROOT)]
fn find_prints_only_the_pins_of_one_object() -> Outcome {
    with_pins(|at, pins| {
        let id = pins.map;
        for (wanted, count) in [
            (format!("map:{id}"), 2),
            (format!("prog:{}", pins.prog), 1),
            (format!("link:{}", pins.link), 1),
        ] {
            let lines = lines(&pin_tree(&["--json", "--find", &wanted])?);
            let pins = lines.iter().filter(|line| line["error"].is_null());
            assert_eq!(pins.count(), count, "{wanted}: {lines:#?}");
        }
        let output = text(&pin_tree(&["--find", &format!("map:{id}")])?);
        let is_only_the_map = output.contains("flows") && !output.contains("filter");
        assert!(is_only_the_map, "{output}");
        assert!(output.contains(&*at.to_string_lossy()), "{output}");
        Ok(())
    })
}

#[common::test(ROOT)]
fn find_fails_if_the_object_is_not_pinned() -> Outcome {
    with_pins(|_, _| {
        for args in [
            &["--find", "map:4294967295"][..],
            &["--json", "--find", "map:4294967295"],
        ] {
            let output = pin_tree(args)?;
            assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
            let error = "pin_tree: no pin of map:4294967295 was found in this mount namespace\n";
            assert_eq!(String::from_utf8_lossy(&output.stderr), error);
        }
        Ok(())
    })
}

/// A directory that the user may not read.
#[common::test(USER)]
fn it_prints_an_error_at_the_path_that_failed() -> Outcome {
    with_pins(|at, _| {
        fs::set_permissions(at.join("app"), Permissions::from_mode(0o700))?;
        let app = at.join("app").to_string_lossy().into_owned();
        let json = run_as_user(&["--json"])?;
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
                .is_some_and(|error| error.contains("/app")),
            "{line}"
        );
        assert!(!json.contains("flows"), "{json}");
        let tree = run_as_user(&[])?;
        let line = tree
            .lines()
            .find(|line| line.contains("── app  ["))
            .unwrap_or_else(|| panic!("no line for app: {tree}"));
        let reason = "(mode 0700, owner 0) denies this user search access]";
        assert!(line.ends_with(reason), "{line}");
        Ok(())
    })
}

/// The output for a user without capabilities.
fn run_as_user(args: &[&str]) -> Result<String, String> {
    let args: Vec<_> = args.iter().copied().map(str::to_owned).collect();
    as_user(CapabilitySet::empty(), || {
        let mut output = vec![];
        example::run(&args, &mut output).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    })
}

/// The name of this directory would overwrite other lines of a terminal.
#[common::test(USER)]
fn it_escapes_control_characters_in_errors() -> Outcome {
    with_pins(|at, _| {
        let dir = at.join(OsStr::from_bytes(b"x\x1b]0;owned\x07\x1b[2J\nroot"));
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        let output = run_as_user(&[])?;
        assert!(output.contains("owned"), "{output:?}");
        let is_control = |char: char| char.is_control() && char != '\n';
        assert!(!output.contains(is_control), "{output:?}");
        let has_line = output.lines().any(|line| line.starts_with("root"));
        assert!(!has_line, "{output:?}");
        Ok(())
    })
}

#[common::test(ROOT)]
fn it_reports_that_no_bpffs_is_mounted() -> Outcome {
    in_mount_namespace(|| {
        unmount_all()?;
        let output = text(&pin_tree(&[])?);
        let start = "No bpffs is mounted in this mount namespace: ";
        assert!(output.starts_with(start), "{output}");
        assert_eq!(text(&pin_tree(&["--json"])?), "");
        Ok(())
    })
}

#[common::test]
fn wrong_arguments_print_the_usage() -> Outcome {
    let help = text(&pin_tree(&["--help"])?);
    assert!(help.starts_with("usage: "), "{help}");
    for args in [
        &["--tree"][..],
        &["--find"],
        &["--find", "foo"],
        &["--find", "map"],
        &["--find", "map:"],
        &["--find", "map:-1"],
        &["--find", "tracepoint:17"],
        &["--find", "map:1:2"],
    ] {
        let output = pin_tree(args)?;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), help);
    }
    Ok(())
}

/// The reader of the output ends early, as head(1) does.
#[common::test(ROOT)]
fn it_succeeds_if_its_output_is_closed() -> Outcome {
    with_pins(|_, _| {
        let (reader, writer) = pipe()?;
        drop(reader);
        let mut child = common::command(env::current_exe()?);
        child.env(CHILD, "1").stdout(writer).stderr(Stdio::piped());
        let output = child.spawn()?.wait_with_output()?;
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        Ok(())
    })
}
