//! The rules of a type: a map that violates one is rejected, and the error names the rule.

use bpf_pin::error::Cause;
use bpf_pin::types::MapFlags;
use common::*;

use super::{Row, rows};

#[common::test(super::ROOT)]
fn an_error_names_the_violated_rule() -> Outcome {
    let mut named = 0;
    for row in rows().iter().filter(|row| row.is_known()) {
        let other = |size| if size == 0 { 4 } else { 0 };
        let broken = [
            (
                "key_size",
                row.with(|row| row.key_size = other(row.key_size)),
            ),
            ("key_size", row.with(|row| row.key_size = 3)),
            (
                "value_size",
                row.with(|row| row.value_size = other(row.value_size)),
            ),
            (
                "max_entries",
                row.with(|row| row.max_entries = other(row.max_entries)),
            ),
            ("map_flags", row.with(|row| row.flags = MapFlags::empty())),
        ];
        for (field, row) in broken {
            // All other fields are valid.
            let Err(error) = row.create() else {
                continue;
            };
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            let Some(Cause::InvalidArgument { what: found, .. }) = error.cause() else {
                panic!("{field}: {error}")
            };
            assert_eq!(*found, field, "{error}");
            named += 1;
        }
        let map = row.create()?;
        assert_eq!(map.info()?.map_type, row.map_type);
    }
    assert!(named >= 60, "{named} rules");
    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u32;
    let ring = |bytes| super::MapSpec::new(super::MapType::RINGBUF, 0, 0, bytes);
    for bytes in [page / 2, 3 * page, page + 1] {
        let error = ring(bytes).create().expect_err("a ring of another size");
        let what = "max_entries";
        assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
    }
    ring(2 * page).create()?;
    Ok(())
}

impl Row {
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }
}
