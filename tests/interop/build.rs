//! Builds the C programs if their requirements are installed.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=c");
    // Debian's header, which may be installed after a first build without it.
    println!("cargo::rerun-if-changed=/usr/include/bpf/libbpf.h");
    println!("cargo::rustc-check-cfg=cfg(libbpf, libbpf_path_fd)");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let client = out.join("client");
    println!("cargo::rustc-env=CLIENT={}", client.display());
    let has_path_fd = program("c/path_fd.c", &out.join("path_fd"), ["-lbpf"]).is_ok();
    let path_fd = has_path_fd.then_some("-DHAS_PATH_FD");
    let arguments = path_fd.into_iter().chain(["-lbpf"]);
    let built = program("c/client.c", &client, arguments).and_then(|()| {
        let mut cc = compiler();
        let built = cc.file("c/ffi.c").cargo_metadata(false).try_compile("peer");
        built.map_err(|error| error.to_string())
    });
    match built {
        Ok(()) => {
            println!("cargo::rustc-cfg=libbpf");
            if has_path_fd {
                println!("cargo::rustc-cfg=libbpf_path_fd");
            }
            println!("cargo::rustc-link-search=native={}", out.display());
        }
        // Not a failure: the tests that need it are skipped with this reason.
        Err(why) => println!("cargo::warning=no clients in C: {why}"),
    }

    let client = out.join("client-of-libbpf-rs");
    println!("cargo::rustc-env=CLIENT_OF_LIBBPF_RS={}", client.display());
    // The directory of libbpf-sys's headers. Its library is beside it.
    if let Some(include) = env::var_os("DEP_BPF_INCLUDE") {
        let include = PathBuf::from(include);
        let library = include.with_file_name("libbpf.a");
        let arguments = [OsStr::new("-I"), include.as_ref(), library.as_ref()];
        let arguments = arguments
            .into_iter()
            .chain(["-DHAS_PATH_FD", "-lelf", "-lz"].map(OsStr::new));
        let built = program("c/client.c", &client, arguments);
        built.expect("a client of the libbpf that was just built");
    }
}

fn compiler() -> cc::Build {
    let mut cc = cc::Build::new();
    cc.warnings(true).extra_warnings(true);
    cc
}

/// Builds a C program without our crates.
fn program(
    source: &str,
    path: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<(), String> {
    let compiler = compiler().try_get_compiler();
    let mut command = compiler.map_err(|error| error.to_string())?.to_command();
    command.args(["-Werror", source, "-o"]).arg(path);
    command.args(arguments);
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().find(|line| line.contains("error"));
    Err(reason
        .or(said.lines().next())
        .unwrap_or_default()
        .to_owned())
}
