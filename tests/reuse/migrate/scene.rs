//! A pinned map to migrate.

use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Migrate, Migration, Reuse};
use bpf_pin::{Map, MapSpec, MapType, PinDir};
use common::TestFs;

pub const NAME: &str = "flows";

/// A bpffs, its root directory, and a pinned map with these entries: keys of 4 bytes, values of 8.
pub fn scene(
    entries: impl IntoIterator<Item = (u32, u64)>,
) -> bpf_pin::Result<(TestFs, PinDir, Map)> {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = create_pinned(&dir, &hash_spec(4, 8))?;
    put(&map, entries)?;
    Ok((fs, dir, map))
}

pub fn create_pinned(dir: &PinDir, spec: &MapSpec<'_>) -> bpf_pin::Result<Map> {
    dir.open_or_create(NAME, spec, Reuse::Exact)
        .map(|reused| reused.map)
}

/// Migrates and commits, and returns the new map.
pub fn migrate(dir: &PinDir, spec: &MapSpec<'_>, mut how: Migrate<'_>) -> bpf_pin::Result<Map> {
    let (map, migration) = begin(dir, spec, &mut how)?;
    migration.commit()?;
    Ok(map)
}

/// Migrates without committing.
pub fn begin(
    dir: &PinDir,
    spec: &MapSpec<'_>,
    how: &mut Migrate<'_>,
) -> bpf_pin::Result<(Map, Migration)> {
    let opened = dir.open_or_create(NAME, spec, Reuse::Migrate(how))?;
    let MapOutcome::Migrated(migration) = opened.outcome else {
        panic!("{opened:?}");
    };
    assert_eq!(dir.get::<Map>(NAME)?.id()?, opened.map.id()?);
    Ok((opened.map, migration))
}

pub fn hash_spec(key_size: u32, value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, key_size, value_size, 64)
}

pub fn put(map: &Map, entries: impl IntoIterator<Item = (u32, u64)>) -> bpf_pin::Result<()> {
    let elems = map.elements::<u32, u64>()?;
    for (key, value) in entries {
        elems.update(&key, &value, ElemFlags::ANY)?;
    }
    Ok(())
}

pub fn entries<K: bytemuck::Pod + Ord, V: bytemuck::Pod + Ord>(
    map: &Map,
) -> bpf_pin::Result<Vec<(K, V)>> {
    let elems = map.elements::<K, V>()?;
    let mut entries = elems.iter().collect::<bpf_pin::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}
