//! struct_ops maps of congestion control, which every kernel has.

use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::map::ElemFlags;
use bpf_pin::prog::{Btf, Insn};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Map, MapSpec, MapType, Prog, ProgSpec};
use btf_rs::{Struct, Type};

use crate::Outcome;
use crate::links::{kernels_btf, type_id};

/// `struct tcp_congestion_ops` and the value that a map wraps it in, as the kernel's BTF has them.
pub struct CongestionOps {
    pub ops_type: u32,
    pub value_type: u32,
    pub value_size: u32,
    /// The offset of the struct in the value.
    ops_at: usize,
    ops: Struct,
}

impl CongestionOps {
    /// The functions that congestion control requires.
    pub const REQUIRED: &[&str] = &["ssthresh", "cong_avoid", "undo_cwnd"];

    pub fn new() -> Outcome<Self> {
        let (ops_type, ops) = structure("tcp_congestion_ops")?;
        let (value_type, value) = structure("bpf_struct_ops_tcp_congestion_ops")?;
        Ok(Self {
            ops_type,
            value_type,
            value_size: value.size() as u32,
            ops_at: place(&value, "data")?.1,
            ops,
        })
    }

    /// A struct_ops map. The kernel requires a BTF object, which describes nothing here.
    pub fn spec<'btf>(&self, btf: &'btf Btf) -> MapSpec<'btf> {
        MapSpec::new(MapType::STRUCT_OPS, 4, self.value_size, 1)
            .btf(btf, 0, 0)
            .btf_vmlinux_value_type_id(self.value_type)
    }

    /// A program for the struct's function of that name, which does nothing.
    pub fn prog(&self, function: &str) -> Outcome<Prog> {
        let (number, _) = place(&self.ops, function)?;
        let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
        let spec = ProgSpec::new(ProgType::STRUCT_OPS, &insns)
            .license(c"GPL")
            .attach_btf_id(self.ops_type)
            .expected_attach_type(AttachType(number));
        Ok(spec.load()?)
    }

    fn value(&self, name: &str, progs: &[(&str, &Prog)]) -> Outcome<Vec<u8>> {
        let mut value = vec![0; self.value_size as usize];
        let mut put = |member: &str, bytes: &[u8]| -> Outcome {
            let at = self.ops_at + place(&self.ops, member)?.1;
            value[at..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        put("name", name.as_bytes())?;
        for (function, prog) in progs {
            // A descriptor, as wide as the address that it replaces.
            let fd = prog.as_fd().as_raw_fd() as usize;
            put(function, &fd.to_ne_bytes())?;
        }
        Ok(value)
    }

    /// Sets the name of the struct, and programs for these functions.
    pub fn fill(&self, map: &Map, name: &str, functions: &[&str]) -> Outcome {
        // The map holds the programs after the update.
        let progs = functions.iter().map(|function| self.prog(function));
        let progs: Vec<_> = progs.collect::<Outcome<_>>()?;
        let named: Vec<_> = functions.iter().copied().zip(&progs).collect();
        let value = self.value(name, &named)?;
        Ok(map
            .elements::<[u8], [u8]>()?
            .update(&[0; 4], &value, ElemFlags::ANY)?)
    }
}

fn structure(name: &str) -> Outcome<(u32, Struct)> {
    let id = type_id(name, |found| matches!(found, Type::Struct(_)))?;
    match kernels_btf().resolve_type_by_id(id)? {
        Type::Struct(found) => Ok((id, found)),
        other => Err(format!("{name} is {other:?}").into()),
    }
}

/// The index of the member, and its offset in bytes.
fn place(of: &Struct, member: &str) -> Outcome<(u32, usize)> {
    let btf = kernels_btf();
    let is_it = |found: &btf_rs::Member| btf.resolve_name(found).is_ok_and(|name| name == member);
    let number = of.members.iter().position(is_it);
    let number = number.ok_or(format!("no {member} in the struct"))?;
    let at = of.members[number].bit_offset() as usize / 8;
    Ok((number as u32, at))
}
