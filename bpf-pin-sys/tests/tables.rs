//! The tables are consistent with each other and with measurements on kernels. The layout is proven at compile time.

use bpf_pin_sys::*;
use std::collections::HashSet;

const fn v(major: u8, minor: u8) -> Version {
    Version::new(major, minor)
}

/// Every table of constants, with its name.
fn tables() -> Vec<(&'static str, &'static [Enumerator])> {
    let mut tables = vec![
        ("BPF_CMDS", BPF_CMDS),
        ("BPF_MAP_TYPES", BPF_MAP_TYPES),
        ("BPF_PROG_TYPES", BPF_PROG_TYPES),
        ("BPF_ATTACH_TYPES", BPF_ATTACH_TYPES),
        ("BPF_LINK_TYPES", BPF_LINK_TYPES),
        ("BPF_PERF_EVENT_TYPES", BPF_PERF_EVENT_TYPES),
        ("BPF_TASK_FD_TYPES", BPF_TASK_FD_TYPES),
        ("BPF_CGROUP_ITER_ORDERS", BPF_CGROUP_ITER_ORDERS),
        ("BPF_STATS_TYPES", BPF_STATS_TYPES),
        ("BPF_STREAMS", BPF_STREAMS),
        ("BPF_FUNCS", BPF_FUNCS),
        ("BPF_CLASSES", BPF_CLASSES),
        ("BPF_SIZES", BPF_SIZES),
        ("BPF_MODES", BPF_MODES),
        ("BPF_SRCS", BPF_SRCS),
        ("BPF_ALU_OPS", BPF_ALU_OPS),
        ("BPF_END_ORDERS", BPF_END_ORDERS),
        ("BPF_JMP_OPS", BPF_JMP_OPS),
        ("BPF_COND_PSEUDO_JMPS", BPF_COND_PSEUDO_JMPS),
        ("BPF_ADDR_SPACE_CASTS", BPF_ADDR_SPACE_CASTS),
        ("BPF_ATOMIC_OPS", BPF_ATOMIC_OPS),
        ("BPF_REGS", BPF_REGS),
        ("BPF_PSEUDO_LDS", BPF_PSEUDO_LDS),
        ("BPF_PSEUDO_CALLS", BPF_PSEUDO_CALLS),
    ];
    tables.extend(BPF_FLAGS.iter().map(|group| (group.name, group.flags)));
    tables
}

/// The C designator of a field: the arm's path and the field's name.
fn designator(arm: &Arm, field: &Field) -> String {
    match arm.name {
        "" => field.name.to_string(),
        path => format!("{path}.{}", field.name),
    }
}

/// `sizeof` a struct or union in a release: the end of the last field it knew, aligned to 8.
fn size_at<'a>(arms: impl Iterator<Item = &'a Arm>, kernel: Version) -> usize {
    arms.flat_map(|arm| arm.fields.iter().map(move |field| (arm, field)))
        .filter(|(_, field)| field.since <= kernel)
        .map(|(arm, field)| arm.offset + field.offset + field.size)
        .max()
        .map_or(0, |end| end.next_multiple_of(8))
}

#[test]
fn constants_are_sorted_and_named_once() {
    let mut names = HashSet::new();
    for (table, constants) in tables() {
        assert!(!constants.is_empty(), "{table} is empty");
        assert!(
            constants.is_sorted_by_key(|c| c.value),
            "{table} is not sorted"
        );
        for c in constants {
            assert!(names.insert(c.name), "{} is listed twice", c.name);
            assert!(
                c.since >= v(3, 18) && c.since <= v(7, 3),
                "{} since {}",
                c.name,
                c.since
            );
        }
    }
}

#[test]
fn enums_have_no_gaps() {
    for (table, constants) in tables() {
        let first = constants[0].value;
        let values: Vec<u64> = match table {
            "BPF_CMDS" | "BPF_MAP_TYPES" => {
                let mut values: Vec<u64> = constants
                    .iter()
                    .map(|c| c.value)
                    .filter(|&value| value != u64::from(BPF_COMMON_ATTRS))
                    .collect();
                values.dedup();
                values
            }
            "BPF_PROG_TYPES"
            | "BPF_ATTACH_TYPES"
            | "BPF_LINK_TYPES"
            | "BPF_PERF_EVENT_TYPES"
            | "BPF_TASK_FD_TYPES"
            | "BPF_FUNCS"
            | "BPF_REGS"
            | "BPF_STREAMS"
            | "BPF_CGROUP_ITER_ORDERS" => constants.iter().map(|c| c.value).collect(),
            _ => continue,
        };
        let expected: Vec<u64> = (first..first + values.len() as u64).collect();
        assert_eq!(values, expected, "{table}");
    }
    assert_eq!(BPF_FUNCS.last().unwrap().value, 211);
}

#[test]
fn flags_are_bits() {
    for group in BPF_FLAGS {
        for flag in group.flags {
            let is_mode = matches!(flag.name, "BPF_ANY" | "BPF_NOEXIST" | "BPF_EXIST");
            assert!(is_mode || flag.value.is_power_of_two(), "{}", flag.name);
        }
    }
}

#[test]
fn constants_have_the_kernels_values() {
    assert_eq!(
        (BPF_OBJ_PIN, BPF_OBJ_GET, BPF_LINK_CREATE, BPF_TOKEN_CREATE),
        (6, 7, 28, 36)
    );
    assert_eq!((BPF_PROG_RUN, BPF_COMMON_ATTRS), (10, 65536));
    assert_eq!(
        (
            BPF_MAP_TYPE_CGROUP_STORAGE,
            BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE
        ),
        (19, 21)
    );
    assert_eq!(
        (BPF_F_RDONLY, BPF_F_WRONLY, BPF_F_PATH_FD, BPF_F_TOKEN_FD),
        (8, 16, 16384, 65536)
    );
    assert_eq!((BPF_XCHG, BPF_CMPXCHG), (0xe1, 0xf1));
    assert_eq!(BPF_FS_MAGIC, 0xcafe_4a11);
}

#[test]
fn fields_are_sorted_and_apart() {
    for arm in ARMS.iter().chain(INFOS) {
        let mut last: Option<&Field> = None;
        for field in arm.fields {
            assert!(
                field.offset + field.size <= arm.size,
                "{}.{}",
                arm.rust,
                field.name
            );
            if let Some(last) = last {
                let one_place = field.offset == last.offset && field.size == last.size;
                let after = field.offset >= last.offset + last.size;
                assert!(one_place || after, "{}.{}", arm.rust, field.name);
            }
            last = Some(field);
        }
    }
}

#[test]
fn designators_are_unique() {
    for table in [ARMS, INFOS] {
        let mut seen = HashSet::new();
        for arm in table {
            for field in arm.fields {
                let designator = designator(arm, field);
                assert!(!designator.contains('#'), "{designator} is not C");
                assert!(
                    seen.insert(designator.clone()),
                    "{designator} is listed twice"
                );
            }
        }
    }
}

#[test]
fn every_byte_of_the_union_is_within_an_arm_of_its_size() {
    assert_eq!(size_of::<bpf_attr>(), 168);
    let largest = ARMS.iter().map(|arm| arm.offset + arm.size).max();
    assert_eq!(largest, Some(size_of::<bpf_attr>()));
}

/// The fields' releases give the sizes that were measured on kernels.
#[test]
fn the_union_grows_as_the_fields_say() {
    let mut sizes = BPF_ATTR_SIZES.to_vec();
    assert!(sizes.is_sorted() && sizes.last().unwrap().1 == size_of::<bpf_attr>());
    // Releases between the steps, up to the newest known.
    for (kernel, size) in [
        (v(4, 10), 48),
        (v(4, 14), 48),
        (v(4, 20), 72),
        (v(5, 4), 112),
        (v(5, 10), 120),
        (v(5, 15), 128),
        (v(6, 1), 144),
        (v(6, 8), 144),
        (v(6, 12), 152),
        (v(6, 17), 152),
        (v(7, 3), 168),
    ] {
        sizes.push((kernel, size));
    }
    for (kernel, size) in sizes {
        assert_eq!(
            size_at(ARMS.iter(), kernel),
            size,
            "sizeof(union bpf_attr) in {kernel}"
        );
    }
}

/// The sizes that `BPF_OBJ_GET_INFO_BY_FD` wrote back on these kernels.
#[test]
fn the_infos_grow_as_the_fields_say() {
    let sizes = [
        ("bpf_map_info", v(4, 15), 40),
        ("bpf_map_info", v(5, 4), 80),
        ("bpf_map_info", v(5, 10), 80),
        ("bpf_map_info", v(6, 1), 88),
        ("bpf_map_info", v(6, 12), 88),
        ("bpf_map_info", v(6, 18), 104),
        ("bpf_map_info", v(7, 3), 104),
        ("bpf_prog_info", v(4, 15), 80),
        ("bpf_prog_info", v(5, 4), 208),
        ("bpf_prog_info", v(5, 10), 208),
        ("bpf_prog_info", v(5, 15), 216),
        ("bpf_prog_info", v(6, 1), 232),
        ("bpf_prog_info", v(7, 3), 232),
        ("bpf_link_info", v(5, 10), 32),
        ("bpf_link_info", v(5, 15), 32),
        ("bpf_link_info", v(6, 1), 48),
        ("bpf_link_info", v(6, 8), 64),
        ("bpf_link_info", v(7, 3), 64),
        ("bpf_btf_info", v(5, 10), 16),
        ("bpf_btf_info", v(6, 1), 32),
        ("bpf_token_info", v(6, 17), 32),
    ];
    for (name, kernel, size) in sizes {
        let arms = INFOS
            .iter()
            .filter(|arm| arm.name.split('.').next() == Some(name));
        assert_eq!(
            size_at(arms, kernel),
            size,
            "sizeof(struct {name}) in {kernel}"
        );
    }
}

#[test]
fn commands_read_what_the_kernel_reads() {
    let sizes = [
        (BPF_OBJ_GET, v(4, 3), None),
        (BPF_OBJ_GET, v(4, 4), Some(12)),
        (BPF_OBJ_GET, v(4, 14), Some(12)),
        (BPF_OBJ_GET, v(4, 15), Some(16)),
        (BPF_OBJ_PIN, v(6, 4), Some(16)),
        (BPF_OBJ_PIN, v(6, 5), Some(20)),
        (BPF_OBJ_PIN, v(7, 3), Some(20)),
        (BPF_MAP_CREATE, v(4, 4), Some(16)),
        (BPF_MAP_CREATE, v(7, 3), Some(92)),
        (BPF_MAP_LOOKUP_ELEM, v(5, 0), Some(24)),
        (BPF_MAP_LOOKUP_ELEM, v(5, 1), Some(32)),
        (BPF_MAP_DELETE_ELEM, v(7, 3), Some(16)),
        (BPF_MAP_GET_NEXT_KEY, v(7, 3), Some(24)),
        (BPF_MAP_FREEZE, v(5, 2), Some(4)),
        (BPF_PROG_LOAD, v(4, 4), Some(44)),
        (BPF_PROG_LOAD, v(5, 10), Some(116)),
        (BPF_PROG_LOAD, v(7, 3), Some(168)),
        (BPF_PROG_GET_FD_BY_ID, v(7, 3), Some(4)),
        (BPF_MAP_GET_FD_BY_ID, v(4, 14), Some(4)),
        (BPF_MAP_GET_FD_BY_ID, v(4, 15), Some(12)),
        (BPF_LINK_GET_NEXT_ID, v(5, 8), Some(8)),
        (BPF_LINK_CREATE, v(5, 7), Some(16)),
        (BPF_LINK_CREATE, v(5, 9), Some(28)),
        (BPF_LINK_CREATE, v(5, 18), Some(48)),
        (BPF_LINK_CREATE, v(6, 6), Some(60)),
        (BPF_LINK_CREATE, v(7, 2), Some(64)),
        (BPF_TOKEN_CREATE, v(6, 8), None),
        (BPF_TOKEN_CREATE, v(6, 9), Some(8)),
        (BPF_OBJ_GET | BPF_COMMON_ATTRS, v(7, 1), None),
        (BPF_OBJ_GET | BPF_COMMON_ATTRS, v(7, 2), Some(20)),
        (39, v(7, 3), None),
        (bpf_cmd::MAX, v(7, 3), None),
    ];
    for (cmd, kernel, size) in sizes {
        assert_eq!(
            bpf_attr_size(cmd, kernel),
            size,
            "command {cmd} in {kernel}"
        );
    }
}

#[test]
fn every_command_has_last_fields_from_its_first_release() {
    for cmd in BPF_CMDS {
        if matches!(cmd.name, "BPF_PROG_RUN" | "BPF_COMMON_ATTRS") {
            continue;
        }
        let entries: Vec<_> = LAST_FIELDS
            .iter()
            .filter(|last| u64::from(last.cmd) == cmd.value)
            .collect();
        assert_eq!(entries.len(), 1, "{}", cmd.name);
        assert_eq!(entries[0].fields[0].since, cmd.since, "{}", cmd.name);
    }
}

#[test]
fn last_fields_only_grow_and_stay_within_the_union() {
    for last in LAST_FIELDS {
        for pair in last.fields.windows(2) {
            assert!(
                pair[0].since < pair[1].since,
                "command {}: {}",
                last.cmd,
                pair[1].name
            );
            assert!(
                pair[0].end < pair[1].end,
                "command {}: {}",
                last.cmd,
                pair[1].name
            );
        }
        for field in last.fields {
            let union = size_at(ARMS.iter(), field.since);
            assert!(
                field.end as usize <= union,
                "command {}: {}",
                last.cmd,
                field.name
            );
        }
    }
}

#[test]
fn versions_are_ordered() {
    let ordered = [
        v(3, 18),
        v(4, 4),
        v(4, 15),
        v(5, 2),
        v(5, 10),
        v(6, 0),
        v(6, 12),
        v(7, 0),
    ];
    for (i, a) in ordered.into_iter().enumerate() {
        for (j, b) in ordered.into_iter().enumerate() {
            assert_eq!(a.at_least(b), i >= j, "{a} at least {b}");
            assert_eq!(a >= b, i >= j, "{a} >= {b}");
        }
    }
    assert_eq!(v(5, 10).to_string(), "5.10");
}
