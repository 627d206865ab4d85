//! The records of a directory: `getdents64(2)`.

use std::ffi::CStr;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, last_errno};

/// Fills `buffer` with whole records, and returns their length in bytes: 0 at the end of the directory.
pub(crate) fn getdents(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most buffer.len() bytes.
    let filled = unsafe {
        let (begin, len) = (buffer.as_mut_ptr(), buffer.len());
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), begin, len)
    };
    usize::try_from(filled).map_err(|_| last_errno())
}

/// `struct linux_dirent64`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirent<'r> {
    pub(crate) inode: u64,
    /// `DT_REG`, `DT_DIR`, …
    pub(crate) d_type: u8,
    /// Without the NUL.
    pub(crate) name: &'r [u8],
    /// The length of the record in bytes.
    pub(crate) len: usize,
}

impl<'r> Dirent<'r> {
    /// The offset of the name in a record.
    pub(crate) const NAME: usize = offset_of!(libc::dirent64, d_name);

    /// The first record, or `None` if it is truncated.
    #[inline]
    pub(crate) fn first(records: &'r [u8]) -> Option<Self> {
        type Raw = libc::dirent64;
        let len = records.get(offset_of!(Raw, d_reclen)..)?.first_chunk()?;
        let record = records.get(..usize::from(u16::from_ne_bytes(*len)))?;
        let (head, name) = record.split_at_checked(Self::NAME)?;
        Some(Self {
            inode: u64::from_ne_bytes(*head.first_chunk()?),
            d_type: head[offset_of!(Raw, d_type)],
            name: CStr::from_bytes_until_nul(name).ok()?.to_bytes(),
            len: record.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(inode: u64, d_type: u8, name: &str) -> Vec<u8> {
        let len = (19 + name.len() + 1).next_multiple_of(8);
        let mut record = inode.to_ne_bytes().to_vec();
        record.extend([0; 8]);
        record.extend((len as u16).to_ne_bytes());
        record.push(d_type);
        record.extend(name.as_bytes());
        record.resize(len, 0);
        record
    }

    #[test]
    fn records_are_read_one_after_the_other() {
        let mut room = record(7, libc::DT_REG, "flows");
        room.extend(record(u64::MAX, libc::DT_DIR, &"n".repeat(255)));
        let first = Dirent::first(&room).unwrap();
        assert_eq!((first.inode, first.d_type), (7, libc::DT_REG));
        assert_eq!(first.name, b"flows");
        let second = Dirent::first(&room[first.len..]).unwrap();
        assert_eq!((second.inode, second.d_type), (u64::MAX, libc::DT_DIR));
        assert_eq!(second.name, [b'n'; 255]);
        assert_eq!(first.len + second.len, room.len());
    }

    #[test]
    fn names_of_every_length_are_read() {
        for len in 1..=255 {
            for byte in [1, b'n', 0x7f, 0x80, 0xff] {
                let name = vec![byte; len];
                let mut record = record(1, 0, &"n".repeat(len));
                record[Dirent::NAME..Dirent::NAME + len].copy_from_slice(&name);
                let dirent = Dirent::first(&record).unwrap();
                assert_eq!((dirent.name, dirent.len), (&name[..], record.len()));
            }
        }
    }

    #[test]
    fn a_truncated_record_is_none() {
        let whole = record(1, libc::DT_REG, "name");
        for len in 0..whole.len() {
            assert!(Dirent::first(&whole[..len]).is_none(), "{len}");
        }
        // A length of 0 would make the caller loop forever.
        assert!(Dirent::first(&[0; 64]).is_none());
    }
}
