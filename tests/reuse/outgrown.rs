//! A pinned map that does not fit any more, and what is to be in its place.

use std::time::Duration;

use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{Migrate, Reuse};
use bpf_pin::{Error, Map, MapSpec, MapType, PinDir};
use common::*;

pub const NAME: &str = "flows";

pub fn old_spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 16)
}

pub fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 16, 16)
}

pub fn grow<'f>() -> Migrate<'f> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1]))).patience(Duration::ZERO)
}

/// A map with ten entries, pinned.
pub fn old(dir: &PinDir) -> bpf_pin::Result<Map> {
    let map = dir.open_or_create(NAME, &old_spec(), Reuse::Exact)?.map;
    let elems = map.elements::<u32, u64>()?;
    for key in 0..10 {
        elems.update(&key, &u64::from(key), ElemFlags::ANY)?;
    }
    Ok(map)
}

pub fn fails(dir: &PinDir, spec: &MapSpec<'_>, mut how: Migrate<'_>) -> Error {
    dir.open_or_create(NAME, spec, Reuse::Migrate(&mut how))
        .unwrap_err()
}

pub fn assert_untouched(fs: &TestFs, dir: &PinDir, old: &Map) -> Outcome {
    assert_eq!(fs.names(), [NAME]);
    assert_eq!(dir.identity(NAME)?, old.identity()?);
    // It is not frozen either.
    old.elements::<u32, u64>()?
        .update(&1, &1, ElemFlags::EXIST)?;
    Ok(())
}
