//! Compares the constants that BTF lacks with this machine's `linux/bpf.h`.

use crate::backports;
use common::tables;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;

use bpf_pin_sys::{BPF_FS_MAGIC, BPF_OBJ_NAME_LEN, Enumerator, Version};
use common::*;

use backports::is_backported;
use tables::{Table, tables};

const CC: &str = "/usr/bin/cc";
const NEEDS: &[Need] = &[Need::File(CC), Need::File("/usr/include/linux/bpf.h")];

/// The constants that only a header has, with their tables.
fn header_only() -> Vec<Table> {
    let constant = |name, value, since| Enumerator {
        name,
        value,
        since,
        in_btf: false,
    };
    let constants = vec![
        constant(
            "BPF_OBJ_NAME_LEN",
            BPF_OBJ_NAME_LEN as u64,
            Version::new(4, 15),
        ),
        constant("BPF_FS_MAGIC", u64::from(BPF_FS_MAGIC), Version::new(4, 4)),
    ];
    let mut tables = tables();
    for table in &mut tables {
        let mut constants = table.constants.to_vec();
        constants.retain(|c| !c.in_btf);
        table.constants = constants.leak();
    }
    tables.push(Table {
        name: "no table",
        constants: constants.leak(),
    });
    tables
}

/// Compiles `text` after the headers, and returns the compiler's result and output.
fn compile(text: &str, preprocess: bool) -> std::io::Result<(bool, String, String)> {
    let source = tempfile::Builder::new().suffix(".c").tempfile()?;
    let headers = ["linux/version.h", "linux/magic.h", "linux/bpf.h"];
    let includes: String = headers.map(|h| format!("#include <{h}>\n")).concat();
    fs::write(source.path(), includes + text)?;
    let how: &[&str] = if preprocess {
        &["-E", "-P"]
    } else {
        &["-std=gnu11", "-fsyntax-only", "-fmax-errors=0"]
    };
    let mut cc = common::command(CC);
    let output = cc
        .args(how)
        .arg(source.path())
        .env("LC_ALL", "C")
        .output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    ))
}

/// The release of the headers.
fn release() -> Result<Version, Box<dyn Error + Send + Sync>> {
    let (is_done, text, stderr) = compile("LINUX_VERSION_CODE\n", true)?;
    let code = text.lines().rev().find(|line| !line.trim().is_empty());
    let code: u32 = match code.and_then(|line| line.trim().parse().ok()) {
        Some(code) if is_done => code,
        _ => return Err(format!("no version of the headers: {stderr}").into()),
    };
    Ok(Version::new((code >> 16) as u8, (code >> 8) as u8))
}

/// Compares the constants with the headers. Returns the names that differ, with the compiler's messages.
fn differences(
    release: Version,
    tables: &[Table],
) -> Result<Vec<(String, String)>, Box<dyn Error + Send + Sync>> {
    let mut text = String::new();
    for Enumerator {
        name, value, since, ..
    } in tables.iter().flat_map(|table| table.constants)
    {
        // Each constant has a #line with its name, so an error message names the constant.
        writeln!(text, "#line 1 \"{name}\"")?;
        if release.at_least(*since) {
            let holds = format!("(unsigned long long)({name}) == {value}ULL");
            writeln!(text, "_Static_assert({holds}, \"not {value}\");")?;
        } else if !is_backported(release, name) {
            writeln!(text, "#ifdef {name}\n#error is there already\n#else")?;
            // An enumerator cannot be declared again.
            writeln!(text, "enum {{ {name} = 0 }};\n#endif")?;
        }
    }
    let (is_done, _, stderr) = compile(&text, false)?;
    let mut new_differences: Vec<(String, String)> = vec![];
    for line in stderr.lines() {
        let Some((name, what)) = line.split_once(':') else {
            continue;
        };
        let Some((_, what)) = what.split_once("error: ") else {
            continue;
        };
        let mut names = tables.iter().flat_map(|table| table.constants);
        // The first message about a name is the reason.
        if names.any(|c| c.name == name) && new_differences.iter().all(|(before, _)| before != name)
        {
            new_differences.push((name.to_owned(), what.to_owned()));
        }
    }
    if is_done != new_differences.is_empty() {
        return Err(format!("the compiler fails in another way: {stderr}").into());
    }
    Ok(new_differences)
}

#[common::test(NEEDS)]
fn constants_that_btf_lacks_match_the_header() -> Outcome {
    let release = release()?;
    let tables = header_only();
    let new_differences = differences(release, &tables)?;
    if new_differences.is_empty() {
        return Ok(());
    }
    let mut lines = vec![format!("the headers are of Linux {release}")];
    for (name, what) in new_differences {
        let listed = tables.iter().find_map(|table| {
            let constant = table.constants.iter().find(|c| c.name == name)?;
            Some((table.name, constant.since))
        });
        let (table, since) = listed.ok_or("a constant of no table")?;
        lines.push(format!("{name}: {what}; {table} has it since {since}"));
    }
    Err(lines.join("\n").into())
}

/// The new differences if one of the constants is changed.
fn new_differences(
    name: &str,
    change: impl FnOnce(&mut Enumerator),
) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let mut tables = header_only();
    let has = |table: &&mut Table| table.constants.iter().any(|c| c.name == name);
    let table = tables
        .iter_mut()
        .find(has)
        .expect("a constant of that name");
    let mut constants = table.constants.to_vec();
    let found = constants.iter_mut().find(|c| c.name == name);
    change(found.expect("found above"));
    table.constants = constants.leak();
    let new_differences = differences(release()?, &tables)?;
    Ok(new_differences.into_iter().map(|(name, _)| name).collect())
}

#[common::test(NEEDS)]
fn a_wrong_value_is_reported() -> Outcome {
    let names = new_differences("BPF_F_ALLOW_MULTI", |multi| multi.value = 3)?;
    assert_eq!(names, ["BPF_F_ALLOW_MULTI"]);
    let names = new_differences("BPF_FS_MAGIC", |magic| magic.value += 1)?;
    assert_eq!(names, ["BPF_FS_MAGIC"]);
    Ok(())
}

#[common::test(NEEDS)]
fn a_wrong_release_is_reported() -> Outcome {
    let future = Version::new(u8::MAX, 0);
    let names = new_differences("BPF_F_REPLACE", |replace| replace.since = future)?;
    assert_eq!(names, ["BPF_F_REPLACE"]);
    let names = new_differences("BPF_XCHG", |missing| {
        missing.name = "BPF_NO_SUCH_CONSTANT";
        missing.since = Version::new(4, 4);
    })?;
    assert_eq!(names, ["BPF_NO_SUCH_CONSTANT"]);
    Ok(())
}
