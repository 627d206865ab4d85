//! Names are checked before the kernel sees them, and any text can be escaped into a valid name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use bpf_pin::dir::{escape_name, unescape_name};
use bpf_pin::error::Cause;
use bpf_pin::{Access, Map};
use common::*;

use crate::helpers::*;
use crate::pin_dir::PINS;
use crate::pin_dir::methods::METHODS;

fn invalid(problem: &str) -> Cause {
    let problem = problem.to_owned().into();
    Cause::InvalidPath { problem }
}

fn invalid_names() -> Vec<(OsString, Cause)> {
    let dot = |name: &str| {
        let component = name.into();
        (name.into(), Cause::Dot { component })
    };
    let slash = |name: &str| {
        let because = format!("{name:?} contains '/', and a name in a directory is one component");
        (name.into(), invalid(&because))
    };
    let nul = |name: &str, position| {
        let because = format!("the path contains a NUL byte at offset {position}");
        (name.into(), invalid(&because))
    };
    let long = |length| {
        let (what, limit) = ("name", 255);
        let cause = Cause::TooLong {
            what,
            length,
            limit,
        };
        ("n".repeat(length).into(), cause)
    };
    let empty = (OsString::new(), invalid("the path is empty"));
    let mut all = vec![empty, long(256), long(4096), long(70_000)];
    all.extend([".", "..", ".a", "a.", "a.b", "...", "pin."].map(dot));
    all.extend(["/", "//", "pin/", "/pin", "dir/pin", "../x", "a./b"].map(slash));
    all.extend([("\0", 0), ("pin\0", 3), ("pin\0more", 3), ("\0/.", 0)].map(|(n, at)| nul(n, at)));
    all
}

#[common::test(PINS)]
fn an_invalid_name_is_rejected_before_any_syscall() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    dir.create_dir("dir", 0o700)?;
    for (words, call) in METHODS {
        for (name, cause) in invalid_names() {
            let error = unwrap_err(call(&dir, &name));
            assert_cause(&error, None, cause);
        }
        assert_eq!(fs.names(), ["dir", "pin"], "{words}");
    }
    // Methods with two names check both.
    let other = root_of(&fs);
    let error = unwrap_err(dir.copy_to("pi.n", &other));
    assert_cause_matches!(error, Cause::Dot { .. });
    Ok(())
}

/// In a removed directory the kernel answers every call with ENOENT, so only the check can reject
/// the name.
#[common::test(PINS)]
fn an_invalid_name_is_rejected_in_a_removed_directory() -> Outcome {
    let fs = TestFs::new();
    let dead = root_of(&fs).create_dir("dead", 0o700)?;
    root_of(&fs).remove_dir("dead")?;
    for (words, call) in METHODS {
        for (name, cause) in invalid_names() {
            let error = unwrap_err(call(&dead, &name));
            assert_eq!(error.cause(), Some(&cause), "{words}");
            assert_eq!(error.raw_os_error(), None, "{words}");
        }
    }
    Ok(())
}

#[common::test(PINS)]
fn every_method_accepts_a_name_of_255_bytes() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let [a, b, c] = ["a", "b", "c"].map(|letter| letter.repeat(255));
    let identity = any_identity();
    dir.pin(&any_map(), &a)?;
    assert_eq!(dir.get::<Map>(&a)?.identity()?, identity);
    assert_eq!(
        dir.get_with::<Map>(&a, Access::ReadOnly)?.identity()?,
        identity
    );
    assert_eq!(dir.get::<bpf_pin::Object>(&a)?.identity()?, identity);
    assert_eq!(dir.identity(&a)?, identity);
    dir.link(&a, &b)?;
    dir.rename(&b, &c)?;
    assert_eq!(fs.names(), [&*a, &*c]);
    assert_eq!(dir.metadata(&a)?.inode(), dir.metadata(&c)?.inode());
    dir.unlink(&c)?;
    dir.set_mode(&a, 0o640)?;
    dir.set_owner(&a, None, None)?;
    dir.replace(&any_map(), &a)?;
    dir.replace_keeping_mode(&any_map(), &a)?;
    dir.replace_if(&any_map(), &a, identity)?;
    dir.unpin(&any_map(), &a)?;
    drop(dir.create_dir(&a, 0o700)?);
    let inside = dir.open_dir(&a)?;
    inside.pin(&any_map(), &b)?;
    inside.copy_to(&b, &dir)?;
    inside.unpin(&any_map(), &b)?;
    dir.remove_dir(&a)?;
    drop(dir.create_dir(&c, 0o700)?.create_dir(&a, 0o700)?);
    dir.remove_dir_all(&c)?;
    drop(dir.stage(&a)?.publish().map_err(bpf_pin::Error::from)?);
    assert_eq!(fs.names(), [&*a, &*b]);
    Ok(())
}

#[common::test(PINS)]
fn a_name_may_contain_any_byte_except_nul_dot_and_slash() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    // Every byte that a name may hold, repeated around another one.
    for byte in 1..=255u8 {
        if matches!(byte, b'.' | b'/') {
            continue;
        }
        let name = OsStr::from_bytes(&[byte, b'x', byte]).to_owned();
        dir.pin(&any_map(), &name)?;
        assert_eq!(dir.identity(&name)?, any_identity(), "{name:?}");
        let listed: Vec<_> = dir
            .entries()?
            .map(|entry| entry.map(|e| e.name().to_owned()))
            .collect();
        assert!(
            listed
                .into_iter()
                .any(|entry| entry.is_ok_and(|it| it == name))
        );
        dir.unpin(&any_map(), &name)?;
    }
    assert!(fs.names().is_empty());
    Ok(())
}

/// Typical names of interfaces, containers, services and maps.
const TYPICAL_NAMES: &[(&str, &str)] = &[
    ("vxlan.calico", "vxlan%2Ecalico"),
    ("eth0.100", "eth0%2E100"),
    ("veth1a2b3c4@if2", "veth1a2b3c4@if2"),
    ("xdp/globals", "xdp%2Fglobals"),
    (
        "kube-system/coredns-5d78c9869d-x7x2k",
        "kube-system%2Fcoredns-5d78c9869d-x7x2k",
    ),
    ("cri-containerd-3f4e.scope", "cri-containerd-3f4e%2Escope"),
    ("example.org:443", "example%2Eorg:443"),
    (".rodata.str1.1", "%2Erodata%2Estr1%2E1"),
    (".", "%2E"),
    ("..", "%2E%2E"),
    ("10.0.0.0/8", "10%2E0%2E0%2E0%2F8"),
    ("vxlan%2Ecalico", "vxlan%252Ecalico"),
    ("100%", "100%25"),
    ("a\0b", "a%00b"),
    ("übergröße", "übergröße"),
    ("cilium_calls_00042", "cilium_calls_00042"),
];

#[common::test(PINS)]
fn escaped_names_can_be_unescaped() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    for (text, expected) in TYPICAL_NAMES {
        let name = escape_name(text);
        assert_eq!(name, OsStr::new(expected));
        // Fails if two texts have the same escaped name.
        dir.pin(&any_map(), &name)?;
    }
    let mut back = Vec::new();
    for entry in dir.entries()? {
        let entry = entry?;
        if let Some(text) = unescape_name(entry.name()) {
            back.push(text.into_owned());
        }
    }
    back.sort();
    let mut texts: Vec<OsString> = TYPICAL_NAMES.iter().map(|(text, _)| text.into()).collect();
    texts.sort();
    assert_eq!(back, texts);
    for (text, _) in TYPICAL_NAMES {
        dir.unpin(&any_map(), escape_name(text))?;
    }
    assert!(fs.names().is_empty());

    // Escaping triples the length at most: 85 dots fill a name, 86 are too long.
    dir.pin(&any_map(), escape_name(&".".repeat(85)))?;
    let error = unwrap_err(dir.pin(&any_map(), escape_name(&".".repeat(86))));
    assert_eq!(
        error.cause(),
        Some(&Cause::TooLong {
            what: "name",
            length: 258,
            limit: 255
        })
    );
    let error = unwrap_err(dir.pin(&any_map(), escape_name("")));
    assert_cause_matches!(error, Cause::InvalidPath { .. });
    Ok(())
}

#[common::test]
fn unescape_rejects_what_escape_never_returns() -> Outcome {
    for name in [
        "maps.debug",
        "%",
        "%2",
        "a%",
        "%2e",
        "%2f",
        "%41",
        "%zz",
        "%+2",
        "a%2E%",
        "%%",
        "%2E.",
        "a/b",
        "%20",
    ] {
        assert_eq!(unescape_name(name), None, "{name}");
    }
    assert_eq!(unescape_name("").as_deref(), Some(OsStr::new("")));
    let bytes = OsStr::from_bytes(b"\xff.\xfe");
    assert_eq!(escape_name(bytes).as_bytes(), b"\xff%2E\xfe");
    assert_eq!(unescape_name(&escape_name(bytes)).as_deref(), Some(bytes));
    Ok(())
}
