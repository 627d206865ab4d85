//! Programs that link our crates from outside: C with a library in Rust, and Rust without std.

use std::path::{Path, PathBuf};

use bpf_pin::PinnedMap;
use bpf_pin::map::ElemFlags;
use common::*;
// Builds libflows.a and libflows.so.
use flows as _;
use peers::{mounted, output, tool};

const GCC: Need = Need::Program("gcc", "gcc");
const ROOT_GCC: &[Need] = &[cap::SYS_ADMIN, GCC];
const ROOT_CARGO: &[Need] = &[cap::SYS_ADMIN, Need::Program("cargo", "cargo")];
/// The manual of bpf-pin-sys shows the library.
const PAGE: &str = include_str!("../../../bpf-pin-sys/README.md");
const LIBRARY: &str = include_str!("../ffi/src/lib.rs");

fn main() -> std::process::ExitCode {
    run_tests()
}

#[common::test(ROOT_GCC)]
fn c_links_the_static_library() -> Outcome {
    let program = build_c(&[&libraries().join("libflows.a")], &["-lgcc_s", "-lm"])?;
    reads_pins(&program)
}

#[common::test(ROOT_GCC)]
fn c_links_the_shared_library() -> Outcome {
    let libraries = libraries();
    let rpath = format!("-Wl,-rpath,{}", libraries.display());
    let program = build_c(&[&libraries.join("libflows.so")], &[&rpath])?;
    reads_pins(&program)
}

#[common::test(ROOT_CARGO)]
fn a_program_without_std_reads_a_pinned_map() -> Outcome {
    let target = libraries().join("../../without-std");
    let mut cargo = tool("cargo");
    cargo
        .args(["build", "--quiet", "--offline", "-p", "bpf-pin-sys"])
        .args(["--release", "--example", "open_pin"])
        .args(["--config", "profile.release.panic = 'abort'"])
        .arg("--target-dir")
        .arg(&target)
        // An incremental build keeps code of core that unwinds, which does not link without std.
        .env("CARGO_INCREMENTAL", "0")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    output(&mut cargo)?;
    let program = target.join("release/examples/open_pin");
    let symbols = output(tool("nm").arg(&program))?;
    assert!(
        !symbols.contains("std..") && !symbols.contains("3std"),
        "std is linked"
    );
    reads_pins(&program)
}

#[common::test]
fn the_page_shows_the_library() -> Outcome {
    let (_, section) = PAGE
        .split_once("## In a C interface")
        .ok_or("no such section")?;
    let (_, code) = section.split_once("```rust,ignore\n").ok_or("no code")?;
    let (code, _) = code.split_once("```").ok_or("no end")?;
    assert!(LIBRARY.contains(code), "{code}");
    Ok(())
}

/// Where cargo puts the libraries of a dependency, and this program.
fn libraries() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    program.parent().expect("a directory").to_owned()
}

fn build_c(libraries: &[&Path], arguments: &[&str]) -> Outcome<tempfile::TempPath> {
    let program = tempfile::NamedTempFile::new()?.into_temp_path();
    let mut gcc = tool("gcc");
    gcc.args(["-Wall", "-Wextra", "-Werror", "c/flows.c", "-o"])
        .arg(&program)
        .args(libraries)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    output(&mut gcc)?;
    Ok(program)
}

/// `program` reads an element that we wrote, and says what is missing.
fn reads_pins(program: &Path) -> Outcome {
    mounted(|root| {
        let pin = root.join("flows");
        drop(hash().pin(&pin)?);
        let map = PinnedMap::open(&pin)?;
        map.elements::<u32, u64>()?
            .update(&7, &49, ElemFlags::ANY)?;

        let read = |pin: &Path, key: &str| output(command(program).arg(pin).arg(key));
        assert_eq!(read(&pin, "7")?, "49\n");
        for (pin, key) in [(&pin, "8"), (&root.join("none"), "7")] {
            let error = read(pin, key).expect_err("it does not exist").to_string();
            assert!(error.contains("No such file or directory"), "{error}");
        }
        Ok(())
    })
}
