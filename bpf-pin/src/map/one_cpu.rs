//! One CPU's value of a per-CPU map's element.

use bpf_pin_sys as abi;
use bpf_pin_sys::Version;
use bytemuck::{Pod, bytes_of, bytes_of_mut};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Error, Operation, Reason, Result};
use crate::map::PerCpu;
use crate::map::elem::ElemFlags;
use crate::map::refused::Needs;
use crate::process::is_filtered;
use crate::sys::{AsMap, ElemError};

const SINCE: Version = Version::new(7, 0);

impl<K: Pod, V: Pod, M: AsMap> PerCpu<K, V, M> {
    /// `BPF_MAP_LOOKUP_ELEM` with `BPF_F_CPU`: one CPU's value under `key`, if there is one. Linux 7.0.
    ///
    /// # Errors
    ///
    /// [`Operation::Lookup`](crate::Operation::Lookup) as [`Elems::lookup`](crate::Elems::lookup); ERANGE for a CPU beyond
    /// [`cpus`](Self::cpus); [`Unsupported`](Cause::Unsupported) (EINVAL) on an older kernel, where
    /// [`lookup`](Self::lookup) has all values.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::Map;
    ///
    /// let map = Map::open("/sys/fs/bpf/counters")?;
    /// let counters = map.per_cpu::<u32, u64>()?;
    /// println!("{:?} on the first CPU", counters.lookup_on(0, &7)?);
    /// // From zero again, on all.
    /// counters.update_all(&7, &0)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn lookup_on(&self, cpu: u32, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        match self.look_on(cpu, key, &mut value) {
            Ok(()) => Ok(Some(value)),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(None),
            Err(error) => {
                let elems = self.elems();
                let because = |errno| self.one_cpu_reason(errno, key, Needs::READ, "BPF_F_CPU");
                let reason = elems.reason_with(error, bytes_of(key), elems.value_len(), because);
                Err(Error::new(Operation::Lookup, reason))
            }
        }
    }

    /// `BPF_MAP_UPDATE_ELEM` with `BPF_F_CPU`: puts one CPU's value under `key`. Linux 7.0.
    ///
    /// The other CPUs' values stay. Where a hash has no such key yet they are what the kernel finds
    /// there, which may be of a key that was deleted: [`update_all`](Self::update_all) and
    /// [`update`](Self::update) put all. There are no flags: beside this one the kernel does not heed
    /// `BPF_NOEXIST` and `BPF_EXIST`.
    ///
    /// # Errors
    ///
    /// [`Operation::Update`](crate::Operation::Update) as [`Elems::update`](crate::Elems::update); ERANGE for a CPU beyond
    /// [`cpus`](Self::cpus); [`Unsupported`](Cause::Unsupported) (EINVAL) on an older kernel.
    pub fn update_on(&self, cpu: u32, key: &K, value: &V) -> Result<()> {
        self.update_one(key, value, on(cpu), "BPF_F_CPU")
    }

    /// `BPF_MAP_UPDATE_ELEM` with `BPF_F_ALL_CPUS`: puts the same value for every CPU under `key`.
    /// Linux 7.0.
    ///
    /// # Errors
    ///
    /// As [`update_on`](Self::update_on).
    pub fn update_all(&self, key: &K, value: &V) -> Result<()> {
        self.update_one(key, value, abi::BPF_F_ALL_CPUS, "BPF_F_ALL_CPUS")
    }

    fn look_on(&self, cpu: u32, key: &K, value: &mut V) -> Result<(), ElemError> {
        let cells = self.elems().cells();
        cells.lookup_on(bytes_of(key), bytes_of_mut(value), on(cpu))
    }

    fn update_one(&self, key: &K, value: &V, flags: u64, what: &'static str) -> Result<()> {
        // A kernel that does not know the flag reads all CPUs' values before it refuses it.
        let mut all = vec![0; self.elems().value_len()];
        all[..size_of::<V>()].copy_from_slice(bytes_of(value));
        let (elems, bytes) = (self.elems(), bytes_of(key));
        let updated = elems.cells().update(bytes, &all, flags);
        updated
            .or_else(|error| match error {
                ElemError::Errno(Errno::INVAL) => {
                    Err(self.one_cpu_reason(Errno::INVAL, key, Needs::WRITE, what))
                }
                other => elems.not_put(other, bytes, &all, ElemFlags::from_bits_retain(flags)),
            })
            .map_err(|reason| Error::new(Operation::Update, reason))
    }

    #[cold]
    fn one_cpu_reason(&self, errno: Errno, key: &K, needs: Needs, what: &'static str) -> Reason {
        // There is always a first CPU: only who does not know the flag refuses to look there.
        let is_unknown = || {
            let looked = self.look_on(0, key, &mut V::zeroed());
            matches!(looked, Err(ElemError::Errno(Errno::INVAL))) && !is_filtered()
        };
        if errno == Errno::INVAL && is_unknown() {
            let since = SINCE;
            return Reason::new(errno, Some(Cause::Unsupported { what, since }));
        }
        self.elems().reason(errno, needs)
    }
}

/// The flag, and in its upper half which CPU.
fn on(cpu: u32) -> u64 {
    abi::BPF_F_CPU | u64::from(cpu) << 32
}
