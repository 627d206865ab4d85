//! Verdicts on programs: which skips are allowed, and when a program has failed.

use crate::harness::{Harness, parse, section};
use crate::target::Platform;
use guest::phase::{Phase, User};
use guest::wire::Status;
use std::path::Path;

/// How much of a program's output to show if no test of it has failed by name.
const TAIL_LINES: usize = 40;

/// Features that a platform's kernels may lack, and the releases that have them elsewhere.
const FEATURES: [(&str, (u32, u32)); 8] = [
    ("JIT", (0, 0)),
    ("veth", (0, 0)),
    ("BTF", (5, 4)),
    ("trampolines", (5, 5)),
    ("struct_ops", (5, 6)),
    ("BPF LSM", (5, 7)),
    ("kprobe_multi", (5, 18)),
    ("arena", (6, 9)),
];

/// A test or a program that failed, with its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub name: String,
    pub output: String,
}

/// The verdict on one program in one phase.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub passed: usize,
    /// The reasons of the allowed skips.
    pub skipped: Vec<String>,
    /// Tests that ran, and how much of each was left out.
    pub left_out: Vec<(String, String)>,
    pub failed: Vec<Failure>,
}

/// The privileges and the kernel with which a program ran.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub phase: Phase,
    /// The kernel's release string.
    pub release: &'a str,
    /// The platform of a guest; none on this machine's own kernel.
    pub platform: Option<&'a Platform>,
}

/// Evaluates a program by its output and its end.
pub fn evaluate(
    place: Place<'_>,
    program: &str,
    stdout: &str,
    stderr: &str,
    status: Status,
) -> Verdict {
    let Harness {
        failed,
        ignored,
        left_out,
        result,
        ok,
    } = parse(stdout);
    let mut verdict = Verdict {
        left_out,
        ..Verdict::default()
    };
    let mut fail = |name: String, output: String| verdict.failed.push(Failure { name, output });

    for test in &failed {
        let output = section(stdout, test).map_or_else(|| tail(stdout), str::to_owned);
        // libtest-mimic does not capture: the test's lines are among all lines of the standard error.
        let mention = stderr
            .lines()
            .skip_while(|line| !line.contains(&format!("'{test}'")))
            .take(8);
        let mention = mention.collect::<Vec<_>>().join("\n");
        fail(
            format!("{program} {test}"),
            [output, mention].join("\n").trim().to_owned(),
        );
    }
    for (test, reason) in ignored {
        match excused_reason(place, reason.as_deref()) {
            Ok(reason) => verdict.skipped.push(reason),
            Err(why) => verdict.failed.push(Failure {
                name: format!("{program} {test}"),
                output: why,
            }),
        }
    }

    let seen = [
        failed.len(),
        verdict.skipped.len() + verdict.failed.len() - failed.len(),
    ];
    let whole = match (result, status) {
        (_, Status::Signal(signal)) => Some(format!("killed by signal {signal}")),
        (_, Status::Late) => Some("killed at its time limit".to_owned()),
        (None, Status::Code(code)) => Some(format!("no test result; exit status {code}")),
        (Some([_, failed, ignored]), _) if [failed, ignored] != seen => Some(format!(
            "its result counts {failed} failed and {ignored} ignored, its lines {seen:?}"
        )),
        (Some(_), Status::Code(code)) if failed.is_empty() && !(ok && code == 0) => {
            Some(format!("no test failed, but the exit status is {code}"))
        }
        (Some(_), Status::Code(0)) if !failed.is_empty() => {
            Some("tests failed, but the exit status is 0".to_owned())
        }
        _ => None,
    };
    if let Some(why) = whole {
        let output = format!("{why}\n{}\n{}", tail(stdout), tail(stderr));
        verdict.failed.push(Failure {
            name: program.to_owned(),
            output: output.trim_end().to_owned(),
        });
    }
    verdict.passed = result.map_or(0, |[passed, ..]| passed);
    verdict
}

/// The last lines of a text.
pub fn tail(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The reason of a skip as it is counted, if every need that it names is missing.
fn excused_reason(place: Place<'_>, reason: Option<&str>) -> Result<String, String> {
    let reason = reason.ok_or("skipped without a reason, or a test's own output broke the line")?;
    let needs = reason
        .split_once(':')
        .map_or(reason, |(needs, _)| needs)
        .trim();
    let list = needs
        .strip_prefix("needs ")
        .ok_or_else(|| format!("skipped without a need: {reason}"))?;
    for need in list.split(", ") {
        let need = need.strip_prefix("needs ").unwrap_or(need);
        match is_met(place, need) {
            Some(false) => {}
            Some(true) => return Err(format!("skipped, but {need} is present: {reason}")),
            None => return Err(format!("skipped for an unknown need: {reason}")),
        }
    }
    Ok(needs.to_owned())
}

/// True if a need is met; `None` for an unknown need.
fn is_met(place: Place<'_>, need: &str) -> Option<bool> {
    let user = place.phase.user;
    if let Some(version) = need.strip_prefix("Linux ") {
        return Some(release(place.release)? >= exact(version)?);
    }
    if let Some(path) = need.strip_prefix("file /") {
        // A guest has the kernel's files and no others.
        return Some(match place.platform {
            Some(_) => ["proc/", "sys/", "dev/"]
                .iter()
                .any(|top| path.starts_with(top)),
            None => Path::new("/").join(path).exists(),
        });
    }
    if let Some(feature) = need.strip_prefix("feature ") {
        let (_, since) = FEATURES.iter().find(|(name, _)| *name == feature)?;
        let is_new_enough = release(place.release)? >= *since;
        // The tests look for it themselves, and nothing is known of this machine's own kernel.
        return Some(
            place
                .platform
                .is_some_and(|platform| is_new_enough && !platform.lacks.contains(&feature)),
        );
    }
    match need {
        "root" => Some(user == User::Root),
        "no root" => Some(user != User::Root),
        // Every guest has them, for every user.
        "bpffs" | "cgroup2" | "BTF" => Some(true),
        _ => match need.strip_prefix("no ") {
            Some(name) => has(user, name).map(|has| !has),
            None => has(user, need),
        },
    }
}

/// True if the user has a capability; `None` for any other name.
fn has(user: User, name: &str) -> Option<bool> {
    let rest = name.strip_prefix("CAP_")?;
    let is_name = !rest.is_empty()
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_name.then_some(match user {
        User::Root => true,
        User::CapBpf => name == "CAP_BPF",
        User::Nobody => false,
    })
}

/// The first two numbers of a release string, `6.12.107+deb13-cloud-amd64` or `6.5`.
pub fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    let pair = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    text.starts_with(&format!("{}.{}", pair.0, pair.1))
        .then_some(pair)
}

/// A version of exactly two numbers.
fn exact(text: &str) -> Option<(u32, u32)> {
    release(text).filter(|(major, minor)| text == format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{OWN, TARGETS};
    use guest::phase::find;

    fn place(phase: &str, release: &'static str) -> Place<'static> {
        Place {
            phase: find(phase).unwrap(),
            release,
            platform: Some(OWN.kernel),
        }
    }

    const OLD: &str = "6.1.0-50-cloud-amd64";
    const NEW: &str = "6.12.107+deb13-cloud-amd64";

    fn skip(phase: &str, release: &'static str, reason: &str) -> bool {
        excused_reason(place(phase, release), Some(reason)).is_ok()
    }

    #[test]
    fn a_kernel_with_the_feature_does_not_excuse_a_skip() {
        assert!(skip("root", OLD, "needs Linux 6.5"));
        assert!(skip(
            "root",
            OLD,
            "needs Linux 6.5: BPF_F_PATH_FD, see there"
        ));
        assert!(skip("root", OLD, "needs Linux 6.10"));
        assert!(!skip("root", OLD, "needs Linux 6.1"));
        assert!(!skip("root", OLD, "needs Linux 5.19"));
        assert!(!skip("root", NEW, "needs Linux 6.5"));
        assert!(!skip("none/1", NEW, "needs Linux 6.5"));
        assert!(skip("root", NEW, "needs Linux 7.0"));
    }

    #[test]
    fn a_privilege_of_the_phase_does_not_excuse_a_skip() {
        assert!(!skip("root", OLD, "needs root"));
        assert!(!skip("root", OLD, "needs CAP_NET_ADMIN"));
        assert!(skip("cap_bpf", OLD, "needs CAP_NET_ADMIN"));
        assert!(skip("cap_bpf", OLD, "needs root"));
        assert!(!skip("cap_bpf", OLD, "needs CAP_BPF"));
        for phase in ["none/0", "none/2", "none/1"] {
            assert!(skip(phase, OLD, "needs CAP_BPF"));
            assert!(!skip(phase, OLD, "needs cgroup2"));
        }
    }

    #[test]
    fn a_privilege_that_must_be_missing_excuses_only_phases_that_have_it() {
        assert!(skip("root", OLD, "needs no CAP_BPF"));
        assert!(skip("root", OLD, "needs no root"));
        assert!(skip("cap_bpf", OLD, "needs no CAP_BPF"));
        assert!(!skip("cap_bpf", OLD, "needs no CAP_NET_ADMIN"));
        assert!(!skip("none/0", OLD, "needs no CAP_BPF"));
        assert!(!skip("none/0", OLD, "needs no root"));
        assert!(!skip("none/0", OLD, "needs no sleep"));
    }

    #[test]
    fn a_guest_has_the_kernels_files_and_no_others() {
        assert!(!skip("root", OLD, "needs file /sys/kernel/btf/vmlinux"));
        assert!(!skip("root", OLD, "needs file /proc/self/fdinfo"));
        assert!(skip("root", OLD, "needs file /usr/include/linux/bpf.h"));
        assert!(!skip("root", OLD, "needs file "));
    }

    #[test]
    fn a_feature_of_the_platform_does_not_excuse_a_skip() {
        let on = |index: usize, reason: &str| {
            let platform = Some(TARGETS[index].kernel);
            let place = Place {
                platform,
                ..place("root", NEW)
            };
            excused_reason(place, Some(reason)).is_ok()
        };
        assert!(on(2, "needs feature JIT"));
        assert!(on(2, "needs feature JIT, feature BPF LSM"));
        assert!(!on(0, "needs feature JIT"));
        assert!(!on(2, "needs feature BTF"));
        assert!(on(3, "needs feature BTF"));
        assert!(!on(3, "needs feature luck"));
        // 6.12 has arenas, and 6.1 does not.
        assert!(!on(0, "needs feature arena"));
        let old = place("root", OLD);
        assert!(excused_reason(old, Some("needs feature arena, Linux 6.9")).is_ok());
    }

    #[test]
    fn a_file_of_this_machine_does_not_excuse_a_skip() {
        let place = Place {
            platform: None,
            ..place("root", NEW)
        };
        assert!(excused_reason(place, Some("needs file /etc/none")).is_ok());
        assert!(excused_reason(place, Some("needs file /etc")).is_err());
    }

    #[test]
    fn every_named_need_must_be_missing() {
        assert!(skip("cap_bpf", OLD, "needs Linux 6.5, CAP_SYS_ADMIN"));
        assert!(skip(
            "cap_bpf",
            OLD,
            "needs Linux 6.5, needs CAP_SYS_ADMIN: both"
        ));
        assert!(!skip("cap_bpf", NEW, "needs Linux 6.5, CAP_SYS_ADMIN"));
        assert!(!skip("cap_bpf", OLD, "needs Linux 6.5, CAP_BPF"));
    }

    #[test]
    fn an_unknown_or_absent_reason_does_not_excuse_a_skip() {
        assert!(excused_reason(place("none/1", OLD), None).is_err());
        for reason in [
            "",
            "flaky",
            "needs",
            "needs ",
            "needs luck",
            "needs Linux",
            "needs Linux soon",
            "needs CAP_",
            "needs CAP_bpf",
            "needs Linux 6.5,",
            "needs Linux 6.5+",
            "Linux 6.5",
        ] {
            assert!(!skip("none/1", OLD, reason), "{reason:?}");
        }
    }

    #[test]
    fn parses_release_strings() {
        assert_eq!(release("5.10.0-46-cloud-amd64"), Some((5, 10)));
        assert_eq!(release("7.3-rc7"), Some((7, 3)));
        for text in ["", "6", "six.one", "6-1", " 6.1"] {
            assert_eq!(release(text), None, "{text:?}");
        }
    }

    fn result(word: &str, passed: usize, failed: usize, ignored: usize) -> String {
        format!(
            "test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured\n"
        )
    }

    fn verdict(stdout: &str, status: Status) -> Verdict {
        evaluate(place("cap_bpf", OLD), "tests/pin", stdout, "", status)
    }

    #[test]
    fn a_passing_program_has_no_failures() {
        let skips = "test a ... ignored (needs root: mount)\ntest b ... ignored, needs Linux 6.5\n";
        let good = verdict(
            &(skips.to_owned() + &result("ok", 3, 0, 2)),
            Status::Code(0),
        );
        assert_eq!(good.passed, 3);
        assert_eq!(good.skipped, ["needs root", "needs Linux 6.5"]);
        assert!(good.failed.is_empty());
        // A program without tests is one too.
        assert_eq!(
            verdict(&result("ok", 0, 0, 0), Status::Code(0)),
            Verdict::default()
        );
    }

    #[test]
    fn a_failed_test_is_named_with_its_output() {
        let stdout = "test a ... FAILED\nfailures:\n\n---- a ----\noh no\n\nfailures:\n    a\n"
            .to_owned()
            + &result("FAILED", 1, 1, 0);
        let stderr = "thread 'b' panicked\nb's\nthread 'a' panicked at x.rs:1\na's\n";
        let verdict = evaluate(
            place("root", OLD),
            "tests/pin",
            &stdout,
            stderr,
            Status::Code(101),
        );
        let output = "oh no\nthread 'a' panicked at x.rs:1\na's".to_owned();
        assert_eq!(
            verdict.failed,
            [Failure {
                name: "tests/pin a".into(),
                output
            }]
        );
        assert_eq!(verdict.passed, 1);
    }

    #[test]
    fn a_skip_without_a_missing_need_fails() {
        let verdict = verdict(
            &("test a ... ignored\n".to_owned() + &result("ok", 3, 0, 1)),
            Status::Code(0),
        );
        assert_eq!(
            (verdict.passed, verdict.skipped.len(), verdict.failed.len()),
            (3, 0, 1)
        );
        assert_eq!(verdict.failed[0].name, "tests/pin a");
    }

    #[test]
    fn a_program_that_breaks_off_fails() {
        for (stdout, status) in [
            (String::new(), Status::Code(0)),
            ("test a ... ok\n".to_owned(), Status::Code(0)),
            (result("ok", 3, 0, 0), Status::Signal(6)),
            (String::new(), Status::Signal(11)),
            ("test a ... ok\n".to_owned(), Status::Late),
            (result("ok", 3, 0, 0), Status::Code(1)),
            (result("FAILED", 3, 0, 0), Status::Code(0)),
            // Lines that got lost, or were broken by a test's own words.
            (result("ok", 3, 0, 1), Status::Code(0)),
            (result("FAILED", 3, 1, 0), Status::Code(101)),
            (
                "test a ... FAILED\n".to_owned() + &result("ok", 3, 0, 0),
                Status::Code(0),
            ),
            (
                "test a ... FAILED\n".to_owned() + &result("FAILED", 3, 1, 0),
                Status::Code(0),
            ),
        ] {
            let verdict = verdict(&stdout, status);
            assert_eq!(
                verdict.failed.last().unwrap().name,
                "tests/pin",
                "{stdout:?} {status:?}"
            );
        }
    }
}
