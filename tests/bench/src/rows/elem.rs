//! Single elements.

use std::os::fd::AsFd;

use bpf_pin::map::ElemFlags;

use crate::bench::Bench;
use crate::pairs::{Contender, Notes};
use crate::place::hash;
use crate::{Failure, peers, raw};

use super::object::goals;

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let map = hash(1024)?;
    let fd = map.as_fd();
    for key in 0..512u32 {
        raw::update(fd, &key, &u64::from(key));
    }
    let typed = map.elements::<u32, u64>()?;
    let mut contenders = vec![
        Contender::new("raw", || assert_eq!(raw::lookup(fd, &7), Some(7))),
        Contender::new("bpf-pin", || {
            assert_eq!(typed.lookup(&7).expect("a lookup"), Some(7));
        }),
    ];
    contenders.extend(peers::lookup(&map, 7));
    let notes = Notes {
        raw: "BPF_MAP_LOOKUP_ELEM",
        why: "",
    };
    bench.call("look up an element", contenders, goals(1.02), notes);

    let mut contenders = vec![
        Contender::new("raw", || raw::update(fd, &7, &7)),
        Contender::new("bpf-pin", || {
            typed.update(&7, &7, ElemFlags::ANY).expect("an update");
        }),
    ];
    contenders.extend(peers::update(&map, 7));
    let notes = Notes {
        raw: "BPF_MAP_UPDATE_ELEM",
        why: "About 40 instructions: bpf-pin ensures that the kernel dereferences no address in the value.",
    };
    bench.call("update an element", contenders, goals(1.02), notes);
    Ok(())
}
