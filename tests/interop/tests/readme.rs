//! The code of the page about other loaders is compiled and run.

use common::*;
use peers::{LIBBPF_RS, mounted};

#[path = "readme/aya.rs"]
mod with_aya;

#[cfg(feature = "libbpf-rs")]
#[path = "readme/libbpf_rs.rs"]
mod with_libbpf_rs;

#[cfg(not(feature = "libbpf-rs"))]
mod with_libbpf_rs {
    pub fn lines(_: &std::path::Path) -> common::Outcome {
        unreachable!("it is skipped")
    }
}

const PAGE: &str = include_str!("../../../bpf-pin/src/guide/other_loaders.md");
/// The files with a chapter's lines, by the chapter's heading.
const CHAPTERS: [(&str, &str); 2] = [
    ("# You have aya", include_str!("readme/aya.rs")),
    ("# You have libbpf-rs", include_str!("readme/libbpf_rs.rs")),
];

fn main() -> std::process::ExitCode {
    const NET: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
    const NET_LIBBPF_RS: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, LIBBPF_RS];
    Suite::new()
        .test("the_code_of_the_page_is_compiled", &[], compiled)
        .test("the_code_for_aya_runs", NET, || {
            mounted(|root| in_network_namespace(|| with_aya::lines(root)))
        })
        .test("the_code_for_libbpf_rs_runs", NET_LIBBPF_RS, || {
            mounted(|root| in_network_namespace(|| with_libbpf_rs::lines(root)))
        })
        .run()
}

/// The code without whitespace, so that line breaks do not matter.
fn bare(code: &str) -> String {
    let bare: String = code.split_whitespace().collect();
    bare.replace(",)", ")")
}

/// The code of a chapter: lines of Rust, and the last column of its table.
fn written(chapter: &str) -> Vec<&str> {
    let mut written = vec![];
    let mut is_rust = false;
    for line in chapter.lines() {
        match line {
            "```rust,ignore" => is_rust = true,
            _ if line.starts_with("```") => is_rust = false,
            _ if is_rust => written.push(line.split("//").next().unwrap_or_default()),
            _ if line.starts_with('|') => {
                let cell = line.trim_matches(['|', ' ']).rsplit('|').next();
                // Between an odd backtick and an even one.
                let spans = cell.unwrap_or_default().split('`').skip(1).step_by(2);
                written.extend(spans);
            }
            _ => {}
        }
    }
    written
}

fn compiled() -> Outcome {
    for (heading, source) in CHAPTERS {
        let (_, chapter) = PAGE.split_once(heading).ok_or("no such chapter")?;
        let chapter = chapter.split("\n# ").next().unwrap_or_default();
        let written = written(chapter);
        assert!(written.len() > 12, "{heading}: {written:?}");
        let source = bare(source);
        for line in written {
            assert!(source.contains(&bare(line)), "{heading}: {line}");
        }
    }
    Ok(())
}
