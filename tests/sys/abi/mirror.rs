//! Compares the tables with a kernel.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::mem::offset_of;

use bpf_pin_sys::{Arm, Enumerator, Version, bpf_insn, bpf_prog_info};

use crate::abi::backports::is_backported;
use crate::abi::kernel::{Enums, Layout};
use crate::abi::tables::Table;

/// The newest release in the tables.
pub const NEWEST: Version = Version::new(7, 3);

/// The tags of the C enums that tables mirror. Those of the other tables have none.
const TAGS: &[(&str, &str)] = &[
    ("BPF_CMDS", "bpf_cmd"),
    ("BPF_MAP_TYPES", "bpf_map_type"),
    ("BPF_PROG_TYPES", "bpf_prog_type"),
    ("BPF_ATTACH_TYPES", "bpf_attach_type"),
    ("BPF_LINK_TYPES", "bpf_link_type"),
    ("BPF_PERF_EVENT_TYPES", "bpf_perf_event_type"),
    ("BPF_TASK_FD_TYPES", "bpf_task_fd_type"),
    ("BPF_CGROUP_ITER_ORDERS", "bpf_cgroup_iter_order"),
    ("BPF_STATS_TYPES", "bpf_stats_type"),
    ("BPF_FUNCS", "bpf_func_id"),
    ("BPF_COND_PSEUDO_JMPS", "bpf_cond_pseudo_jmp"),
    ("BPF_ADDR_SPACE_CASTS", "bpf_addr_space_cast"),
];

/// Bit-fields, which the tables leave out: the C path, and offset and size of the member of the
/// mirror that has their bits.
const BIT_FIELDS: &[(&str, usize, usize)] = &[
    (
        "bpf_prog_info.gpl_compatible",
        offset_of!(bpf_prog_info, gpl_compatible_bits),
        4,
    ),
    ("bpf_insn.dst_reg", offset_of!(bpf_insn, regs), 1),
    ("bpf_insn.src_reg", offset_of!(bpf_insn, regs), 1),
];

/// A difference between the tables and the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The C path of a field or struct, or the name of a constant.
    pub name: String,
    pub what: String,
    /// True if the kernel is newer than the tables, so that this is no contradiction.
    pub is_newer: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

fn contradiction(name: impl Into<String>, what: impl Into<String>) -> Difference {
    Difference {
        name: name.into(),
        what: what.into(),
        is_newer: false,
    }
}

fn newer_name(name: impl Into<String>) -> Difference {
    Difference {
        name: name.into(),
        what: "the kernel has it, the mirror has not".to_owned(),
        is_newer: true,
    }
}

/// The C path of an arm from the outermost struct on. Those of `ARMS` are within `bpf_attr`.
pub fn path(union: Option<&str>, arm: &Arm) -> String {
    match (union, arm.name) {
        (None, path) => path.to_owned(),
        (Some(union), "") => union.to_owned(),
        (Some(union), path) => format!("{union}.{path}"),
    }
}

/// Compares arms of one struct or union, with their paths, with those of `release`.
pub fn compare_struct(
    release: Version,
    layout: &Layout,
    arms: &[(String, Arm)],
) -> Vec<Difference> {
    let mut differences = vec![];
    let mut mirrored = HashSet::new();
    for (path, arm) in arms {
        for field in arm.fields {
            let name = format!("{path}.{}", field.name);
            let found = layout.fields.get(&name);
            if let Some(what) = presence(release, &name, field.since, found.is_some()) {
                differences.push(contradiction(
                    &name,
                    presence_message(what, release, field.since),
                ));
            }
            let (offset, size) = (arm.offset + field.offset, field.size);
            if let Some(found) = found.filter(|f| (f.offset, f.size) != (offset, size)) {
                let what = format!(
                    "{} bytes at {} in the kernel, {size} at {offset} in the mirror",
                    found.size, found.offset
                );
                differences.push(contradiction(&name, what));
            }
            mirrored.insert(name);
        }
        differences.extend(compare_size(release, layout, arms, path, arm));
    }
    for (name, place) in &layout.fields {
        if let Some((_, offset, size)) = BIT_FIELDS.iter().find(|(bits, ..)| bits == name) {
            if !place.is_bits || (place.offset, place.size) != (*offset, *size) {
                differences.push(contradiction(name, format!("{place:?} in the kernel")));
            }
        } else if !mirrored.contains(name) {
            differences.push(newer_name(name));
        }
    }
    differences
}

/// `sizeof` an arm, on a kernel that has all its fields.
fn compare_size(
    release: Version,
    layout: &Layout,
    arms: &[(String, Arm)],
    path: &str,
    arm: &Arm,
) -> Option<Difference> {
    let is_whole = |arm: &Arm| arm.fields.iter().all(|f| release.at_least(f.since));
    let is_within = |inner: &str| {
        let rest = inner.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found = if arm.rust == rust_name(path) {
        let mut within = arms.iter().filter(|(path, _)| is_within(path));
        let whole = layout.structs.get(path)?;
        within.all(|(_, arm)| is_whole(arm)).then_some(whole.size)?
    } else if arm.name.is_empty() && is_whole(arm) {
        // The struct is unnamed in C, so it is found by its members.
        let first = format!("{path}.{}", arm.fields.first()?.name);
        layout.fields.get(&first)?.unnamed?
    } else {
        return None;
    };
    let is_right = found == arm.size || (found > arm.size && !NEWEST.at_least(release));
    (!is_right).then(|| {
        let what = format!("{found} bytes in the kernel, {} in the mirror", arm.size);
        contradiction(arm.rust, what)
    })
}

/// The Rust type that mirrors all of the struct at a C path.
fn rust_name(path: &str) -> String {
    path.replace('.', "_")
}

/// The problem if `name` is present, or missing, in `release`.
fn presence(release: Version, name: &str, since: Version, is_there: bool) -> Option<&'static str> {
    match (is_there, release.at_least(since)) {
        (false, true) => Some("is missing"),
        (true, false) if !is_backported(release, name) => Some("is there already"),
        _ => None,
    }
}

fn presence_message(what: &str, release: Version, since: Version) -> String {
    format!("{what} in Linux {release}; the mirror has it since {since}")
}

/// Compares tables of constants with those of `release`.
pub fn compare_constants(release: Version, enums: &Enums, tables: &[Table]) -> Vec<Difference> {
    let mut differences = vec![];
    let mut mirrored = HashSet::new();
    for table in tables {
        mirrored.extend(table.constants.iter().map(|c| c.name));
    }
    let mut untagged: HashMap<&str, &Vec<(String, u64)>> = HashMap::new();
    for members in &enums.untagged {
        for (name, _) in members {
            untagged.insert(name, members);
        }
    }
    for table in tables {
        let mut names = BTreeSet::new();
        for constant in table.constants {
            let members = match TAGS.iter().find(|(name, _)| *name == table.name) {
                Some((_, tag)) => enums.tagged.get(*tag),
                None => untagged.get(constant.name).copied(),
            };
            let members = members.map_or(&[][..], |members| members);
            differences.extend(compare_constant(release, members, constant));
            names.extend(members.iter().map(|(name, _)| name.as_str()));
        }
        let new = names
            .into_iter()
            .filter(|name| !mirrored.contains(name) && !is_count(name));
        differences.extend(new.map(newer_name));
    }
    differences
}

fn compare_constant(
    release: Version,
    members: &[(String, u64)],
    constant: &Enumerator,
) -> Vec<Difference> {
    let mut differences = vec![];
    let Enumerator {
        name,
        value,
        since,
        in_btf,
    } = *constant;
    let found = members.iter().find(|(found, _)| found == name);
    if let Some(what) = presence(release, name, since, found.is_some()) {
        // BTF may lack constants that need not be in it.
        if in_btf || found.is_some() {
            differences.push(contradiction(name, presence_message(what, release, since)));
        }
    }
    if let Some((_, found)) = found.filter(|(_, found)| *found != value) {
        let what = format!("{found} in the kernel, {value} in the mirror");
        differences.push(contradiction(name, what));
    }
    differences
}

/// True if an enumerator is the number of the others, which differs between releases.
fn is_count(name: &str) -> bool {
    name.starts_with("__") || name.starts_with("MAX_BPF_")
}
