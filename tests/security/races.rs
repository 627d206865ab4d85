//! Another object is put under the name between any two syscalls.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bpf_pin::{Identity, Kind, PinDir};
use common::*;

use crate::attack::{ChildResult, Ground, LONG, PINS, Progress, at_each_stop};

fn has_exchange() -> bool {
    kernel(5, 17).unmet().is_none()
}

fn ours_is_there(ground: &Ground) {
    ground.pin(&ground.ours, "name");
    ground.pin(&ground.ours, "ours");
}

fn remove(ground: &Ground, dir: &PinDir) -> bpf_pin::Result<()> {
    dir.unpin(&ground.ours, "name")
}

/// The pin was checked, and is not removed yet.
fn is_between_check_and_removal(progress: &Progress) -> bool {
    progress.has_done("OBJ_GET") && !progress.has_done("unlink")
}

#[common::test_alone(PINS)]
fn unpin_loses_a_new_object_only_between_check_and_removal() {
    let attack = |ground: &Ground, _: &Progress| ground.put_theirs("name");
    at_each_stop(ours_is_there, remove, attack, |ground, progress, result| {
        let is_lost = !ground.has("name", &ground.theirs);
        assert_eq!(
            is_lost,
            is_between_check_and_removal(progress),
            "{:?}",
            progress.stops
        );
        let expected = match progress.has_done("OBJ_GET") {
            true => ChildResult::Succeeded,
            false => ChildResult::Replaced,
        };
        assert_eq!(result, expected, "{:?}", progress.stops);
        assert!(ground.has("ours", &ground.ours));
    });
}

#[common::test_alone(PINS)]
fn unpin_loses_a_new_symbolic_link_only_between_check_and_removal() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::remove_file(ground.at("name"));
        symlink("ours", ground.at("name")).unwrap();
    };
    at_each_stop(ours_is_there, remove, attack, |ground, progress, result| {
        // At most the link itself is removed, not its target.
        assert!(ground.has("ours", &ground.ours), "{:?}", progress.stops);
        let is_lost = fs::symlink_metadata(ground.at("name")).is_err();
        let is_seen = progress.has_done("readlink");
        assert_eq!(
            is_lost,
            is_seen && !progress.has_done("unlink"),
            "{:?}",
            progress.stops
        );
        assert_eq!(result == ChildResult::SymbolicLink, !is_seen, "{result:?}");
    });
}

#[common::test_alone(PINS)]
fn unpin_keeps_a_new_directory() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::remove_file(ground.at("name"));
        fs::create_dir(ground.at("name")).unwrap();
    };
    at_each_stop(ours_is_there, remove, attack, |ground, progress, result| {
        assert!(ground.at("name").is_dir(), "{:?}", progress.stops);
        let expected = match progress.has_done("unlink") {
            true => ChildResult::Succeeded,
            false => ChildResult::NotAnObject,
        };
        assert_eq!(result, expected, "{:?}", progress.stops);
    });
}

fn replaced_if(ground: &Ground, dir: &PinDir) -> bpf_pin::Result<()> {
    let expected = Identity {
        kind: Kind::Map,
        id: ground.ours.id()?,
    };
    dir.replace_if(&ground.new, "name", expected)
}

/// A kernel without RENAME_EXCHANGE has a gap between the last check and the rename.
fn may_be_lost(progress: &Progress) -> bool {
    !has_exchange() && progress.done("OBJ_GET") >= 2 && !progress.has_done("renameat2")
}

#[common::test_alone(PINS)]
fn replace_if_keeps_another_object() {
    let attack = |ground: &Ground, _: &Progress| ground.put_theirs("name");
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |ground, progress, result| {
            let is_lost = !ground.has("name", &ground.theirs);
            assert_eq!(is_lost, may_be_lost(progress), "{:?}", progress.stops);
            let is_seen = progress.done("OBJ_GET") >= 2 || progress.has_done("renameat2");
            let expected = match is_seen {
                true => ChildResult::Succeeded,
                false => ChildResult::Replaced,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
            assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
            assert!(ground.has("ours", &ground.ours));
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
            let ground = Ground::new(fs.at(&format!("{first}-{second}")));
            let is_pair = replace_at_two_stops(&ground, first, second);
            fs::remove_dir_all(&ground.root).unwrap();
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
fn replace_at_two_stops(ground: &Ground, first: usize, second: usize) -> bool {
    ours_is_there(ground);
    let last = hash();
    let run = |dir: PinDir| ChildResult::code(replaced_if(ground, &dir));
    let mut tracee = Tracee::fork(|| ground.dir(), run).expect("a child");
    let mut progress = Progress { stops: Vec::new() };
    for number in 0..=second {
        let Some(stop) = tracee.next().expect("a stop") else {
            break;
        };
        progress.stops.push(stop);
        if number == first {
            ground.put_theirs("name");
        }
        if number == second {
            ground.pin(&last, "last");
            fs::rename(ground.at("last"), ground.at("name")).unwrap();
        }
    }
    let result = ChildResult::of(tracee.finish().expect("an end"));
    let what = format!("{first}, {second}: {result:?} {:?}", progress.stops);
    assert!(
        matches!(result, ChildResult::Succeeded | ChildResult::Replaced),
        "{what}"
    );
    assert_eq!(ground.strays(), [""; 0], "{what}");
    if progress.stops.len() <= second {
        return false;
    }
    // If the child has seen the first object, it leaves the second alone.
    let is_lost = !ground.has("name", &last);
    assert_eq!(
        is_lost,
        may_be_lost(&progress) && result == ChildResult::Succeeded,
        "{what}"
    );
    true
}

#[common::test_alone(PINS)]
fn replace_if_keeps_a_directory() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::remove_file(ground.at("name"));
        fs::create_dir(ground.at("name")).unwrap();
        ground.pin(&ground.theirs, "name/theirs");
    };
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |ground, progress, result| {
            assert!(
                ground.has("name/theirs", &ground.theirs),
                "{:?}",
                progress.stops
            );
            let expected = match progress.has_done("renameat2") {
                true => ChildResult::Succeeded,
                false => ChildResult::NotAnObject,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
            assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
        },
    );
}

#[common::test_alone(PINS)]
fn replace_if_keeps_a_symbolic_link() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::remove_file(ground.at("name"));
        symlink("theirs", ground.at("name")).unwrap();
    };
    let prepare = |ground: &Ground| {
        ours_is_there(ground);
        ground.pin(&ground.theirs, "theirs");
    };
    at_each_stop(prepare, replaced_if, attack, |ground, progress, result| {
        assert!(ground.has("theirs", &ground.theirs), "{:?}", progress.stops);
        let stands = fs::read_link(ground.at("name")).is_ok();
        if has_exchange() {
            assert!(stands, "{result:?} {:?}", progress.stops);
        }
        assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
        if progress.has_done("renameat2") {
            assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
        }
    });
}

#[common::test_alone(PINS)]
fn replace_if_does_not_create_a_missing_pin() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::remove_file(ground.at("name"));
    };
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |ground, progress, result| {
            assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
            // Without RENAME_EXCHANGE the rename after the last check creates the pin.
            let is_seen =
                progress.has_done("renameat2") || !has_exchange() && progress.done("OBJ_GET") >= 2;
            let expected = match is_seen {
                true => ChildResult::Succeeded,
                false => ChildResult::Missing,
            };
            assert_eq!(result, expected, "{:?}", progress.stops);
            let stands = ground.at("name").exists();
            assert_eq!(
                stands,
                is_seen && !progress.has_done("renameat2"),
                "{:?}",
                progress.stops
            );
        },
    );
}

fn replace(ground: &Ground, dir: &PinDir) -> bpf_pin::Result<()> {
    dir.replace(&ground.ours, "name")
}

#[common::test_alone(PINS)]
fn replace_succeeds_whatever_object_is_put_there() {
    let attack = |ground: &Ground, _: &Progress| ground.put_theirs("name");
    at_each_stop(
        |_| {},
        replace,
        attack,
        |ground, progress, result| {
            assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
            let is_later = progress.has_done("renameat2");
            assert_eq!(ground.has("name", &ground.theirs), is_later);
            assert_eq!(ground.has("name", &ground.ours), !is_later);
            assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
        },
    );
}

fn unlink_all_hidden(ground: &Ground) {
    for name in ground.strays() {
        let path = ground.root.join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
}

/// The attacker removes all hidden names.
#[common::test_alone(PINS)]
fn replace_without_its_temporary_pin_changes_nothing() {
    let attack = |ground: &Ground, _: &Progress| unlink_all_hidden(ground);
    at_each_stop(
        ours_is_there,
        |ground, dir| dir.replace(&ground.theirs, "name"),
        attack,
        |ground, progress, result| {
            let is_removed = progress.has_done("OBJ_PIN") && !progress.has_done("renameat2");
            assert_eq!(
                result != ChildResult::Succeeded,
                is_removed,
                "{result:?} {:?}",
                progress.stops
            );
            let expected = match is_removed {
                true => &ground.ours,
                false => &ground.theirs,
            };
            assert!(ground.has("name", expected), "{:?}", progress.stops);
            assert_eq!(ground.strays(), [""; 0]);
        },
    );
}

fn publish(ground: &Ground, dir: &PinDir) -> bpf_pin::Result<()> {
    let set = dir.stage("set")?;
    set.pin(&ground.ours, "new")?;
    set.publish().map(drop).map_err(Into::into)
}

fn old_set(ground: &Ground) {
    fs::create_dir(ground.at("set")).unwrap();
    ground.pin(&ground.ours, "set/old");
}

/// The attacker removes all hidden names.
#[common::test_alone(PINS)]
fn stage_without_its_directory_leaves_nothing() {
    let attack = |ground: &Ground, _: &Progress| unlink_all_hidden(ground);
    at_each_stop(old_set, publish, attack, |ground, progress, result| {
        assert_eq!(ground.strays(), [""; 0], "{result:?} {:?}", progress.stops);
        match result {
            ChildResult::Succeeded => assert!(ground.has("set/new", &ground.ours)),
            _ => {
                assert!(
                    progress.has_done("mkdirat"),
                    "{result:?} {:?}",
                    progress.stops
                );
                // Without RENAME_EXCHANGE the old set has a hidden name for a progress, too.
                let is_old_hidden = !has_exchange() && progress.has_done("renameat2");
                let is_kept = ground.has("set/old", &ground.ours);
                assert!(is_kept || is_old_hidden, "{:?}", progress.stops);
            }
        }
    });
}

/// The attacker moves the old set away and puts an object in its place.
#[common::test_alone(PINS)]
fn publish_keeps_an_object_put_in_its_place() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
        ground.put_theirs("set");
    };
    at_each_stop(old_set, publish, attack, |ground, progress, result| {
        ground.dir().remove_leftovers().unwrap();
        let what = format!("{result:?} {:?}", progress.stops);
        assert!(
            ground.has("set", &ground.theirs),
            "their pin is lost: {what}"
        );
        assert_eq!(ground.strays(), [""; 0], "{what}");
    });
}

#[common::test_alone(PINS)]
fn publish_keeps_a_symbolic_link_put_in_its_place() {
    let prepare = |ground: &Ground| {
        old_set(ground);
        fs::create_dir(ground.at("victim")).unwrap();
        ground.pin(&ground.theirs, "victim/theirs");
    };
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
        symlink("victim", ground.at("set")).unwrap();
    };
    at_each_stop(prepare, publish, attack, |ground, progress, result| {
        ground.dir().remove_leftovers().unwrap();
        let what = format!("{result:?} {:?}", progress.stops);
        let names = fs::read_dir(ground.at("victim")).unwrap().count();
        assert_eq!(names, 1, "{what}");
        assert!(ground.has("victim/theirs", &ground.theirs), "{what}");
        assert!(
            fs::read_link(ground.at("set")).is_ok(),
            "their link is lost: {what}"
        );
    });
}

#[common::test_alone(PINS)]
fn publish_without_an_old_set_succeeds() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
    };
    at_each_stop(old_set, publish, attack, |ground, progress, result| {
        assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
        let is_new = ["set/new", "moved/new"]
            .iter()
            .any(|name| ground.has(name, &ground.ours));
        assert!(is_new, "{:?}", progress.stops);
        assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
    });
}

#[common::test_alone(PINS)]
fn remove_dir_all_keeps_an_object_put_in_its_place() {
    let attack = |ground: &Ground, _: &Progress| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
        ground.put_theirs("set");
    };
    at_each_stop(
        old_set,
        |_, dir| dir.remove_dir_all("set"),
        attack,
        |ground, progress, result| {
            assert!(ground.has("set", &ground.theirs), "{:?}", progress.stops);
            assert_eq!(
                result == ChildResult::Succeeded,
                progress.has_done("renameat2"),
                "{result:?}"
            );
            assert_eq!(ground.at("moved").exists(), !progress.has_done("renameat2"));
            assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
        },
    );
}
