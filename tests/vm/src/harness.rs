//! Parses the output of a test program, in the formats of libtest and libtest-mimic.

/// The outcome of one program.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Harness {
    pub failed: Vec<String>,
    /// Names and reasons.
    pub ignored: Vec<(String, Option<String>)>,
    /// Tests that ran, and how much of each was left out.
    pub left_out: Vec<(String, String)>,
    /// The last line's numbers: passed, failed, ignored.
    pub result: Option<[usize; 3]>,
    /// The last line says ok.
    pub ok: bool,
}

/// Reads the program's standard output.
pub fn parse(output: &str) -> Harness {
    let mut harness = Harness::default();
    for line in output.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            harness.ok = result.starts_with("ok.");
            harness.result = numbers(result);
        } else if let Some((name, how_much)) = left_out_line(line) {
            let part = (name.to_owned(), how_much.to_owned());
            harness.left_out.push(part);
        } else if let Some((name, outcome)) = test_line(line) {
            if outcome == "FAILED" {
                harness.failed.push(name.to_owned());
            } else if let Some(rest) = outcome.strip_prefix("ignored") {
                harness.ignored.push((name.to_owned(), reason(rest)));
            }
        }
    }
    harness
}

/// `test NAME ... OUTCOME`; libtest-mimic pads the name.
fn test_line(line: &str) -> Option<(&str, &str)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.trim_end(), outcome.trim_end()))
}

/// `left out NAME: HOW MUCH`, which the tests' own harness prints last.
fn left_out_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("left out ")?.split_once(": ")
}

/// libtest-mimic prints ` (reason)`, libtest `, reason`.
fn reason(rest: &str) -> Option<String> {
    let reason = match rest.strip_prefix(", ") {
        Some(reason) => reason,
        None => rest.strip_prefix(" (")?.strip_suffix(')')?,
    };
    Some(reason.to_owned())
}

/// `ok. 3 passed; 0 failed; 1 ignored; ...`
fn numbers(result: &str) -> Option<[usize; 3]> {
    let (_, counts) = result.split_once(". ")?;
    let mut numbers = [0; 3];
    let mut parts = counts.split("; ");
    for (number, word) in numbers.iter_mut().zip(["passed", "failed", "ignored"]) {
        *number = parts.next()?.strip_suffix(word)?.trim().parse().ok()?;
    }
    Some(numbers)
}

/// The section of the output about one failed test, below libtest's or libtest-mimic's `---- NAME`.
pub fn section<'a>(output: &'a str, test: &str) -> Option<&'a str> {
    let heads = [
        format!("---- {test} stdout ----\n"),
        format!("---- {test} ----\n"),
    ];
    let begin = heads
        .iter()
        .find_map(|head| Some(output.find(head.as_str())? + head.len()))?;
    let rest = &output[begin..];
    let end = ["\n---- ", "\nfailures:\n"]
        .iter()
        .filter_map(|end| rest.find(end))
        .min()
        .unwrap_or(rest.len());
    Some(rest[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBTEST: &str = "
running 4 tests
test a::passes ... ok
test a::fails ... FAILED
test b::later ... ignored, needs Linux 6.5
test b::never ... ignored

failures:

---- a::fails stdout ----

thread 'a::fails' panicked at src/a.rs:3:5:
oh no


failures:
    a::fails

test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s

";

    const MIMIC: &str = "
running 5 tests
test passes           ... ok
a test's own words
test fails            ... FAILED
test also_fails       ... FAILED
test needs_new_kernel ... ignored (needs Linux 6.5: path_fd (and more))
test flagged          ... ignored

failures:

---- fails ----
test panicked: oh no

---- also_fails ----


failures:
    fails
    also_fails

test result: FAILED. 1 passed; 2 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s

skipped needs_new_kernel: needs Linux 6.5: path_fd (and more)
1 skipped
left out passes: 3 of 12 stops
1 left out
";

    #[test]
    fn parses_libtest() {
        let harness = parse(LIBTEST);
        assert_eq!(harness.failed, ["a::fails"]);
        assert_eq!(
            harness.ignored[0],
            ("b::later".into(), Some("needs Linux 6.5".into()))
        );
        assert_eq!(harness.ignored[1], ("b::never".into(), None));
        assert_eq!(harness.result, Some([1, 1, 2]));
        assert!(!harness.ok);
        assert!(section(LIBTEST, "a::fails").unwrap().ends_with("oh no"));
    }

    #[test]
    fn parses_libtest_mimic() {
        let harness = parse(MIMIC);
        assert_eq!(harness.failed, ["fails", "also_fails"]);
        let reason = "needs Linux 6.5: path_fd (and more)";
        assert_eq!(
            harness.ignored[0],
            ("needs_new_kernel".into(), Some(reason.into()))
        );
        assert_eq!(harness.ignored[1], ("flagged".into(), None));
        let part = ("passes".into(), "3 of 12 stops".into());
        assert_eq!(harness.left_out, [part]);
        assert_eq!(harness.result, Some([1, 2, 2]));
        assert_eq!(section(MIMIC, "fails"), Some("test panicked: oh no"));
        assert_eq!(section(MIMIC, "also_fails"), Some(""));
        assert_eq!(section(MIMIC, "passes"), None);
    }

    #[test]
    fn parses_an_empty_program() {
        let harness = parse(
            "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(harness.result, Some([0, 0, 0]));
        assert!(harness.ok);
    }

    #[test]
    fn output_without_a_result_is_unfinished() {
        for output in [
            "",
            "test a ... ok\n",
            "test result: ok. many passed; 0 failed; 0 ignored\n",
            "test result: ",
        ] {
            assert_eq!(parse(output).result, None, "{output:?}");
        }
    }
}
