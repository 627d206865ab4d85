//! Another object is put under the name between any two syscalls.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bpf_pin::{Identity, Kind, PinDir};
use common::*;

use crate::attack::{ChildResult, Fixture, LONG, PINS, Progress, at_each_stop};

fn has_exchange() -> bool {
    kernel(5, 17).unmet().is_none()
}

fn ours_is_there(fixture: &Fixture) {
    fixture.pin(&fixture.ours, "name");
    fixture.pin(&fixture.ours, "ours");
}

fn remove(fixture: &Fixture, dir: &PinDir) -> bpf_pin::Result<()> {
    dir.unpin(&fixture.ours, "name")
}

/// The pin was checked, and is not removed yet.
fn is_between_check_and_removal(progress: &Progress) -> bool {
    progress.has_called("OBJ_GET") && !progress.has_called("unlink")
}

#[common::test_alone(PINS)]
fn unpin_loses_a_new_object_only_between_check_and_removal() {
    let attack = |fixture: &Fixture, _: &Progress| fixture.pin_theirs("name");
    at_each_stop(
        ours_is_there,
        remove,
        attack,
        |fixture, progress, result| {
            let is_lost = !fixture.has("name", &fixture.theirs);
            assert_eq!(
                is_lost,
                is_between_check_and_removal(progress),
                "{:?}",
                progress.stops
            );
            let expected = match progress.has_called("OBJ_GET") {
                true => ChildResult::Succeeded,
                false => ChildResult::Replaced,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
            assert!(fixture.has("ours", &fixture.ours));
        },
    );
}

#[common::test_alone(PINS)]
fn unpin_loses_a_new_symbolic_link_only_between_check_and_removal() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::remove_file(fixture.at("name"));
        symlink("ours", fixture.at("name")).unwrap();
    };
    at_each_stop(
        ours_is_there,
        remove,
        attack,
        |fixture, progress, result| {
            // At most the link itself is removed, not its target.
            assert!(fixture.has("ours", &fixture.ours), "{:?}", progress.stops);
            let is_lost = fs::symlink_metadata(fixture.at("name")).is_err();
            let is_seen = progress.has_called("readlink");
            assert_eq!(
                is_lost,
                is_seen && !progress.has_called("unlink"),
                "{:?}",
                progress.stops
            );
            assert_eq!(result == ChildResult::SymbolicLink, !is_seen, "{result:?}");
        },
    );
}

#[common::test_alone(PINS)]
fn unpin_keeps_a_new_directory() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::remove_file(fixture.at("name"));
        fs::create_dir(fixture.at("name")).unwrap();
    };
    at_each_stop(
        ours_is_there,
        remove,
        attack,
        |fixture, progress, result| {
            assert!(fixture.at("name").is_dir(), "{:?}", progress.stops);
            let expected = match progress.has_called("unlink") {
                true => ChildResult::Succeeded,
                false => ChildResult::NotAnObject,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
        },
    );
}

fn replaced_if(fixture: &Fixture, dir: &PinDir) -> bpf_pin::Result<()> {
    let expected = Identity {
        kind: Kind::Map,
        id: fixture.ours.id()?,
    };
    dir.replace_if(&fixture.new, "name", expected)
}

/// A kernel without RENAME_EXCHANGE has a gap between the last check and the rename.
fn may_be_lost(progress: &Progress) -> bool {
    !has_exchange() && progress.count_of("OBJ_GET") >= 2 && !progress.has_called("renameat2")
}

#[common::test_alone(PINS)]
fn replace_if_keeps_another_object() {
    let attack = |fixture: &Fixture, _: &Progress| fixture.pin_theirs("name");
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |fixture, progress, result| {
            let is_lost = !fixture.has("name", &fixture.theirs);
            assert_eq!(is_lost, may_be_lost(progress), "{:?}", progress.stops);
            let is_seen = progress.count_of("OBJ_GET") >= 2 || progress.has_called("renameat2");
            let expected = match is_seen {
                true => ChildResult::Succeeded,
                false => ChildResult::Replaced,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
            assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
            assert!(fixture.has("ours", &fixture.ours));
        },
    );
}

/// The attacker replaces the pin at one stop, and again at a later stop.
#[common::test_alone(PINS)]
fn replace_if_keeps_the_last_of_two_other_objects() {
    let fs = TestFs::new();
    let (mut pairs, end) = (0, Instant::now() + Duration::from_secs(2));
    for first in 0.. {
        for second in first + 1.. {
            // All pairs, or only adjacent ones and some others if time is short.
            let is_time = || Instant::now() < end || std::env::var_os(LONG).is_some();
            if second > first + 1 && (first + second) % 5 > 0 && !is_time() {
                continue;
            }
            let fixture = Fixture::new(fs.at(&format!("{first}-{second}")));
            let is_pair = replace_at_two_stops(&fixture, first, second);
            fs::remove_dir_all(&fixture.root).unwrap();
            pairs += usize::from(is_pair);
            match is_pair {
                true => {}
                false if second == first + 1 => {
                    assert!(pairs > 50, "{pairs} pairs");
                    return;
                }
                false => break,
            }
        }
    }
}

/// Returns `false` if the child result before the second stop.
fn replace_at_two_stops(fixture: &Fixture, first: usize, second: usize) -> bool {
    ours_is_there(fixture);
    let last = hash();
    let run = |dir: PinDir| ChildResult::code(replaced_if(fixture, &dir));
    let mut tracee = Tracee::fork(|| fixture.dir(), run).expect("a child");
    let mut progress = Progress { stops: Vec::new() };
    for number in 0..=second {
        let Some(stop) = tracee.next().expect("a stop") else {
            break;
        };
        progress.stops.push(stop);
        if number == first {
            fixture.pin_theirs("name");
        }
        if number == second {
            fixture.pin(&last, "last");
            fs::rename(fixture.at("last"), fixture.at("name")).unwrap();
        }
    }
    let result = ChildResult::of(tracee.finish().expect("an end"));
    let what = format!("{first}, {second}: {result:?} {:?}", progress.stops);
    assert!(
        matches!(result, ChildResult::Succeeded | ChildResult::Replaced),
        "{what}"
    );
    assert_eq!(fixture.hidden_names(), [""; 0], "{what}");
    if progress.stops.len() <= second {
        return false;
    }
    // If the child has seen the first object, it leaves the second alone.
    let is_lost = !fixture.has("name", &last);
    assert_eq!(
        is_lost,
        may_be_lost(&progress) && result == ChildResult::Succeeded,
        "{what}"
    );
    true
}

#[common::test_alone(PINS)]
fn replace_if_keeps_a_directory() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::remove_file(fixture.at("name"));
        fs::create_dir(fixture.at("name")).unwrap();
        fixture.pin(&fixture.theirs, "name/theirs");
    };
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |fixture, progress, result| {
            assert!(
                fixture.has("name/theirs", &fixture.theirs),
                "{:?}",
                progress.stops
            );
            let expected = match progress.has_called("renameat2") {
                true => ChildResult::Succeeded,
                false => ChildResult::NotAnObject,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
            assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
        },
    );
}

#[common::test_alone(PINS)]
fn replace_if_keeps_a_symbolic_link() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::remove_file(fixture.at("name"));
        symlink("theirs", fixture.at("name")).unwrap();
    };
    let prepare = |fixture: &Fixture| {
        ours_is_there(fixture);
        fixture.pin(&fixture.theirs, "theirs");
    };
    at_each_stop(prepare, replaced_if, attack, |fixture, progress, result| {
        assert!(
            fixture.has("theirs", &fixture.theirs),
            "{:?}",
            progress.stops
        );
        let stands = fs::read_link(fixture.at("name")).is_ok();
        if has_exchange() {
            assert!(stands, "{result:?} {:?}", progress.stops);
        }
        assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
        if progress.has_called("renameat2") {
            assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
        }
    });
}

#[common::test_alone(PINS)]
fn replace_if_does_not_create_a_missing_pin() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::remove_file(fixture.at("name"));
    };
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |fixture, progress, result| {
            assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
            // Without RENAME_EXCHANGE the rename after the last check creates the pin.
            let is_seen = progress.has_called("renameat2")
                || !has_exchange() && progress.count_of("OBJ_GET") >= 2;
            let expected = match is_seen {
                true => ChildResult::Succeeded,
                false => ChildResult::Missing,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
            let stands = fixture.at("name").exists();
            assert_eq!(
                stands,
                is_seen && !progress.has_called("renameat2"),
                "{:?}",
                progress.stops
            );
        },
    );
}

fn replace(fixture: &Fixture, dir: &PinDir) -> bpf_pin::Result<()> {
    dir.replace(&fixture.ours, "name")
}

#[common::test_alone(PINS)]
fn replace_succeeds_over_any_new_object() {
    let attack = |fixture: &Fixture, _: &Progress| fixture.pin_theirs("name");
    at_each_stop(
        |_| {},
        replace,
        attack,
        |fixture, progress, result| {
            assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
            let is_later = progress.has_called("renameat2");
            assert_eq!(fixture.has("name", &fixture.theirs), is_later);
            assert_eq!(fixture.has("name", &fixture.ours), !is_later);
            assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
        },
    );
}

fn unlink_all_hidden(fixture: &Fixture) {
    for name in fixture.hidden_names() {
        let path = fixture.root.join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
}

/// The attacker removes all hidden names.
#[common::test_alone(PINS)]
fn replace_without_its_temporary_pin_changes_nothing() {
    let attack = |fixture: &Fixture, _: &Progress| unlink_all_hidden(fixture);
    at_each_stop(
        ours_is_there,
        |fixture, dir| dir.replace(&fixture.theirs, "name"),
        attack,
        |fixture, progress, result| {
            let is_removed = progress.has_called("OBJ_PIN") && !progress.has_called("renameat2");
            assert_eq!(
                result != ChildResult::Succeeded,
                is_removed,
                "{result:?} {:?}",
                progress.stops
            );
            let expected = match is_removed {
                true => &fixture.ours,
                false => &fixture.theirs,
            };
            assert!(fixture.has("name", expected), "{:?}", progress.stops);
            assert_eq!(fixture.hidden_names(), [""; 0]);
        },
    );
}

fn publish(fixture: &Fixture, dir: &PinDir) -> bpf_pin::Result<()> {
    let set = dir.stage("set")?;
    set.pin(&fixture.ours, "new")?;
    set.publish().map(drop).map_err(Into::into)
}

fn old_set(fixture: &Fixture) {
    fs::create_dir(fixture.at("set")).unwrap();
    fixture.pin(&fixture.ours, "set/old");
}

/// The attacker removes all hidden names.
#[common::test_alone(PINS)]
fn stage_without_its_directory_leaves_nothing() {
    let attack = |fixture: &Fixture, _: &Progress| unlink_all_hidden(fixture);
    at_each_stop(old_set, publish, attack, |fixture, progress, result| {
        assert_eq!(
            fixture.hidden_names(),
            [""; 0],
            "{result:?} {:?}",
            progress.stops
        );
        match result {
            ChildResult::Succeeded => assert!(fixture.has("set/new", &fixture.ours)),
            _ => {
                assert!(
                    progress.has_called("mkdirat"),
                    "{result:?} {:?}",
                    progress.stops
                );
                // Without RENAME_EXCHANGE the old set has a hidden name for a progress, too.
                let is_old_hidden = !has_exchange() && progress.has_called("renameat2");
                let is_kept = fixture.has("set/old", &fixture.ours);
                assert!(is_kept || is_old_hidden, "{:?}", progress.stops);
            }
        }
    });
}

/// The attacker moves the old set away and puts an object in its place.
#[common::test_alone(PINS)]
fn publish_keeps_an_object_that_took_the_name() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::rename(fixture.at("set"), fixture.at("moved"));
        fixture.pin_theirs("set");
    };
    at_each_stop(old_set, publish, attack, |fixture, progress, result| {
        fixture.dir().remove_leftovers().unwrap();
        let what = format!("{result:?} {:?}", progress.stops);
        assert!(
            fixture.has("set", &fixture.theirs),
            "their pin is lost: {what}"
        );
        assert_eq!(fixture.hidden_names(), [""; 0], "{what}");
    });
}

#[common::test_alone(PINS)]
fn publish_keeps_a_symbolic_link_that_took_the_name() {
    let prepare = |fixture: &Fixture| {
        old_set(fixture);
        fs::create_dir(fixture.at("victim")).unwrap();
        fixture.pin(&fixture.theirs, "victim/theirs");
    };
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::rename(fixture.at("set"), fixture.at("moved"));
        symlink("victim", fixture.at("set")).unwrap();
    };
    at_each_stop(prepare, publish, attack, |fixture, progress, result| {
        fixture.dir().remove_leftovers().unwrap();
        let what = format!("{result:?} {:?}", progress.stops);
        let names = fs::read_dir(fixture.at("victim")).unwrap().count();
        assert_eq!(names, 1, "{what}");
        assert!(fixture.has("victim/theirs", &fixture.theirs), "{what}");
        assert!(
            fs::read_link(fixture.at("set")).is_ok(),
            "their link is lost: {what}"
        );
    });
}

#[common::test_alone(PINS)]
fn publish_without_an_old_set_succeeds() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::rename(fixture.at("set"), fixture.at("moved"));
    };
    at_each_stop(old_set, publish, attack, |fixture, progress, result| {
        assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
        let is_new = ["set/new", "moved/new"]
            .iter()
            .any(|name| fixture.has(name, &fixture.ours));
        assert!(is_new, "{:?}", progress.stops);
        assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
    });
}

#[common::test_alone(PINS)]
fn remove_dir_all_keeps_an_object_that_took_the_name() {
    let attack = |fixture: &Fixture, _: &Progress| {
        let _ = fs::rename(fixture.at("set"), fixture.at("moved"));
        fixture.pin_theirs("set");
    };
    at_each_stop(
        old_set,
        |_, dir| dir.remove_dir_all("set"),
        attack,
        |fixture, progress, result| {
            assert!(fixture.has("set", &fixture.theirs), "{:?}", progress.stops);
            assert_eq!(
                result == ChildResult::Succeeded,
                progress.has_called("renameat2"),
                "{result:?}"
            );
            assert_eq!(
                fixture.at("moved").exists(),
                !progress.has_called("renameat2")
            );
            assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
        },
    );
}
