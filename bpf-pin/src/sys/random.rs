//! Random numbers.

use std::hash::{BuildHasher, Hasher, RandomState};

use rustix::rand::{GetRandomFlags, getrandom};

/// A random number of 63 bits, never 0. Two processes, threads or calls are unlikely to get the same one.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // The kernel's state is not copied by fork(2). Early in the boot it may have no entropy yet.
    let number = match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => RandomState::new().build_hasher().finish(),
    };
    (number & i64::MAX as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::random;

    #[test]
    fn two_numbers_differ() {
        assert_ne!(random(), random());
    }
}
