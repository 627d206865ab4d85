//! Another object under the name, between any two syscalls.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bpf_pin::{Identity, Kind, PinDir};
use common::*;

use crate::attack::{Alone, Ended, Ground, LONG, Moment, PINS, at_each_stop};

pub const ALONE: &[Alone] = &[
    ("remove_and_another_object", PINS, remove_and_theirs),
    ("remove_and_a_symbolic_link", PINS, remove_and_a_link),
    ("remove_and_a_directory", PINS, remove_and_a_directory),
    ("replace_if_and_another_object", PINS, replace_if_and_theirs),
    ("replace_if_and_two_others", PINS, replace_if_and_two_others),
    (
        "replace_if_and_a_directory",
        PINS,
        replace_if_and_a_directory,
    ),
    (
        "replace_if_and_a_symbolic_link",
        PINS,
        replace_if_and_a_link,
    ),
    ("replace_if_and_nothing", PINS, replace_if_and_nothing),
    ("replace_and_another_object", PINS, replace_and_theirs),
    (
        "replace_and_its_pin_swept_away",
        PINS,
        replace_and_no_temporary,
    ),
    (
        "stage_and_its_directory_swept_away",
        PINS,
        stage_and_no_directory,
    ),
    ("publish_and_another_object", PINS, publish_and_theirs),
    ("publish_and_a_symbolic_link", PINS, publish_and_a_link),
    ("publish_and_nothing", PINS, publish_and_nothing),
    (
        "remove_dir_all_and_another_object",
        PINS,
        remove_dir_all_and_theirs,
    ),
];

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

/// It was seen to be ours, and is not removed yet.
fn is_amid_remove(moment: &Moment) -> bool {
    moment.has_done("OBJ_GET") && !moment.has_done("unlink")
}

fn remove_and_theirs() {
    let attack = |ground: &Ground, _: &Moment| ground.put_theirs("name");
    at_each_stop(ours_is_there, remove, attack, |ground, moment, ended| {
        let is_lost = !ground.has("name", &ground.theirs);
        assert_eq!(is_lost, is_amid_remove(moment), "{:?}", moment.stops);
        let expected = match moment.has_done("OBJ_GET") {
            true => Ended::Well,
            false => Ended::Replaced,
        };
        assert_eq!(ended, expected, "{:?}", moment.stops);
        assert!(ground.has("ours", &ground.ours));
    });
}

fn remove_and_a_link() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::remove_file(ground.at("name"));
        symlink("ours", ground.at("name")).unwrap();
    };
    at_each_stop(ours_is_there, remove, attack, |ground, moment, ended| {
        // Where it leads stays; the link itself is what stood under the name.
        assert!(ground.has("ours", &ground.ours), "{:?}", moment.stops);
        let is_lost = fs::symlink_metadata(ground.at("name")).is_err();
        let is_seen = moment.has_done("readlink");
        assert_eq!(
            is_lost,
            is_seen && !moment.has_done("unlink"),
            "{:?}",
            moment.stops
        );
        assert_eq!(ended == Ended::SymbolicLink, !is_seen, "{ended:?}");
    });
}

fn remove_and_a_directory() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::remove_file(ground.at("name"));
        fs::create_dir(ground.at("name")).unwrap();
    };
    at_each_stop(ours_is_there, remove, attack, |ground, moment, ended| {
        assert!(ground.at("name").is_dir(), "{:?}", moment.stops);
        let expected = match moment.has_done("unlink") {
            true => Ended::Well,
            false => Ended::NotAnObject,
        };
        assert_eq!(ended, expected, "{:?}", moment.stops);
    });
}

fn replaced_if(ground: &Ground, dir: &PinDir) -> bpf_pin::Result<()> {
    let expected = Identity {
        kind: Kind::Map,
        id: ground.ours.id()?,
    };
    dir.replace_if(&ground.new, "name", expected)
}

/// The one gap, where the kernel has no exchange: between the last look and the rename.
fn may_be_lost(moment: &Moment) -> bool {
    !has_exchange() && moment.done("OBJ_GET") >= 2 && !moment.has_done("renameat2")
}

fn replace_if_and_theirs() {
    let attack = |ground: &Ground, _: &Moment| ground.put_theirs("name");
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |ground, moment, ended| {
            let is_lost = !ground.has("name", &ground.theirs);
            assert_eq!(is_lost, may_be_lost(moment), "{:?}", moment.stops);
            let is_seen = moment.done("OBJ_GET") >= 2 || moment.has_done("renameat2");
            let expected = match is_seen {
                true => Ended::Well,
                false => Ended::Replaced,
            };
            assert_eq!(ended, expected, "{:?}", moment.stops);
            assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
            assert!(ground.has("ours", &ground.ours));
        },
    );
}

/// One at each stop, and then another at each that follows: whoever was last has the name.
fn replace_if_and_two_others() {
    let fs = TestFs::new();
    let (mut pairs, end) = (0, Instant::now() + Duration::from_secs(2));
    for first in 0.. {
        for second in first + 1.. {
            // All pairs, or those that are next to each other and some others.
            let is_time = || Instant::now() < end || std::env::var_os(LONG).is_some();
            if second > first + 1 && (first + second) % 5 > 0 && !is_time() {
                continue;
            }
            let ground = Ground::new(fs.at(&format!("{first}-{second}")));
            let is_pair = put_two(&ground, first, second);
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

/// False where the child was done before the second.
fn put_two(ground: &Ground, first: usize, second: usize) -> bool {
    ours_is_there(ground);
    let last = hash();
    let run = |dir: PinDir| Ended::code(replaced_if(ground, &dir));
    let mut tracee = Tracee::fork(|| ground.dir(), run).expect("a child");
    let mut moment = Moment { stops: Vec::new() };
    for number in 0..=second {
        let Some(stop) = tracee.next().expect("a stop") else {
            break;
        };
        moment.stops.push(stop);
        if number == first {
            ground.put_theirs("name");
        }
        if number == second {
            ground.pin(&last, "last");
            fs::rename(ground.at("last"), ground.at("name")).unwrap();
        }
    }
    let ended = Ended::of(tracee.finish().expect("an end"));
    let what = format!("{first}, {second}: {ended:?} {:?}", moment.stops);
    assert!(matches!(ended, Ended::Well | Ended::Replaced), "{what}");
    assert_eq!(ground.strays(), [""; 0], "{what}");
    if moment.stops.len() <= second {
        return false;
    }
    // Where the first was seen, nothing is done to the second.
    let is_lost = !ground.has("name", &last);
    assert_eq!(
        is_lost,
        may_be_lost(&moment) && ended == Ended::Well,
        "{what}"
    );
    true
}

fn replace_if_and_a_directory() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::remove_file(ground.at("name"));
        fs::create_dir(ground.at("name")).unwrap();
        ground.pin(&ground.theirs, "name/theirs");
    };
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |ground, moment, ended| {
            assert!(
                ground.has("name/theirs", &ground.theirs),
                "{:?}",
                moment.stops
            );
            let expected = match moment.has_done("renameat2") {
                true => Ended::Well,
                false => Ended::NotAnObject,
            };
            assert_eq!(ended, expected, "{:?}", moment.stops);
            assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
        },
    );
}

fn replace_if_and_a_link() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::remove_file(ground.at("name"));
        symlink("theirs", ground.at("name")).unwrap();
    };
    let prepare = |ground: &Ground| {
        ours_is_there(ground);
        ground.pin(&ground.theirs, "theirs");
    };
    at_each_stop(prepare, replaced_if, attack, |ground, moment, ended| {
        assert!(ground.has("theirs", &ground.theirs), "{:?}", moment.stops);
        let stands = fs::read_link(ground.at("name")).is_ok();
        if has_exchange() {
            assert!(stands, "{ended:?} {:?}", moment.stops);
        }
        assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
        if moment.has_done("renameat2") {
            assert_eq!(ended, Ended::Well, "{:?}", moment.stops);
        }
    });
}

fn replace_if_and_nothing() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::remove_file(ground.at("name"));
    };
    at_each_stop(
        ours_is_there,
        replaced_if,
        attack,
        |ground, moment, ended| {
            assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
            // Without an exchange a rename puts it there all the same, once it was looked at.
            let is_seen =
                moment.has_done("renameat2") || !has_exchange() && moment.done("OBJ_GET") >= 2;
            let expected = match is_seen {
                true => Ended::Well,
                false => Ended::Missing,
            };
            assert_eq!(ended, expected, "{:?}", moment.stops);
            let stands = ground.at("name").exists();
            assert_eq!(
                stands,
                is_seen && !moment.has_done("renameat2"),
                "{:?}",
                moment.stops
            );
        },
    );
}

fn replace(ground: &Ground, dir: &PinDir) -> bpf_pin::Result<()> {
    dir.replace(&ground.ours, "name")
}

fn replace_and_theirs() {
    let attack = |ground: &Ground, _: &Moment| ground.put_theirs("name");
    at_each_stop(
        |_| {},
        replace,
        attack,
        |ground, moment, ended| {
            assert_eq!(ended, Ended::Well, "{:?}", moment.stops);
            let is_later = moment.has_done("renameat2");
            assert_eq!(ground.has("name", &ground.theirs), is_later);
            assert_eq!(ground.has("name", &ground.ours), !is_later);
            assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
        },
    );
}

fn unlink_all_hidden(ground: &Ground) {
    for name in ground.strays() {
        let path = ground.root.join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
}

/// An error, and the name is as it was.
fn replace_and_no_temporary() {
    let attack = |ground: &Ground, _: &Moment| unlink_all_hidden(ground);
    at_each_stop(
        ours_is_there,
        |ground, dir| dir.replace(&ground.theirs, "name"),
        attack,
        |ground, moment, ended| {
            let is_removed = moment.has_done("OBJ_PIN") && !moment.has_done("renameat2");
            assert_eq!(
                ended != Ended::Well,
                is_removed,
                "{ended:?} {:?}",
                moment.stops
            );
            let expected = match is_removed {
                true => &ground.ours,
                false => &ground.theirs,
            };
            assert!(ground.has("name", expected), "{:?}", moment.stops);
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

/// An error, and nothing remains.
fn stage_and_no_directory() {
    let attack = |ground: &Ground, _: &Moment| unlink_all_hidden(ground);
    at_each_stop(old_set, publish, attack, |ground, moment, ended| {
        assert_eq!(ground.strays(), [""; 0], "{ended:?} {:?}", moment.stops);
        match ended {
            Ended::Well => assert!(ground.has("set/new", &ground.ours)),
            _ => {
                assert!(moment.has_done("mkdirat"), "{ended:?} {:?}", moment.stops);
                // Without an exchange the old one has a hidden name, too, for a moment.
                let is_old_hidden = !has_exchange() && moment.has_done("renameat2");
                let is_kept = ground.has("set/old", &ground.ours);
                assert!(is_kept || is_old_hidden, "{:?}", moment.stops);
            }
        }
    });
}

/// Moves the old set away and puts an object in its place.
fn publish_and_theirs() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
        ground.put_theirs("set");
    };
    at_each_stop(old_set, publish, attack, |ground, moment, ended| {
        ground.dir().remove_leftovers().unwrap();
        let what = format!("{ended:?} {:?}", moment.stops);
        assert!(
            ground.has("set", &ground.theirs),
            "their pin is lost: {what}"
        );
        assert_eq!(ground.strays(), [""; 0], "{what}");
    });
}

fn publish_and_a_link() {
    let prepare = |ground: &Ground| {
        old_set(ground);
        fs::create_dir(ground.at("victim")).unwrap();
        ground.pin(&ground.theirs, "victim/theirs");
    };
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
        symlink("victim", ground.at("set")).unwrap();
    };
    at_each_stop(prepare, publish, attack, |ground, moment, ended| {
        ground.dir().remove_leftovers().unwrap();
        let what = format!("{ended:?} {:?}", moment.stops);
        let names = fs::read_dir(ground.at("victim")).unwrap().count();
        assert_eq!(names, 1, "{what}");
        assert!(ground.has("victim/theirs", &ground.theirs), "{what}");
        assert!(
            fs::read_link(ground.at("set")).is_ok(),
            "their link is lost: {what}"
        );
    });
}

fn publish_and_nothing() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
    };
    at_each_stop(old_set, publish, attack, |ground, moment, ended| {
        assert_eq!(ended, Ended::Well, "{:?}", moment.stops);
        let is_new = ["set/new", "moved/new"]
            .iter()
            .any(|name| ground.has(name, &ground.ours));
        assert!(is_new, "{:?}", moment.stops);
        assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
    });
}

fn remove_dir_all_and_theirs() {
    let attack = |ground: &Ground, _: &Moment| {
        let _ = fs::rename(ground.at("set"), ground.at("moved"));
        ground.put_theirs("set");
    };
    at_each_stop(
        old_set,
        |_, dir| dir.remove_dir_all("set"),
        attack,
        |ground, moment, ended| {
            assert!(ground.has("set", &ground.theirs), "{:?}", moment.stops);
            assert_eq!(
                ended == Ended::Well,
                moment.has_done("renameat2"),
                "{ended:?}"
            );
            assert_eq!(ground.at("moved").exists(), !moment.has_done("renameat2"));
            assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
        },
    );
}
