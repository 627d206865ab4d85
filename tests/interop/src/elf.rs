//! Writes an ELF object like a BPF compiler: a program that counts packets in a map.
//!
//! clang is half a gigabyte, and kernels reject the BTF of Debian 12's gcc-bpf. Loaders read only a small part of an
//! object: instructions, a relocation and the map's definition.

use bpf_pin::abi;
use bpf_pin::prog::Insn;
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

use crate::btf;
use crate::count::look_up_and_add;

/// The definition of the object's map, an array of one u64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maps {
    /// By BTF, in `.maps`.
    Btf,
    /// By BTF, with `pinning` 1: the loader pins it by the map's name in a directory of its choice.
    BtfPinned,
    /// `struct bpf_elf_map` of iproute2 in `maps`, the definition before BTF, with this `pinning`.
    /// For iproute2 2 means shared by all objects. Other loaders know only 1, which pins by the map's name.
    Legacy(u32),
}

/// An object with one program and one map.
#[derive(Debug, Clone, Copy)]
pub struct Counter<'a> {
    /// The program's section, from which loaders infer its type: "xdp", "socket", "tc".
    pub section: &'a str,
    /// The program's name.
    pub prog: &'a str,
    /// The map's name.
    pub map: &'a str,
    /// How the map is defined.
    pub maps: Maps,
    /// The program's return value.
    pub returns: i32,
}

/// Relocates the immediate of a lddw to an address in another section.
const R_BPF_64_64: u32 = 1;

impl Counter<'_> {
    /// The object.
    pub fn elf(&self) -> Vec<u8> {
        let endianness = match cfg!(target_endian = "little") {
            true => Endianness::Little,
            false => Endianness::Big,
        };
        let mut elf = Object::new(BinaryFormat::Elf, Architecture::Bpf, endianness);
        let map = self.write_map(&mut elf);
        let text = section(&mut elf, self.section, SectionKind::Text);
        let (insns, look_up) = look_up_and_add(self.returns);
        let bytes: Vec<u8> = insns.iter().flat_map(encode).collect();
        elf.append_section_data(text, &bytes, 8);
        let size = bytes.len() as u64;
        symbol(&mut elf, self.prog, SymbolKind::Text, text, size);
        let relocation = Relocation {
            offset: look_up as u64 * 8,
            symbol: map,
            addend: 0,
            flags: RelocationFlags::Elf {
                r_type: R_BPF_64_64,
            },
        };
        elf.add_relocation(text, relocation).expect("a relocation");
        let license = section(&mut elf, "license", SectionKind::Data);
        elf.append_section_data(license, b"GPL\0", 1);
        elf.write().expect("an object")
    }

    fn write_map(&self, elf: &mut Object<'_>) -> SymbolId {
        let (name, definition) = match self.maps {
            Maps::Btf | Maps::BtfPinned => {
                let pinned = self.maps == Maps::BtfPinned;
                let types = section(elf, ".BTF", SectionKind::Other);
                elf.append_section_data(types, &btf::of_counter(self.map, pinned), 4);
                // The pointers: their types are the definition.
                (".maps", vec![0; btf::map_size(pinned)])
            }
            Maps::Legacy(pinning) => {
                // type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx
                let words = [abi::BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0, 0, pinning, 0, 0];
                (
                    "maps",
                    words.into_iter().flat_map(u32::to_ne_bytes).collect(),
                )
            }
        };
        let maps = section(elf, name, SectionKind::Data);
        elf.append_section_data(maps, &definition, 8);
        symbol(
            elf,
            self.map,
            SymbolKind::Data,
            maps,
            definition.len() as u64,
        )
    }
}

fn section(elf: &mut Object<'_>, name: &str, kind: SectionKind) -> SectionId {
    elf.add_section(vec![], name.into(), kind)
}

fn symbol(
    elf: &mut Object<'_>,
    name: &str,
    kind: SymbolKind,
    section: SectionId,
    size: u64,
) -> SymbolId {
    elf.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size,
        kind,
        // libbpf treats hidden symbols as static.
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}

fn encode(insn: &Insn) -> [u8; 8] {
    let registers = match cfg!(target_endian = "little") {
        true => insn.src_reg() << 4 | insn.dst_reg(),
        false => insn.dst_reg() << 4 | insn.src_reg(),
    };
    let [o0, o1] = insn.off.to_ne_bytes();
    let [i0, i1, i2, i3] = insn.imm.to_ne_bytes();
    [insn.code, registers, o0, o1, i0, i1, i2, i3]
}
