//! `BPF_MAP_*_BATCH`: many elements of one map in one call.

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::elem::{AsMap, SizedMap};
use super::{Result, address, address_mut, bpf, raw};

/// The outcome of a batch.
pub(crate) struct Done {
    /// How many elements were done, whatever the result; 0 if the kernel did not write the count.
    pub(crate) count: usize,
    /// False if the kernel did not write the count.
    pub(crate) is_counted: bool,
    pub(crate) result: Result<()>,
}

impl Done {
    /// A failure before the kernel wrote the count.
    fn uncounted(self) -> Self {
        Self {
            count: 0,
            is_counted: false,
            ..self
        }
    }
}

/// Room for elements, and how many they are.
pub(crate) struct Room<'a> {
    pub(crate) keys: &'a mut [u8],
    pub(crate) values: &'a mut [u8],
    pub(crate) count: usize,
}

/// A key of these bytes alone is not expected to end a batch of a resizable hash.
const MARK: u8 = 0xa5;

impl<M: AsMap> SizedMap<M> {
    /// `BPF_MAP_LOOKUP_BATCH`, or with `takes` `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: from where
    /// `cursor` is, if that `has_begun`, to where it is then.
    pub(crate) fn read_batch(
        &self,
        takes: bool,
        cursor: &mut [u64],
        has_begun: bool,
        room: Room<'_>,
        elem_flags: u64,
    ) -> Done {
        // A hash's is the number of a bucket, the others' a key.
        assert!(size_of_val(cursor) >= self.key_len().max(4));
        let count = self.count(room.count, room.keys.len());
        assert_eq!(
            Some(room.values.len()),
            room.count.checked_mul(self.value_len())
        );
        // Marks the last key, to see afterwards whether the kernel wrote that far.
        let last = room.keys.len() - self.key_len();
        let is_marked = self.map_type() == abi::BPF_MAP_TYPE_RHASH;
        if is_marked {
            room.keys[last..].fill(MARK);
        }
        let before = cursor[0];
        let out_batch = address_mut(cursor);
        let attr = abi::bpf_attr_batch {
            in_batch: if has_begun { out_batch } else { 0 },
            out_batch,
            keys: address_mut(room.keys),
            values: address_mut(room.values),
            count,
            elem_flags,
            ..abi::bpf_attr_batch::zeroed()
        };
        let cmd = match takes {
            false => abi::BPF_MAP_LOOKUP_BATCH,
            true => abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH,
        };
        // SAFETY: count keys and values have room there, and so has the cursor.
        let done = unsafe { self.batch(cmd, attr) };
        // A failure that leaves the count as it was may come from before the kernel looked at it. A
        // hash fills all room and fails only if it moved on to another bucket; other types that fill
        // all room succeed.
        let has_filled = || match is_marked {
            true => room.keys[last..].iter().any(|&byte| byte != MARK),
            false => self.has_buckets() && cursor[0] != before,
        };
        match done.result {
            Ok(()) => done,
            // These end a batch that has begun.
            Err(
                Errno::NOENT
                | Errno::NOSPC
                | Errno::AGAIN
                | Errno::BUSY
                | Errno::INTR
                | Errno::NOMEM
                | Errno::DEADLK
                | Errno::TIMEDOUT,
            ) if done.count < room.count || has_filled() => done,
            Err(_) => done.uncounted(),
        }
    }

    /// True if the map is a hash that is read bucket by bucket.
    pub(crate) fn has_buckets(&self) -> bool {
        matches!(
            self.map_type(),
            abi::BPF_MAP_TYPE_HASH
                | abi::BPF_MAP_TYPE_PERCPU_HASH
                | abi::BPF_MAP_TYPE_LRU_HASH
                | abi::BPF_MAP_TYPE_LRU_PERCPU_HASH
                | abi::BPF_MAP_TYPE_HASH_OF_MAPS
        )
    }

    /// `BPF_MAP_UPDATE_BATCH`, after [`make_writable`](Self::make_writable).
    pub(crate) fn update_batch(
        &self,
        keys: &[u8],
        values: &[u8],
        count: usize,
        elem_flags: u64,
    ) -> Done {
        assert!(self.is_plain());
        assert_eq!(Some(values.len()), count.checked_mul(self.value_len()));
        let attr = abi::bpf_attr_batch {
            keys: address(keys),
            values: address(values),
            count: self.count(count, keys.len()),
            elem_flags,
            ..abi::bpf_attr_batch::zeroed()
        };
        // SAFETY: there are count keys and values, which are only read; the kernel follows no address in
        // them.
        unsafe { self.write_batch(abi::BPF_MAP_UPDATE_BATCH, attr) }
    }

    /// `BPF_MAP_DELETE_BATCH`, up to the first key that is not there.
    pub(crate) fn delete_batch(&self, keys: &[u8], count: usize) -> Done {
        let attr = abi::bpf_attr_batch {
            keys: address(keys),
            count: self.count(count, keys.len()),
            ..abi::bpf_attr_batch::zeroed()
        };
        // SAFETY: there are count keys, which are only read.
        unsafe { self.write_batch(abi::BPF_MAP_DELETE_BATCH, attr) }
    }

    /// A number of elements that have keys of so many bytes.
    fn count(&self, count: usize, keys_len: usize) -> u32 {
        assert_eq!(Some(keys_len), count.checked_mul(self.key_len()));
        u32::try_from(count).expect("a batch that the kernel can count")
    }

    /// # Safety
    ///
    /// As [`batch`](Self::batch).
    unsafe fn write_batch(&self, cmd: abi::bpf_cmd, attr: abi::bpf_attr_batch) -> Done {
        let asked = attr.count as usize;
        // SAFETY: the caller's.
        let done = unsafe { self.batch(cmd, attr) };
        match done.result {
            // One of them has failed, so a count of all is the one that was passed in.
            Err(_) if done.count == asked => done.uncounted(),
            _ => done,
        }
    }

    /// # Safety
    ///
    /// Every address in `attr` is valid for what `cmd` does with `attr.count` elements of this map.
    unsafe fn batch(&self, cmd: abi::bpf_cmd, mut attr: abi::bpf_attr_batch) -> Done {
        let asked = attr.count;
        attr.map_fd = raw(self.map().map_fd());
        // SAFETY: the caller's.
        let result = unsafe { bpf(cmd, &mut attr) }.map(drop);
        let count = attr.count.min(asked) as usize;
        Done {
            count,
            is_counted: true,
            result,
        }
    }
}
