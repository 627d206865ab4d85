//! The cost of `open_or_create`.

use std::mem::forget;

use bpf_pin::reuse::{MapOutcome, Migrate, Reuse};
use bpf_pin::types::MapFlags;
use bpf_pin::{Map, MapSpec, MapType, PinDir};

use super::Measured;

/// The spec of the scene's map.
fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 8)
}

fn open_or_create(dir: &PinDir, name: &str, reuse: Reuse<'_, '_>) -> MapOutcome {
    let reused = dir.open_or_create(name, &spec(), reuse).unwrap();
    drop::<Map>(reused.map);
    reused.outcome
}

fn assert_found(dir: PinDir, reuse: Reuse<'_, '_>) {
    assert!(matches!(
        open_or_create(&dir, "map", reuse),
        MapOutcome::Found
    ));
    forget(dir);
}

fn assert_found_with(dir: PinDir, flags: MapFlags) {
    let reused = dir.open_or_create("map", &spec().flags(flags), Reuse::Exact);
    assert!(matches!(reused.unwrap().outcome, MapOutcome::Found));
    forget(dir);
}

fn assert_created(dir: PinDir, reuse: Reuse<'_, '_>) {
    assert!(matches!(
        open_or_create(&dir, "new", reuse),
        MapOutcome::Created
    ));
    forget(dir);
}

fn migrate() -> Migrate<'static> {
    // A closure without captures takes no memory.
    Migrate::new(|key: &u32, value: &u64| Some((*key, *value)))
}

/// As many as `get`: the info that verifies the kind is compared too.
const FOUND: &[&str] = &["OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "readlink", "close"];
/// A map is pinned under the lock for replacements.
const CREATED: &[&str] = &[
    "OBJ_GET_AT",
    "MAP_CREATE",
    "open",
    "fcntl",
    "fcntl",
    "fcntl",
    "OBJ_PIN_AT",
    "fcntl",
    "close",
    "close",
];

pub const MEASURED: &[Measured] = measured! {
    reuse_exact_found => FOUND, |fixture| { fixture.dir() } |dir: PinDir| assert_found(dir, Reuse::Exact);
    reuse_recreate_found => FOUND, |fixture| { fixture.dir() } |dir: PinDir| assert_found(dir, Reuse::Recreate);
    reuse_open_only_found => FOUND, |fixture| { fixture.dir() } |dir: PinDir| assert_found(dir, Reuse::OpenOnly);
    // Neither opens nor verifies more.
    reuse_exact_found_to_read => FOUND, |fixture| { fixture.dir() } |dir: PinDir| assert_found_with(dir, MapFlags::RDONLY);
    reuse_exact_found_to_write => FOUND, |fixture| { fixture.dir() } |dir: PinDir| assert_found_with(dir, MapFlags::WRONLY);
    // One more open looks for an uncommitted migration.
    reuse_migrate_found => &["OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "readlink", "OBJ_GET_AT", "close"],
        |fixture| { (fixture.dir(), migrate()) }
        |(dir, mut how): (PinDir, Migrate<'static>)| { assert_found(dir, Reuse::Migrate(&mut how)); forget(how) };
    reuse_exact_created => CREATED, |fixture| { fixture.dir() } |dir: PinDir| assert_created(dir, Reuse::Exact);
    reuse_recreate_created => CREATED, |fixture| { fixture.dir() } |dir: PinDir| assert_created(dir, Reuse::Recreate);
    reuse_migrate_created => CREATED, |fixture| { (fixture.dir(), migrate()) }
        |(dir, mut how): (PinDir, Migrate<'static>)| { assert_created(dir, Reuse::Migrate(&mut how)); forget(how) };
    reuse_create_only_created => CREATED.split_at(1).1, |fixture| { fixture.dir() }
        |dir: PinDir| assert_created(dir, Reuse::CreateOnly);
};
