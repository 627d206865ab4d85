//! Reads the layout of `linux/bpf.h` from the running kernel's BTF.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use bpf_pin_sys::Version;
use btf_rs::{Btf, BtfType, Type};

pub const BTF: &str = "/sys/kernel/btf/vmlinux";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Where a member is, in bytes from the beginning of the outermost struct or union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: usize,
    pub size: usize,
    /// Not a whole number of bytes: `offset` and `size` are those of the bytes it shares.
    pub is_bits: bool,
    /// The size of the unnamed struct or union that it is in, the outermost within what has a name.
    pub unnamed: Option<usize>,
}

/// A struct or union taken apart.
#[derive(Debug, Default)]
pub struct Layout {
    /// The members that are numbers or arrays of them, by their C path.
    pub fields: BTreeMap<String, Place>,
    /// The structs and unions that have a path: the outermost, and those within.
    pub structs: BTreeMap<String, Place>,
}

/// The enums of a kernel.
#[derive(Debug, Default)]
pub struct Enums {
    /// By tag.
    pub tagged: HashMap<String, Vec<(String, u64)>>,
    pub untagged: Vec<Vec<(String, u64)>>,
}

/// A kernel's BTF, read.
pub struct Kernel {
    pub release: Version,
    btf: Btf,
    enums: Enums,
}

impl Kernel {
    /// The running kernel, read once because that is slow.
    pub fn running() -> &'static Self {
        static RUNNING: OnceLock<Kernel> = OnceLock::new();
        RUNNING.get_or_init(|| Self::read().expect("this kernel's BTF"))
    }

    fn read() -> Result<Self> {
        let btf = Btf::from_bytes(&std::fs::read(BTF)?)?;
        let mut enums = Enums::default();
        let (first, last) = btf.base().type_id_range();
        for id in first..=last {
            let (tag, members) = match btf.resolve_type_by_id(id)? {
                Type::Enum(of) => {
                    let members = of.members.iter().map(|m| (m as _, u64::from(m.val())));
                    (btf.resolve_name(&of)?, named(&btf, members)?)
                }
                Type::Enum64(of) => {
                    let members = of.members.iter().map(|m| (m as _, m.val()));
                    (btf.resolve_name(&of)?, named(&btf, members)?)
                }
                _ => continue,
            };
            if tag.is_empty() {
                enums.untagged.push(members);
            } else {
                enums.tagged.entry(tag).or_default().extend(members);
            }
        }
        Ok(Self {
            release: release(),
            btf,
            enums,
        })
    }

    pub fn enums(&self) -> &Enums {
        &self.enums
    }

    /// The struct or union of that tag, or `None` if the kernel has none.
    pub fn layout(&self, tag: &str) -> Result<Option<Layout>> {
        let types = self.btf.resolve_types_by_name(tag).unwrap_or_default();
        let found = types.into_iter().find_map(|found| match found {
            Type::Struct(of) | Type::Union(of) => Some(of),
            _ => None,
        });
        let Some(found) = found else { return Ok(None) };
        let mut layout = Layout::default();
        let whole = Place {
            offset: 0,
            size: found.size(),
            is_bits: false,
            unnamed: None,
        };
        layout.structs.insert(tag.to_owned(), whole);
        self.take_apart(&found, tag, whole, &mut layout)?;
        Ok(Some(layout))
    }

    fn take_apart(
        &self,
        of: &btf_rs::Struct,
        path: &str,
        at: Place,
        layout: &mut Layout,
    ) -> Result<()> {
        for member in &of.members {
            let name = self.btf.resolve_name(member)?;
            let bits = member.bitfield_size().unwrap_or(0);
            let inner = self.bare(member)?;
            let place = Place {
                offset: at.offset + member.bit_offset() as usize / 8,
                size: self.size(&inner)?,
                is_bits: bits != 0,
                unnamed: at.unnamed,
            };
            match (inner, name.as_str()) {
                (Type::Struct(inner) | Type::Union(inner), "") => {
                    let unnamed = at.unnamed.or(Some(place.size));
                    self.take_apart(&inner, path, Place { unnamed, ..place }, layout)?;
                }
                // Padding that the compiler reports.
                (_, "") => {}
                (Type::Struct(inner) | Type::Union(inner), _) => {
                    let path = format!("{path}.{name}");
                    layout.structs.insert(path.clone(), place);
                    let unnamed = None;
                    self.take_apart(&inner, &path, Place { unnamed, ..place }, layout)?;
                }
                _ => {
                    layout.fields.insert(format!("{path}.{name}"), place);
                }
            }
        }
        Ok(())
    }

    /// The type of a member or an element, without typedefs and qualifiers.
    fn bare(&self, of: &dyn BtfType) -> Result<Type> {
        let mut found = self.btf.resolve_chained_type(of)?;
        while let Type::Typedef(_)
        | Type::Const(_)
        | Type::Volatile(_)
        | Type::Restrict(_)
        | Type::TypeTag(_) = found
        {
            let qualified = found.as_btf_type().ok_or("a type of no type")?;
            found = self.btf.resolve_chained_type(qualified)?;
        }
        Ok(found)
    }

    fn size(&self, of: &Type) -> Result<usize> {
        Ok(match of {
            Type::Int(of) => of.size(),
            Type::Enum(of) => of.size(),
            Type::Enum64(of) => of.size(),
            Type::Struct(of) | Type::Union(of) => of.size(),
            Type::Array(of) => of.len() * self.size(&self.bare(of)?)?,
            other => return Err(format!("a {} in an argument", other.name()).into()),
        })
    }
}

fn named<'a>(
    btf: &Btf,
    members: impl Iterator<Item = (&'a dyn BtfType, u64)>,
) -> Result<Vec<(String, u64)>> {
    members
        .map(|(member, value)| Ok((btf.resolve_name(member)?, value)))
        .collect()
}

/// The running kernel's release.
pub fn release() -> Version {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    let version = next().zip(next());
    let (major, minor) = version.expect("a release of the form 6.18…");
    Version::new(major, minor)
}
