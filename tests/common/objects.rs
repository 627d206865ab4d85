//! Small objects of each kind to pin.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bpf_pin::prog::{Btf, Insn};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, Prog, ProgSpec, abi};

/// A hash from u32 to u64 with at most 8 entries.
pub fn hash() -> Map {
    let spec = MapSpec::new(MapType::HASH, 4, 8, 8).name("test_hash");
    spec.create().expect("a hash map")
}

/// A socket filter that drops every packet.
pub fn prog() -> Prog {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).name("test_filter");
    spec.load().expect("a socket filter")
}

/// A socket look-up program that allows everything. Linux 5.9.
pub fn sk_lookup_prog() -> Prog {
    let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
    ProgSpec::new(ProgType::SK_LOOKUP, &insns)
        .expected_attach_type(AttachType::SK_LOOKUP)
        .load()
        .expect("a socket look-up")
}

/// A BTF object with type 1 being an int of 4 bytes.
pub fn btf_object() -> Btf {
    Btf::load(&btf_of_an_int()).expect("a BTF object")
}

/// The same as a plain descriptor.
pub fn btf_fd() -> OwnedFd {
    btf_object().into()
}

/// Puts key 0 on the stack, and its address in register 2.
pub fn key_0_insns() -> [Insn; 3] {
    [
        Insn::st_mem(abi::BPF_W, 10, -4, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(abi::BPF_ADD, 2, -4),
    ]
}

/// `r0 = bpf_map_lookup_elem(map, r2)`
pub fn lookup_insns(map: &Map) -> [Insn; 3] {
    let [first, second] = Insn::ld_map_fd(1, map.as_fd().as_raw_fd());
    [first, second, Insn::call(abi::BPF_FUNC_map_lookup_elem)]
}

/// Adds 1 to the number at the address in register 0, unless that is null, and returns `result`.
pub fn count_insns(result: i32) -> [Insn; 5] {
    [
        Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 2),
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        Insn::mov64_imm(0, result),
        Insn::exit(),
    ]
}

/// A socket filter that counts packets in the value of key 0, and keeps `keep` bytes of each.
pub fn counting_filter(map: &Map, keep: i32) -> bpf_pin::Result<Prog> {
    let insns = [&key_0_insns()[..], &lookup_insns(map), &count_insns(keep)].concat();
    ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .name("counting")
        .load()
}

/// BTF data with type 1 being an int of 4 bytes.
fn btf_of_an_int() -> Vec<u8> {
    // struct btf_type: the name's offset, BTF_KIND_INT, 4 bytes; and of 32 bits.
    btf_blob(&[1, 1 << 24, 4, 32], b"\0int\0")
}

/// BTF data with these types, as words, and these names.
pub fn btf_blob(types: &[u32], names: &[u8]) -> Vec<u8> {
    // struct btf_header: magic, version, flags, its own length, and offset and length of types and names.
    let mut blob = 0xeb9f_u16.to_ne_bytes().to_vec();
    blob.extend([1, 0]);
    let len = size_of_val(types) as u32;
    let words = [24, 0, len, len, names.len() as u32];
    blob.extend(
        words
            .iter()
            .chain(types)
            .flat_map(|word| word.to_ne_bytes()),
    );
    blob.extend(names);
    blob
}

/// A link to this thread's network namespace, and its program.
pub struct NetnsLink {
    pub link: Link,
    pub prog: Prog,
}

impl NetnsLink {
    pub fn new() -> Self {
        let prog = sk_lookup_prog();
        let netns = File::open("/proc/thread-self/ns/net").expect("this thread's network");
        let link = LinkSpec::netns(&netns, AttachType::SK_LOOKUP).create(&prog);
        let link = link.expect("a link to it");
        Self { link, prog }
    }
}

impl Default for NetnsLink {
    fn default() -> Self {
        Self::new()
    }
}

/// A link to a network namespace that ends with the call, so the link is detached.
pub fn detached_link() -> Link {
    crate::in_network_namespace(|| NetnsLink::new().link)
}

/// The backup name of the map that the map of this id was migrated from.
pub fn backup_name(name: &str, id: u32) -> String {
    format!("{KEPT}{id:08x}-{name}")
}

pub fn is_backup_name(name: &str) -> bool {
    name.starts_with(KEPT)
}

const KEPT: &str = "_bpf-pin-old-";
