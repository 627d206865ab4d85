//! The value of a single CPU in a per-CPU map.

use bpf_pin_sys as abi;
use bpf_pin_sys::Version;
use bytemuck::{Pod, bytes_of, bytes_of_mut};
use rustix::io::Errno;

use crate::error::{Cause, Operation, Reason, Result};
use crate::process::is_filtered;
use crate::sys::{AsMap, ElemError};
use crate::types::Access;

use super::{ElemFlags, Elements, Key, PerCpu};

const SINCE: Version = Version::new(7, 0);

impl<K: Key + ?Sized, T: Pod, M: AsMap> Elements<K, PerCpu<T>, M> {
    /// The number of possible CPUs: the number of values per key.
    pub fn cpus(&self) -> usize {
        self.value_len() / PerCpu::<T>::STRIDE
    }

    /// `BPF_MAP_LOOKUP_ELEM` with `BPF_F_CPU`: returns the value of one CPU under `key`, if the key exists.
    /// Linux 7.0.
    ///
    /// # Errors
    ///
    /// [`Operation::Lookup`]:
    /// - as [`lookup`](Self::lookup)
    /// - ERANGE if `cpu` is not less than [`cpus`](Self::cpus)
    /// - [`Unsupported`](Cause::Unsupported) (EINVAL) on an older kernel; use [`lookup`](Self::lookup) there
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::PerCpu;
    /// use bpf_pin::Map;
    ///
    /// let map = Map::open("/sys/fs/bpf/counters")?;
    /// let counters = map.elements::<u32, PerCpu<u64>>()?;
    /// println!("{:?} on the first CPU", counters.lookup_on(0, &7)?);
    /// // Reset it on all CPUs.
    /// counters.update_all(&7, &0)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn lookup_on(&self, cpu: u32, key: &K) -> Result<Option<T>> {
        let mut value = T::zeroed();
        match self.try_lookup_on(cpu, key, &mut value) {
            Ok(()) => Ok(Some(value)),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(None),
            Err(error) => {
                let explain =
                    |errno| self.one_cpu_reason(errno, key, Access::ReadOnly, "BPF_F_CPU");
                let key = self.key_bytes(key);
                let reason = self.raw.reason_with(error, key, self.value_len(), explain);
                Err(self.raw.error(Operation::Lookup, reason))
            }
        }
    }

    /// `BPF_MAP_UPDATE_ELEM` with `BPF_F_CPU`: sets the value of one CPU under `key`. Linux 7.0.
    ///
    /// The values of the other CPUs stay. If a hash does not have the key yet, they are undefined: the kernel
    /// reuses the memory of deleted elements. [`update_all`](Self::update_all) and [`update`](Self::update)
    /// set all values. There are no flags, because the kernel ignores `BPF_NOEXIST` and `BPF_EXIST` together
    /// with `BPF_F_CPU`.
    ///
    /// # Errors
    ///
    /// [`Operation::Update`]:
    /// - as [`update`](Self::update)
    /// - ERANGE if `cpu` is not less than [`cpus`](Self::cpus)
    /// - [`Unsupported`](Cause::Unsupported) (EINVAL) on an older kernel
    pub fn update_on(&self, cpu: u32, key: &K, value: &T) -> Result<()> {
        self.update_one(key, value, cpu_flag(cpu), "BPF_F_CPU")
    }

    /// `BPF_MAP_UPDATE_ELEM` with `BPF_F_ALL_CPUS`: sets the same value for every CPU under `key`. Linux 7.0.
    ///
    /// # Errors
    ///
    /// As [`update_on`](Self::update_on).
    pub fn update_all(&self, key: &K, value: &T) -> Result<()> {
        self.update_one(key, value, abi::BPF_F_ALL_CPUS, "BPF_F_ALL_CPUS")
    }

    fn try_lookup_on(&self, cpu: u32, key: &K, value: &mut T) -> Result<(), ElemError> {
        let map = &self.raw.map;
        map.lookup_on(self.key_bytes(key), bytes_of_mut(value), cpu_flag(cpu))
    }

    fn update_one(&self, key: &K, value: &T, flags: u64, what: &'static str) -> Result<()> {
        // A kernel without the flag reads the values of all CPUs before it rejects it.
        let mut all = vec![0; self.value_len()];
        all[..size_of::<T>()].copy_from_slice(bytes_of(value));
        let bytes = self.key_bytes(key);
        let updated = self.raw.map.update(bytes, &all, flags);
        updated
            .or_else(|error| match error {
                ElemError::Errno(Errno::INVAL) => {
                    Err(self.one_cpu_reason(Errno::INVAL, key, Access::WriteOnly, what))
                }
                other => {
                    let flags = ElemFlags::from_bits_retain(flags);
                    self.raw.recover_update(other, bytes, &all, flags)
                }
            })
            .map_err(|reason| self.raw.error(Operation::Update, reason))
    }

    #[cold]
    fn one_cpu_reason(&self, errno: Errno, key: &K, needed: Access, what: &'static str) -> Reason {
        // CPU 0 always exists, so only a kernel without the flag rejects it.
        let is_unknown = || {
            let found = self.try_lookup_on(0, key, &mut T::zeroed());
            matches!(found, Err(ElemError::Errno(Errno::INVAL))) && !is_filtered()
        };
        if errno == Errno::INVAL && is_unknown() {
            let since = SINCE;
            return Reason::new(errno, Some(Cause::Unsupported { what, since }));
        }
        self.raw.reason(errno, needed)
    }
}

/// The flag, with the number of the CPU in the upper half.
fn cpu_flag(cpu: u32) -> u64 {
    abi::BPF_F_CPU | u64::from(cpu) << 32
}
