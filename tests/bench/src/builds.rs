//! Builds each library alone, from scratch: number of crates and time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Failure;
use crate::machine::locked;

/// Returns a name and a text for each. Must run before the bench enters its own network namespace, because cargo may
/// download crates.
pub fn all() -> Result<Vec<(String, String)>, Failure> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bpf-pin");
    let ours = ours.canonicalize()?;
    let mut libraries = vec![
        ("bpf-pin", format!("{{ path = {ours:?} }}")),
        ("aya", format!("\"={}\"", locked("aya"))),
    ];
    if cfg!(feature = "libbpf-rs") {
        libraries.push(("libbpf-rs", format!("\"={}\"", locked("libbpf-rs"))));
    }
    let built = libraries.into_iter().map(|(name, dependency)| {
        let built = build(name, &dependency)?;
        println!("build of {name}: {built}");
        Ok((format!("build of {name} alone, from scratch"), built))
    });
    built.collect()
}

fn build(name: &str, dependency: &str) -> Result<String, Failure> {
    let place = tempfile::tempdir()?;
    let manifest = format!(
        "[package]\nname = \"alone\"\nedition = \"2024\"\n[dependencies]\n{name} = {dependency}\n[workspace]\n"
    );
    fs::write(place.path().join("Cargo.toml"), manifest)?;
    fs::create_dir(place.path().join("src"))?;
    fs::write(place.path().join("src/lib.rs"), "")?;
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(place.path());
        command.env("CARGO_TARGET_DIR", place.path().join("target"));
        command.stderr(Stdio::null());
        command
    };
    let tree = cargo(&[
        "tree",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let tree = { tree }.output()?;
    let mut crates: Vec<_> = str::from_utf8(&tree.stdout)?.lines().skip(1).collect();
    crates
        .iter_mut()
        .for_each(|line| *line = line.trim_end_matches(" (*)"));
    crates.sort_unstable();
    crates.dedup();
    crates.retain(|line| !line.is_empty());
    let begun = Instant::now();
    if !cargo(&["build", "--release", "--quiet"])
        .status()?
        .success()
    {
        return Err(format!("{name} cannot be built alone").into());
    }
    let took = begun.elapsed().as_secs_f64();
    Ok(format!("{} crates, {took:.1} s", crates.len()))
}
