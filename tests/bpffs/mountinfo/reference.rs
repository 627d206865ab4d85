//! A simple reference parser for mountinfo, and random numbers to generate lines.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bpf_pin::bpffs::Mount;

/// xorshift64*: the same seed gives the same numbers on every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // A seed of zero would give only zeroes.
        Self(seed.max(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A reader that returns at most `most` bytes per read, and sometimes `Interrupted`.
pub struct ShortReads<'a> {
    text: &'a [u8],
    random: Random,
    most: usize,
}

impl<'a> ShortReads<'a> {
    pub fn new(text: &'a [u8], random: Random, most: usize) -> Self {
        Self { text, random, most }
    }
}

impl Read for ShortReads<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.random.below(10) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = self.most.min(buffer.len()).min(self.text.len());
        let count = match most {
            0 => 0,
            most => 1 + self.random.below(most),
        };
        let (now, later) = self.text.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.text = later;
        Ok(count)
    }
}

/// Parses a line in the simplest way.
pub fn reference_parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = 6 + fields.get(6..)?.iter().position(|field| *field == b"-")?;
    let number = |field: &[u8]| -> Option<u64> {
        let text = String::from_utf8(field.to_vec()).ok()?;
        let is_number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let (major, minor) = {
        let colon = fields[2].iter().position(|byte| *byte == b':')?;
        (
            number(&fields[2][..colon])?,
            number(&fields[2][colon + 1..])?,
        )
    };
    if major > u32::MAX.into() || minor > u32::MAX.into() || fields.len() < dash + 4 {
        return None;
    }
    let text = |at: usize| OsString::from_vec(unescape(fields[at]));
    // `Mount` has no public constructor, so start from a parsed line.
    let mut mount = Mount::parse(b"1 1 0:0 / / rw - x x rw")?;
    mount.mount_id = number(fields[0])?;
    mount.parent_id = number(fields[1])?;
    mount.dev = libc::makedev(major as u32, minor as u32);
    mount.root = text(3).into();
    mount.mount_point = text(4).into();
    mount.options = OsString::from_vec(fields[5].to_vec());
    let value = |name: &str| {
        let fields = fields[6..dash].iter().rev();
        let mut values = fields.filter_map(|field| {
            let field = String::from_utf8_lossy(field).into_owned();
            let (key, value) = field.split_once(':')?;
            (key == name).then(|| number(value.as_bytes()))
        });
        values.next().flatten()
    };
    mount.propagation.shared = value("shared");
    mount.propagation.master = value("master");
    mount.propagation.propagate_from = value("propagate_from");
    mount.propagation.unbindable = fields[6..dash].contains(&&b"unbindable"[..]);
    mount.fs_type = text(dash + 1);
    mount.source = text(dash + 2);
    mount.super_options = OsString::from_vec(fields[dash + 3..].join(&b' '));
    Some(mount)
}

/// The value of the first option of this name.
pub fn reference_option(options: &OsStr, name: &str) -> Option<OsString> {
    let mut options = options.as_bytes().split(|byte| *byte == b',');
    options.find_map(|option| {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let is_it = parts.next() == Some(name.as_bytes());
        let value = || OsString::from_vec(unescape(parts.next().unwrap_or_default()));
        is_it.then(value)
    })
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    let mut at = 0;
    while at < text.len() {
        let digits = text.get(at + 1..at + 4).unwrap_or_default();
        let is_octal = digits.len() == 3 && digits.iter().all(|digit| (b'0'..b'8').contains(digit));
        let value = digits.iter().fold(0u32, |value, digit| {
            value * 8 + u32::from(digit.wrapping_sub(b'0'))
        });
        if text[at] == b'\\' && is_octal && value < 256 {
            bytes.push(value as u8);
            at += 4;
        } else {
            bytes.push(text[at]);
            at += 1;
        }
    }
    bytes
}
