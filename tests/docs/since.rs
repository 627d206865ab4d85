//! Verifies the releases in the library's docs, with the tables of the ABI and with calls.

mod calls;
pub mod docs;
mod sections;
use common::tables;

use bpf_pin_sys::Version;
use common::*;

use docs::{SOURCES, claims};

/// The oldest kernel that runs these tests. Older releases cannot be verified.
const OLDEST: Version = Version::new(5, 10);

/// Behaviour that starts or ends with a release and has no name in the ABI: words of the sentence, and the
/// release. Other tests verify the behaviour.
const BEHAVIOUR: &[(&str, Version)] = &[
    ("`RLIMIT_MEMLOCK`", Version::new(5, 11)),
    ("EINTR if a signal arrives between", Version::new(5, 12)),
    ("The kernel's own, of id 1,", Version::new(5, 11)),
    ("sysctl closes all of bpf(2)", Version::new(5, 19)),
    ("Why bpf(2) is closed to this thread", Version::new(5, 19)),
    ("`kernel.unprivileged_bpf_disabled`", Version::new(5, 19)),
    ("everywhere for `CAP_NET_ADMIN`", Version::new(6, 9)),
    ("closed to it as a whole", Version::new(5, 19)),
    ("options `uid` and `gid`", Version::new(6, 8)),
    ("value sizes are known", Version::new(7, 3)),
    ("what a context is", Version::new(7, 3)),
    ("has the tag \"uptr\"", Version::new(6, 13)),
    (
        "could not be determined by this thread",
        Version::new(5, 19),
    ),
    ("The options `uid` and `gid`", Version::new(6, 8)),
    ("One syscall from Linux 6.5 on", Version::new(6, 5)),
    ("Three syscalls from Linux 6.5 on", Version::new(6, 5)),
    ("`RENAME_EXCHANGE`", Version::new(5, 17)),
    ("(EINVAL) before Linux 5.17", Version::new(5, 17)),
    ("the two pins change places", Version::new(5, 17)),
    ("Sets the source, which mountinfo", Version::new(5, 17)),
    ("the owner of the root", Version::new(6, 8)),
    ("the group of the root", Version::new(6, 8)),
    ("a token of this bpffs allows", Version::new(6, 9)),
    ("with a token of it", Version::new(6, 9)),
    (
        "Requests a bpffs from a privileged process",
        Version::new(6, 9),
    ),
    ("creates the bpffs that was opened", Version::new(6, 9)),
    ("the other side is informed", Version::new(6, 9)),
    (
        "Returns the delegation from its mount options",
        Version::new(6, 9),
    ),
    ("types that a bpffs delegates", Version::new(6, 9)),
    ("[`InitialUserNamespace`]", Version::new(6, 9)),
    ("[`NoProc`]", Version::new(6, 17)),
    ("struct_ops before Linux 6.11", Version::new(6, 11)),
    ("resources of one task", Version::new(6, 1)),
    ("with [`nosymfollow`]", Version::new(5, 14)),
    ("`STATX_MNT_ID_UNIQUE`", Version::new(6, 8)),
    ("`statmount(2)`: writes", Version::new(6, 8)),
    ("`statmount(2)`, Linux", Version::new(6, 13)),
    ("reports the source", Version::new(6, 13)),
    ("resources an iterator goes through", Version::new(6, 1)),
    ("in a control group before Linux 6.17", Version::new(6, 17)),
];

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TRACER: &[Need] = &[
    cap::SYS_ADMIN,
    cap::PERFMON,
    Need::Feature(Feature::Trampolines),
];

/// The wrong claims of a file.
fn wrong_claims(file: &str, source: &str) -> Vec<String> {
    let mut wrong = vec![];
    for claim in claims(file, source) {
        let (version, text) = (claim.version, &claim.text);
        match claim.by_the_tables() {
            Some(since) if since == version => {}
            Some(since) => wrong.push(format!(
                "{}: Linux {version}, but {since} by the tables: {:?}: {text}",
                claim.place, claim.subjects
            )),
            None if version <= OLDEST => {}
            None => {
                let is_known =
                    |(words, of): &&(&str, Version)| *of == version && text.contains(words);
                if BEHAVIOUR.iter().find(is_known).is_none() {
                    wrong.push(format!(
                        "{}: Linux {version}, verified by nothing: {text}",
                        claim.place
                    ));
                }
            }
        }
    }
    wrong
}

#[common::test]
fn documented_releases_match_the_tables() -> Outcome {
    let found: usize = SOURCES
        .iter()
        .map(|(file, source)| claims(file, source).len())
        .sum();
    assert!(found > 200, "{found} claims are found");
    let all: Vec<_> = SOURCES
        .iter()
        .flat_map(|(file, source)| wrong_claims(file, source))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    Err(all.join("\n").into())
}

#[common::test]
fn a_wrong_release_is_reported() -> Outcome {
    let count_problems = |source: &str| wrong_claims("file.rs", source).len();
    assert_eq!(
        count_problems("/// `BPF_OBJ_GET`: opens. Linux 4.4.\nfn open() {}"),
        0
    );
    assert_eq!(
        count_problems("/// `BPF_OBJ_GET`: opens. Linux 4.5.\nfn open() {}"),
        1
    );
    let flag = "/// Fast. Linux 6.4.\nconst FAST = abi::BPF_F_LINK;";
    assert_eq!(count_problems(flag), 0);
    assert_eq!(count_problems(&flag.replace("6.4", "6.5")), 1);
    let info = "/// `struct bpf_map_info`: tells. Linux 4.13.\npub struct MapInfo {\n\
        /// The type.\npub id: u32,\n\
        /// Linux 4.15.\npub name: ObjName,\n}";
    assert_eq!(count_problems(info), 0);
    assert_eq!(count_problems(&info.replace("4.15", "4.14")), 1);
    assert_eq!(
        count_problems(&info.replace("/// Linux 4.15.\n", "")),
        1,
        "it is not as old as the struct"
    );
    assert_eq!(count_problems("/// Does wonders. Linux 6.7.\nfn f() {}"), 1);
    assert_eq!(
        count_problems("/// Charged to `RLIMIT_MEMLOCK` before Linux 5.11.\nfn f() {}"),
        0
    );
    Ok(())
}

#[common::test]
fn every_section_of_the_docs_has_text() -> Outcome {
    let unrendered: Vec<_> = SOURCES
        .iter()
        .flat_map(|(file, source)| sections::unrendered(file, source))
        .collect();
    assert_eq!(unrendered, [""; 0]);
    Ok(())
}

#[common::test]
fn a_section_without_text_is_reported() -> Outcome {
    let count_problems = |docs: &str| sections::unrendered("file.rs", docs).len();
    let errors = |line: &str| {
        count_problems(&format!(
            "/// Opens.\n///\n/// # Errors\n///\n{line}fn open() {{}}"
        ))
    };
    assert_eq!(
        errors("/// [`Operation::Open`]: ENOENT where there is none.\n"),
        0
    );
    assert_eq!(
        errors("/// [`Operation::Open`] with [`NoProc`](Cause::NoProc).\n"),
        0
    );
    assert_eq!(
        errors("/// [`Operation::Open`]: [`NoProc`](Cause::NoProc).\n"),
        1
    );
    assert_eq!(
        errors("/// [`Operation::Open`]: [`NoProc`](Cause::NoProc);\n/// ENOENT.\n"),
        1
    );
    assert_eq!(errors("/// [`Operation::Open`]:\n/// ENOENT.\n"), 1);
    assert_eq!(errors(""), 1);
    assert_eq!(errors("/// # Examples\n///\n/// None.\n"), 1);
    assert_eq!(
        count_problems("/// Opens.\n///\n/// [`Map`]: ENOENT.\nfn open() {}"),
        1
    );
    assert_eq!(
        count_problems("/// ```\n/// # Ok(())\n/// ```\nfn open() {}"),
        0
    );
    Ok(())
}
