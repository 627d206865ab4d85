//! A pinned map of an old version, and the spec of the new version with larger values.

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

/// Pins a map of the old version with ten entries.
pub fn create_old(dir: &PinDir) -> bpf_pin::Result<Map> {
    let map = dir.open_or_create(NAME, &old_spec(), Reuse::Exact)?.map;
    let elems = map.elements::<u32, u64>()?;
    for key in 0..10 {
        elems.update(&key, &u64::from(key), ElemFlags::ANY)?;
    }
    Ok(map)
}

/// The error of a migration to `spec`.
pub fn migrate_error(dir: &PinDir, spec: &MapSpec<'_>, mut how: Migrate<'_>) -> Error {
    dir.open_or_create(NAME, spec, Reuse::Migrate(&mut how))
        .unwrap_err()
}

/// Asserts that the pin still holds the old map, that the map is not frozen, and that nothing else was left.
pub fn assert_unchanged(fs: &TestFs, dir: &PinDir, old: &Map) -> Outcome {
    assert_eq!(fs.names(), [NAME]);
    assert_eq!(dir.identity(NAME)?, old.identity()?);
    old.elements::<u32, u64>()?
        .update(&1, &1, ElemFlags::EXIST)?;
    Ok(())
}
