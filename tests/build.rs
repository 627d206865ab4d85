//! Packs the library's sources into the tests that read its docs, so that they also run where no source is, and
//! the code of the READMEs into a test that runs it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let root = manifest.join("../bpf-pin/src");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = vec![];
    walk(&root, &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root).expect("below the root");
        table += &format!("    ({name:?}, include_str!({file:?})),\n");
    }
    table += "]\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(out.join("sources.rs"), table)?;

    let repository = manifest.join("..");
    let pages = [
        ("readme", "README.md"),
        ("package_readme", "bpf-pin/README.md"),
        ("restarting", "bpf-pin/src/guide/restarting.md"),
    ];
    let mut modules = String::new();
    for (name, page) in pages {
        let path = repository.join(page);
        println!("cargo::rerun-if-changed={}", path.display());
        let code = functions(&fs::read_to_string(path)?);
        modules += &format!("pub mod {name} {{\n{code}}}\n");
    }
    fs::write(out.join("pages.rs"), modules)
}

/// Each piece of code of a page that has a function, in a module with the name of its heading.
fn functions(page: &str) -> String {
    let mut modules = String::new();
    let mut heading = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.trim_start_matches('#').strip_prefix(' ') {
            if line.starts_with('#') {
                let is_word = |char: char| char.is_ascii_alphanumeric();
                heading = text.replace(|char| !is_word(char), "_").to_lowercase();
            }
        } else if line == "```rust,no_run" || line == "```no_run" {
            let code: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let code = code.join("\n").replace("\nfn ", "\npub fn ");
            if code.contains("\npub fn ") {
                modules += &format!("pub mod {heading} {{\n{code}\n}}\n");
            }
        }
    }
    modules
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
