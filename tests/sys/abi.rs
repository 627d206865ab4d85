//! Compares the tables of bpf-pin-sys with the running kernel's BTF.

use crate::backports;
mod command;
mod kernel;
mod mirror;
use common::tables;

use std::collections::BTreeSet;
use std::error::Error;

use bpf_pin_sys::{
    ARMS, Arm, BPF_ATTR_SIZES, BPF_CMDS, Enumerator, Field, INFOS, Version, bpf_insn,
};
use common::*;

use kernel::Kernel;
use mirror::{Difference, NEWEST, compare_constants, compare_struct};
use tables::{Table, tables};

const NEEDS: &[Need] = &[Need::Feature(Feature::Btf)];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

/// Fails with every difference. Names that are newer than the tables are only printed.
fn assert_no_difference(differences: Vec<Difference>) -> Outcome {
    let is_newer_kernel = !NEWEST.at_least(Kernel::running().release);
    let (news, wrong): (Vec<_>, Vec<_>) = differences
        .into_iter()
        .partition(|found| found.is_newer && is_newer_kernel);
    for found in news {
        eprintln!("{found}");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    Err(lines.join("\n").into())
}

fn attr_differences(arms: &[Arm]) -> Result<Vec<Difference>, Box<dyn Error + Send + Sync>> {
    let kernel = Kernel::running();
    let layout = kernel.layout("bpf_attr")?.ok_or("no union bpf_attr")?;
    let arms: Vec<_> = arms
        .iter()
        .map(|arm| (mirror::path(Some("bpf_attr"), arm), *arm))
        .collect();
    Ok(compare_struct(kernel.release, &layout, &arms))
}

#[common::test(NEEDS)]
fn every_field_of_bpf_attr_matches_the_kernel() -> Outcome {
    assert_no_difference(attr_differences(ARMS)?)
}

#[common::test(NEEDS)]
fn the_size_of_bpf_attr_matches_the_kernel() -> Outcome {
    let kernel = Kernel::running();
    let layout = kernel.layout("bpf_attr")?.ok_or("no union bpf_attr")?;
    let found = layout.structs["bpf_attr"].size;
    let known = BPF_ATTR_SIZES
        .iter()
        .rfind(|(since, _)| kernel.release.at_least(*since));
    let (since, size) = known.ok_or("a release before all sizes")?;
    let is_newer_kernel = found > *size && !NEWEST.at_least(kernel.release);
    if found != *size && !is_newer_kernel {
        return Err(format!("{found} bytes; the mirror has {size} since {since}").into());
    }
    Ok(())
}

fn info_differences(infos: &[Arm]) -> Result<Vec<Difference>, Box<dyn Error + Send + Sync>> {
    let kernel = Kernel::running();
    let root = |arm: &Arm| arm.name.split('.').next().unwrap_or_default();
    let roots: BTreeSet<_> = infos.iter().map(root).collect();
    let mut differences = vec![];
    for tag in roots {
        // A struct that the kernel lacks has no fields, and each missing field is checked by its release.
        let layout = kernel.layout(tag)?.unwrap_or_default();
        let arms: Vec<_> = infos
            .iter()
            .filter(|arm| root(arm) == tag)
            .map(|arm| (mirror::path(None, arm), *arm))
            .collect();
        differences.extend(compare_struct(kernel.release, &layout, &arms));
    }
    Ok(differences)
}

#[common::test(NEEDS)]
fn every_field_of_the_info_structs_matches_the_kernel() -> Outcome {
    assert_no_difference(info_differences(INFOS)?)
}

#[common::test(NEEDS)]
fn every_field_of_bpf_insn_matches_the_kernel() -> Outcome {
    let insn = Arm {
        name: "bpf_insn",
        rust: "bpf_insn",
        offset: 0,
        size: size_of::<bpf_insn>(),
        fields: bpf_insn::FIELDS,
    };
    assert_no_difference(info_differences(&[insn])?)
}

fn constant_differences(tables: &[Table]) -> Vec<Difference> {
    let kernel = Kernel::running();
    compare_constants(kernel.release, kernel.enums(), tables)
}

#[common::test(NEEDS)]
fn every_enumerator_matches_the_kernel() -> Outcome {
    assert_no_difference(constant_differences(&tables()))
}

/// The names of the differences that only the changed tables have.
fn new_differences(unchanged: Vec<Difference>, changed: Vec<Difference>) -> Vec<String> {
    let new = changed
        .into_iter()
        .filter(|found| !unchanged.contains(found));
    new.map(|found| found.name).collect()
}

/// `arms` with another list of fields in one of them.
fn with_fields(arms: &[Arm], rust: &str, change: impl FnOnce(&mut Vec<Field>)) -> Vec<Arm> {
    let mut arms = arms.to_vec();
    let arm = arms.iter_mut().find(|arm| arm.rust == rust);
    let arm = arm.expect("an arm of that name");
    let mut fields = arm.fields.to_vec();
    change(&mut fields);
    arm.fields = fields.leak();
    arms
}

fn field<'a>(fields: &'a mut [Field], name: &str) -> &'a mut Field {
    let found = fields.iter_mut().find(|field| field.name == name);
    found.expect("a field of that name")
}

/// The new differences if an arm of `union bpf_attr` has other fields.
fn new_attr_differences(
    rust: &str,
    change: impl FnOnce(&mut Vec<Field>),
) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let changed = with_fields(ARMS, rust, change);
    Ok(new_differences(
        attr_differences(ARMS)?,
        attr_differences(&changed)?,
    ))
}

#[common::test(NEEDS)]
fn a_wrong_offset_is_reported() -> Outcome {
    let names = new_attr_differences("bpf_attr_obj", |fields| {
        field(fields, "file_flags").offset = 16
    })?;
    assert_eq!(names, ["bpf_attr.file_flags"]);
    let names = new_attr_differences("bpf_attr_link_create_iter", |fields| {
        field(fields, "iter_info_len").offset += 4;
    })?;
    assert_eq!(names, ["bpf_attr.link_create.iter_info_len"]);
    let changed = with_fields(INFOS, "bpf_link_info_cgroup", |fields| {
        field(fields, "attach_type").offset = 12;
    });
    let names = new_differences(info_differences(INFOS)?, info_differences(&changed)?);
    assert_eq!(names, ["bpf_link_info.cgroup.attach_type"]);
    Ok(())
}

#[common::test(NEEDS)]
fn a_wrong_size_is_reported() -> Outcome {
    let names = new_attr_differences("bpf_attr_map_create", |fields| {
        field(fields, "map_name").size = 15;
    })?;
    assert_eq!(names, ["bpf_attr.map_name"]);
    for rust in ["bpf_attr_batch", "bpf_attr_prog_bind_map"] {
        let mut changed = ARMS.to_vec();
        let arm = changed.iter_mut().find(|arm| arm.rust == rust);
        arm.expect("an arm of that name").size += 8;
        let names = new_differences(attr_differences(ARMS)?, attr_differences(&changed)?);
        assert_eq!(names, [rust]);
    }
    Ok(())
}

#[common::test(NEEDS)]
fn a_wrong_release_is_reported() -> Outcome {
    let future = Version::new(u8::MAX, 0);
    let names = new_attr_differences("bpf_attr_obj", |fields| {
        field(fields, "pathname").since = future
    })?;
    assert_eq!(names, ["bpf_attr.pathname"]);
    let mut constants = BPF_CMDS.to_vec();
    constants[6].since = future;
    assert_eq!(new_command_differences(constants), ["BPF_OBJ_PIN"]);
    Ok(())
}

#[common::test(NEEDS)]
fn a_wrong_value_is_reported() -> Outcome {
    let mut constants = BPF_CMDS.to_vec();
    constants[7].value = 8;
    assert_eq!(new_command_differences(constants), ["BPF_OBJ_GET"]);
    let mut changed = tables();
    let flags = changed
        .iter_mut()
        .find(|t| t.name == "BPF_MAP_CREATE_FLAGS");
    let flags = flags.expect("a table of that name");
    let mut constants = flags.constants.to_vec();
    constants[3].value = 1 << 4;
    flags.constants = constants.leak();
    let names = new_differences(
        constant_differences(&tables()),
        constant_differences(&changed),
    );
    assert_eq!(names, ["BPF_F_RDONLY"]);
    Ok(())
}

/// The new differences if the table of commands has other constants.
fn new_command_differences(constants: Vec<Enumerator>) -> Vec<String> {
    let mut changed = tables();
    let commands = changed.iter_mut().find(|t| t.name == "BPF_CMDS");
    commands.expect("a table of that name").constants = constants.leak();
    new_differences(
        constant_differences(&tables()),
        constant_differences(&changed),
    )
}

#[common::test(NEEDS)]
fn a_name_missing_in_the_tables_is_reported() -> Outcome {
    let names = new_attr_differences("bpf_attr_obj", |fields| {
        fields.retain(|field| field.name != "file_flags");
    })?;
    assert_eq!(names, ["bpf_attr.file_flags"]);
    let changed = with_fields(INFOS, "bpf_link_info_xdp", Vec::clear);
    let names = new_differences(info_differences(INFOS)?, info_differences(&changed)?);
    assert_eq!(names, ["bpf_link_info.xdp.ifindex"]);
    let mut constants = BPF_CMDS.to_vec();
    constants.retain(|constant| constant.name != "BPF_MAP_FREEZE");
    assert_eq!(new_command_differences(constants), ["BPF_MAP_FREEZE"]);
    Ok(())
}

#[common::test(NEEDS)]
fn a_name_missing_in_the_kernel_is_reported() -> Outcome {
    let since = Version::new(4, 4);
    let names = new_attr_differences("bpf_attr_obj", |fields| {
        let name = "no_such_field";
        fields.push(Field {
            name,
            offset: 20,
            size: 4,
            since,
        });
    })?;
    assert_eq!(names, ["bpf_attr.no_such_field"]);
    let mut constants = BPF_CMDS.to_vec();
    let (name, value, in_btf) = ("BPF_NO_SUCH_COMMAND", 99, true);
    constants.push(Enumerator {
        name,
        value,
        since,
        in_btf,
    });
    assert_eq!(new_command_differences(constants), ["BPF_NO_SUCH_COMMAND"]);
    Ok(())
}
