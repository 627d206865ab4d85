//! The guest's root file system: a cpio archive in the newc format.

use crate::programs::Program;
use guest::plan::{BUSYBOX, EXAMPLES, PATH, Plan, TESTS};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write, copy};
use std::path::{Path, PathBuf};

const DIR: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;
const DEVICE: u32 = 0o020_600;

/// The contents of the archive.
#[derive(Debug)]
pub struct Contents<'a> {
    pub init: &'a Path,
    pub tests: &'a [Program],
    pub examples: &'a [Program],
    pub busybox: Option<PathBuf>,
    pub plan: &'a Plan,
}

/// Writes the archive and returns its size in bytes.
pub fn write(path: &Path, contents: &Contents<'_>) -> Result<u64, String> {
    let at = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::create(path).map_err(at)?;
    let mut archive = Archive {
        out: BufWriter::new(file),
        number: 0,
        dirs: BTreeSet::new(),
        written: 0,
    };
    archive.fill(contents).map_err(at)?;
    archive.out.flush().map_err(at)?;
    Ok(archive.written)
}

struct Archive<W> {
    out: W,
    number: u32,
    dirs: BTreeSet<String>,
    written: u64,
}

impl<W: Write> Archive<W> {
    fn fill(&mut self, contents: &Contents<'_>) -> std::io::Result<()> {
        // Init's standard streams, before it has mounted anything.
        self.device("/dev/console", 5, 1)?;
        self.device("/dev/null", 1, 3)?;
        self.program("/init", contents.init)?;
        for test in contents.tests {
            self.program(&format!("{TESTS}/{}", test.name), &test.path)?;
        }
        for example in contents.examples {
            self.program(&format!("{EXAMPLES}/{}", example.name), &example.path)?;
        }
        if let Some(busybox) = &contents.busybox {
            self.program(BUSYBOX, busybox)?;
        }
        let plan = contents.plan.encode();
        self.entry(PATH, TEXT, (0, 0), plan.len() as u64, &mut plan.as_bytes())?;
        self.entry("/TRAILER!!!", 0, (0, 0), 0, &mut std::io::empty())
    }

    fn device(&mut self, path: &str, major: u32, minor: u32) -> std::io::Result<()> {
        self.entry(path, DEVICE, (major, minor), 0, &mut std::io::empty())
    }

    fn program(&mut self, path: &str, source: &Path) -> std::io::Result<()> {
        let mut file = File::open(source).map_err(|error| {
            std::io::Error::new(error.kind(), format!("{}: {error}", source.display()))
        })?;
        let size = file.metadata()?.len();
        self.entry(path, PROGRAM, (0, 0), size, &mut file)
    }

    /// Writes an entry, after the directories above it.
    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        size: u64,
        data: &mut dyn std::io::Read,
    ) -> std::io::Result<()> {
        for (slash, _) in path.match_indices('/').skip(1) {
            let dir = &path[..slash];
            if self.dirs.insert(dir.to_owned()) {
                self.header(dir, DIR, (0, 0), 0)?;
            }
        }
        self.header(path, mode, device, size)?;
        let copied = copy(data, &mut self.out)?;
        if copied != size {
            return Err(std::io::Error::other(format!(
                "{path} changed during the copy"
            )));
        }
        self.written += copied;
        self.pad()
    }

    fn header(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        size: u64,
    ) -> std::io::Result<()> {
        let name = path.trim_start_matches('/');
        let size = u32::try_from(size).map_err(std::io::Error::other)?;
        self.number += 1;
        let links = if mode == DIR { 2 } else { 1 };
        let length = name.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device, the node's device, name length, checksum
        let fields = [
            self.number,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            length,
            0,
        ];
        let mut header = String::from("070701");
        fields
            .iter()
            .for_each(|field| header.push_str(&format!("{field:08x}")));
        header.push_str(name);
        header.push('\0');
        self.out.write_all(header.as_bytes())?;
        self.written += header.len() as u64;
        self.pad()
    }

    /// Headers and data are aligned to four bytes.
    fn pad(&mut self) -> std::io::Result<()> {
        let gap = (4 - self.written % 4) % 4;
        self.out.write_all(&[0; 3][..gap as usize])?;
        self.written += gap;
        Ok(())
    }
}

/// This machine's static busybox.
pub fn busybox() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found: Vec<_> = std::env::split_paths(&path)
        .map(|dir| dir.join("busybox"))
        .filter(|path| path.is_file())
        .collect();
    let wanted = "a shell needs a static busybox: apt-get install busybox-static";
    let first = found.first().ok_or(wanted)?;
    found
        .iter()
        .find(|path| is_static(path))
        .cloned()
        .ok_or_else(|| format!("{} is not static; {wanted}", first.display()))
}

/// True for an ELF file without an interpreter.
fn is_static(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|elf| names_no_interpreter(&elf).unwrap_or(false))
}

/// Searches the program headers of a 64-bit little-endian file; `None` for any other file.
fn names_no_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(elf.get(at..at.checked_add(length)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        if number(table.checked_add(index * size)?, 4)? == PT_INTERP as usize {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_unique_and_entries_aligned() {
        let mut archive = Archive {
            out: vec![],
            number: 0,
            dirs: BTreeSet::new(),
            written: 0,
        };
        archive
            .entry("/a/b/c", TEXT, (0, 0), 5, &mut &b"hello"[..])
            .unwrap();
        archive
            .entry("/a/b/d", TEXT, (0, 0), 0, &mut std::io::empty())
            .unwrap();
        assert_eq!(archive.out.len() as u64, archive.written);
        let mut names = vec![];
        let mut rest = &archive.out[..];
        while !rest.is_empty() {
            let field = |index: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * index..14 + 8 * index]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&rest[..6], b"070701");
            let (size, length) = (field(6), field(11));
            names.push(String::from_utf8(rest[110..109 + length].to_vec()).unwrap());
            let data = (110 + length).next_multiple_of(4);
            if size == 5 {
                assert_eq!(&rest[data..data + 5], b"hello");
            }
            rest = &rest[(data + size).next_multiple_of(4)..];
        }
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d"]);
    }

    #[test]
    fn a_file_that_changes_its_size_is_an_error() {
        let mut archive = Archive {
            out: vec![],
            number: 0,
            dirs: BTreeSet::new(),
            written: 0,
        };
        assert!(
            archive
                .entry("/a", TEXT, (0, 0), 3, &mut &b"hello"[..])
                .is_err()
        );
    }

    #[test]
    fn interpreters_are_detected() {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64 + 2 * 56, 0);
        (elf[32], elf[54], elf[56]) = (64, 56, 2);
        assert_eq!(names_no_interpreter(&elf), Some(true));
        elf[64 + 56] = 3;
        assert_eq!(names_no_interpreter(&elf), Some(false));
        assert_eq!(names_no_interpreter(&elf[..100]), None);
        assert_eq!(names_no_interpreter(b"#!/bin/sh\n"), None);
    }
}
