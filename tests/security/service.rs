//! The example service: a loader with the user and the capabilities of its unit, and no others.

#[allow(missing_docs)]
#[allow(clippy::disallowed_methods, reason = "an example")]
#[path = "../../examples/service.rs"]
mod example;

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::error::Cause;
use bpf_pin::probe::Capability;
use bpf_pin::{Error, Link, Map, PinDir};
use common::*;
use rustix::mount::{MountFlags, mount};
use rustix::thread::CapabilitySet;

use example::unit::Unit;

/// The name of a scene. Its processes have arguments.
const SCENE: &str = "BPF_PIN_TEST_SERVICE";
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID];
/// The user id that `as_user` sets.
const USER: u32 = 1234;

#[common::child]
fn child_role() -> Option<ExitCode> {
    let scene = env::var(SCENE).ok()?;
    if env::args().len() > 1 {
        return Some(example::main());
    }
    let outcome = match &*scene {
        "units" => scene_with_a_unit(unit_starts_twice),
        _ => scene_with_a_unit(bpf_alone),
    };
    outcome.unwrap_or_else(|error| panic!("{error}"));
    Some(ExitCode::SUCCESS)
}

fn run_scene(name: &str) -> Outcome {
    let output = common::command(env::current_exe()?)
        .env(SCENE, name)
        .output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(())
}

/// Runs a scene with the unit, in mounts and a network that disappear with it.
fn scene_with_a_unit(scene: fn(&Unit, &Path) -> Outcome) -> Outcome {
    let place = tempfile::tempdir()?;
    let run = place.path();
    in_mount_namespace(|| {
        mount("tmpfs", run, "tmpfs", MountFlags::empty(), None)?;
        let packets = run.join("packets");
        let text = example::UNIT.replace("/run/packets", &packets.to_string_lossy());
        let unit = Unit {
            text: text.replace("eth0", "lo"),
            user: USER,
            run: run.into(),
        };
        in_network_namespace(|| scene(&unit, &packets.join("bpf")))
    })
}

#[common::test(ROOT)]
fn a_loader_runs_with_the_capabilities_of_its_unit() -> Outcome {
    run_scene("units")
}

fn unit_starts_twice(unit: &Unit, directory: &Path) -> Outcome {
    let start = || -> Outcome<_> {
        unit.start().map_err(|error| error.to_string())?;
        let app = PinDir::open(directory)?;
        let (map, link) = (app.get::<Map>("packets")?, app.get::<Link>("link")?);
        Ok((map.id()?, link.info()?))
    };
    let (first_map, first) = start()?;
    let (map, link) = start()?;
    assert_eq!((map, link.id), (first_map, first.id));
    assert_ne!(link.prog_id, first.prog_id);

    let app = PinDir::open(directory)?;
    assert_eq!(app.own_metadata()?.uid(), USER);
    assert_eq!(app.own_metadata()?.mode() & 0o777, 0o700);
    assert_eq!(app.metadata("packets")?.uid(), USER);
    assert_eq!(
        directory.parent().ok_or("no parent")?.metadata()?.uid(),
        USER
    );

    // Removing pins takes no capability.
    as_user(CapabilitySet::empty(), || {
        example::remove(directory).map_err(|error| error.to_string())
    })?;
    for name in ["packets", "link"] {
        assert!(app.metadata(name).is_err_and(|error| error.is_missing()));
    }
    Ok(())
}

#[common::test(ROOT)]
fn a_loader_with_cap_bpf_alone_creates_its_map_and_names_what_it_lacks() -> Outcome {
    run_scene("bpf_alone")
}

fn bpf_alone(unit: &Unit, directory: &Path) -> Outcome {
    unit.start().map_err(|error| error.to_string())?;
    example::remove(directory).map_err(|error| error.to_string())?;
    let error = as_user(CapabilitySet::BPF, || {
        let error = example::start(directory, "lo").expect_err("it may not load for XDP");
        *error.downcast::<Error>().expect("an error of the library")
    });
    assert_cause_matches!(
        error,
        Cause::MissingCapability {
            capability: Capability::NetAdmin,
            ..
        }
    );
    let app = PinDir::open(directory)?;
    assert_eq!(app.metadata("packets")?.uid(), USER);
    assert!(
        app.get::<Link>("link")
            .is_err_and(|error| error.is_missing())
    );
    Ok(())
}
