//! The BTF of a map's definition: a struct of pointers. The type of each pointer is one property of the map.

use bpf_pin::abi;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const VAR: u32 = 14;
const DATASEC: u32 = 15;

/// Types and their names.
#[derive(Default)]
struct Btf {
    types: Vec<u32>,
    names: Vec<u8>,
    count: u32,
}

impl Btf {
    fn name(&mut self, name: &str) -> u32 {
        let offset = self.names.len() as u32;
        self.names.extend(name.as_bytes());
        self.names.push(0);
        offset
    }

    /// Adds a `struct btf_type` with its trailing data, and returns the type's number.
    fn add(&mut self, name: &str, kind: u32, of: u32, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = match name {
            "" => 0,
            name => self.name(name),
        };
        self.types.extend([name, kind << 24 | of, size_or_type]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    fn pointer(&mut self, to: u32) -> u32 {
        self.add("", PTR, 0, to, &[])
    }

    /// `int (*)[number]`: a number, encoded as a type.
    fn number(&mut self, int: u32, number: u32) -> u32 {
        let array = self.add("", ARRAY, 0, 0, &[int, int, number]);
        self.pointer(array)
    }

    fn bytes(self) -> Vec<u8> {
        // struct btf_header: magic, version and flags, its own length, then the types' offset and
        // length and the names'.
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let types = self.types.len() as u32 * 4;
        let parts = [24, 0, types, types, self.names.len() as u32];
        bytes.extend(
            parts
                .iter()
                .chain(&self.types)
                .flat_map(|w| w.to_ne_bytes()),
        );
        bytes.extend(self.names);
        bytes
    }
}

fn members(pinned: bool) -> &'static [&'static str] {
    let all = &["type", "key", "value", "max_entries", "pinning"];
    if pinned { all } else { &all[..4] }
}

/// Size of the definition, which has one pointer for each property.
pub(crate) fn map_size(pinned: bool) -> usize {
    members(pinned).len() * 8
}

/// The BTF of an object with one map, an array of one u64.
pub(crate) fn of_counter(map: &str, pinned: bool) -> Vec<u8> {
    let mut btf = Btf {
        // The empty name.
        names: vec![0],
        ..Btf::default()
    };
    const SIGNED: u32 = 1 << 24;
    let int = btf.add("int", INT, 0, 4, &[SIGNED | 32]);
    let key = btf.add("unsigned int", INT, 0, 4, &[32]);
    let value = btf.add("unsigned long long", INT, 0, 8, &[64]);
    let types = [
        btf.number(int, abi::BPF_MAP_TYPE_ARRAY),
        btf.pointer(key),
        btf.pointer(value),
        btf.number(int, 1),
        btf.number(int, 1),
    ];
    let mut rest = vec![];
    for (index, (name, is)) in members(pinned).iter().zip(types).enumerate() {
        let name = btf.name(name);
        rest.extend([name, is, index as u32 * 64]);
    }
    let size = map_size(pinned) as u32;
    let of = members(pinned).len() as u32;
    let definition = btf.add("", STRUCT, of, size, &rest);
    const GLOBAL: u32 = 1;
    let variable = btf.add(map, VAR, 0, definition, &[GLOBAL]);
    btf.add(".maps", DATASEC, 1, size, &[variable, 0, size]);
    btf.bytes()
}
