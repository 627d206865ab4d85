//! `BPF_MAP_*_BATCH`: many elements of one map in one call.

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::elem::{AsMap, SizedMap};
use super::{Result, address, address_mut, bpf, raw};

/// The outcome of a batch.
pub(crate) struct BatchOutcome {
    /// The number of elements that were processed, also after a failure; 0 if the kernel did not write it.
    pub(crate) count: usize,
    /// False if the kernel did not write the count.
    pub(crate) is_counted: bool,
    pub(crate) result: Result<()>,
}

impl BatchOutcome {
    /// A failure before the kernel wrote the count.
    fn uncounted(self) -> Self {
        Self {
            count: 0,
            is_counted: false,
            ..self
        }
    }
}

/// Buffers for `count` elements.
pub(crate) struct BatchBuffers<'a> {
    pub(crate) keys: &'a mut [u8],
    pub(crate) values: &'a mut [u8],
    pub(crate) count: usize,
}

/// Fills the last key of a batch of a resizable hash before the call. A real key that consists of this byte
/// alone is not expected there.
const MARK: u8 = 0xa5;

impl<M: AsMap> SizedMap<M> {
    /// `BPF_MAP_LOOKUP_BATCH`, or `BPF_MAP_LOOKUP_AND_DELETE_BATCH` if `deletes`. Reads from
    /// `cursor` if the iteration `has_begun`, else from the start, and advances `cursor`.
    pub(crate) fn read_batch(
        &self,
        deletes: bool,
        cursor: &mut [u64],
        has_begun: bool,
        buffers: BatchBuffers<'_>,
        elem_flags: u64,
    ) -> BatchOutcome {
        // For a hash the cursor is the number of a bucket, for other types a key.
        assert!(size_of_val(cursor) >= self.key_len().max(4));
        let count = self.count(buffers.count, buffers.keys.len());
        assert_eq!(
            Some(buffers.values.len()),
            buffers.count.checked_mul(self.value_len())
        );
        // Shows after the call whether the kernel has written the last key.
        let last = buffers.keys.len() - self.key_len();
        let is_marked = self.map_type() == abi::BPF_MAP_TYPE_RHASH;
        if is_marked {
            buffers.keys[last..].fill(MARK);
        }
        let before = cursor[0];
        let out_batch = address_mut(cursor);
        let attr = abi::bpf_attr_batch {
            in_batch: if has_begun { out_batch } else { 0 },
            out_batch,
            keys: address_mut(buffers.keys),
            values: address_mut(buffers.values),
            count,
            elem_flags,
            ..abi::bpf_attr_batch::zeroed()
        };
        let cmd = if deletes {
            abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH
        } else {
            abi::BPF_MAP_LOOKUP_BATCH
        };
        // SAFETY: the buffers hold count keys and values, and the cursor is large enough.
        let outcome = unsafe { self.batch(cmd, attr) };
        // A failure that leaves the count unchanged may have come before the kernel read it. A hash fills
        // the buffers and fails only if it advanced to another bucket. Other types succeed when they fill
        // the buffers.
        let has_filled = || {
            if is_marked {
                buffers.keys[last..].iter().any(|&byte| byte != MARK)
            } else {
                self.has_buckets() && cursor[0] != before
            }
        };
        match outcome.result {
            Ok(()) => outcome,
            // The errnos that end a batch after it has begun.
            Err(
                Errno::NOENT
                | Errno::NOSPC
                | Errno::AGAIN
                | Errno::BUSY
                | Errno::INTR
                | Errno::NOMEM
                | Errno::DEADLK
                | Errno::TIMEDOUT,
            ) if outcome.count < buffers.count || has_filled() => outcome,
            Err(_) => outcome.uncounted(),
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
    ) -> BatchOutcome {
        assert!(self.is_plain());
        assert_eq!(Some(values.len()), count.checked_mul(self.value_len()));
        let attr = abi::bpf_attr_batch {
            keys: address(keys),
            values: address(values),
            count: self.count(count, keys.len()),
            elem_flags,
            ..abi::bpf_attr_batch::zeroed()
        };
        // SAFETY: the slices hold count keys and values, which are only read; the kernel follows no
        // address in them.
        unsafe { self.write_batch(abi::BPF_MAP_UPDATE_BATCH, attr) }
    }

    /// `BPF_MAP_DELETE_BATCH`: stops at the first missing key.
    pub(crate) fn delete_batch(&self, keys: &[u8], count: usize) -> BatchOutcome {
        let attr = abi::bpf_attr_batch {
            keys: address(keys),
            count: self.count(count, keys.len()),
            ..abi::bpf_attr_batch::zeroed()
        };
        // SAFETY: the slice holds count keys, which are only read.
        unsafe { self.write_batch(abi::BPF_MAP_DELETE_BATCH, attr) }
    }

    /// Checks that `keys_len` is the length of `count` keys.
    fn count(&self, count: usize, keys_len: usize) -> u32 {
        assert_eq!(Some(keys_len), count.checked_mul(self.key_len()));
        u32::try_from(count).expect("a batch that the kernel can count")
    }

    /// # Safety
    ///
    /// As [`batch`](Self::batch).
    unsafe fn write_batch(&self, cmd: abi::bpf_cmd, attr: abi::bpf_attr_batch) -> BatchOutcome {
        let requested = attr.count as usize;
        // SAFETY: as the caller promises.
        let outcome = unsafe { self.batch(cmd, attr) };
        match outcome.result {
            // One element has failed, so the kernel did not write this count.
            Err(_) if outcome.count == requested => outcome.uncounted(),
            _ => outcome,
        }
    }

    /// # Safety
    ///
    /// Every address in `attr` is valid for what `cmd` does with `attr.count` elements of this map.
    unsafe fn batch(&self, cmd: abi::bpf_cmd, mut attr: abi::bpf_attr_batch) -> BatchOutcome {
        let requested = attr.count;
        attr.map_fd = raw(self.map().map_fd());
        // SAFETY: as the caller promises.
        let result = unsafe { bpf(cmd, &mut attr) }.map(drop);
        let count = attr.count.min(requested) as usize;
        BatchOutcome {
            count,
            is_counted: true,
            result,
        }
    }
}
