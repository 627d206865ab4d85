//! The library's modules form layers: a module uses only lower layers.

use common::*;

use crate::since::docs::SOURCES;

/// The top modules of bpf-pin, lowest first, as in ARCHITECTURE.md.
const LAYERS: &[&str] = &[
    "sys",
    "types",
    "process",
    "path",
    "procfs",
    "error",
    "proof",
    "diagnose",
    "object",
    "token",
    "map",
    "prog",
    "link",
    "bpffs",
    "dir",
    "reuse",
    "inventory",
    "probe",
    "guide",
];

#[common::test]
fn every_module_uses_only_the_layers_below_it() -> Outcome {
    let found: Vec<_> = SOURCES
        .iter()
        .filter(|(file, _)| *file != "lib.rs")
        .flat_map(|(file, source)| uses_of_higher_layers(file, source))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    Ok(())
}

#[common::test]
fn every_file_belongs_to_a_layer() -> Outcome {
    for (file, _) in SOURCES.iter().filter(|(file, _)| *file != "lib.rs") {
        assert!(LAYERS.contains(&layer_of(file)), "{file}");
    }
    Ok(())
}

#[common::test]
fn a_use_of_a_higher_layer_is_reported() -> Outcome {
    let found = |source| uses_of_higher_layers("map/spec.rs", source).len();
    assert_eq!(
        found("use crate::error::Error;\nfn f() { crate::sys::close() }"),
        0
    );
    assert_eq!(found("use crate::map::MapInfo;"), 0);
    assert_eq!(found("use crate::dir::PinDir;"), 1);
    assert_eq!(found("use crate::{error::Error, dir::PinDir};"), 1);
    assert_eq!(
        found("use crate::{\n    dir::{PinDir, Stage},\n    error::Error,\n};"),
        1
    );
    assert_eq!(found("fn f(dir: &crate::dir::PinDir) {}"), 1);
    assert_eq!(found("use crate::PinDir;"), 1, "the root is above all");
    assert_eq!(
        found("/// See [`PinDir`](crate::dir::PinDir).\nfn f() {}"),
        0
    );
    Ok(())
}

fn layer_of(file: &str) -> &str {
    let top = file.split('/').next().unwrap_or(file);
    top.strip_suffix(".rs").unwrap_or(top)
}

fn height(layer: &str) -> usize {
    // The only module outside the list is the crate's root, the highest layer.
    LAYERS
        .iter()
        .position(|known| *known == layer)
        .unwrap_or(LAYERS.len())
}

/// The uses of higher layers in a file, except in its docs.
fn uses_of_higher_layers(file: &str, source: &str) -> Vec<String> {
    let own = height(layer_of(file));
    // Unit tests may use the whole crate.
    let source = source.split("#[cfg(test)]").next().unwrap_or(source);
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = vec![];
    for (_, after) in code
        .match_indices("crate::")
        .map(|(at, word)| (at, &code[at + word.len()..]))
    {
        for used in first_words(after) {
            if height(&used) > own {
                found.push(format!("{file} uses {used}"));
            }
        }
    }
    found
}

/// The first components of the paths in `a::b` or `{a::b, c::{d, e}}`.
fn first_words(path: &str) -> Vec<String> {
    let word = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let (mut depth, mut words, mut is_first) = (0, vec![], true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_first = true,
            c if is_first && (c.is_alphanumeric() || c == '_') => {
                words.push(word(&list[at..]));
                is_first = false;
            }
            _ => {}
        }
    }
    words
}
