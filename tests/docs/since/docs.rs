//! Extracts the releases that the library's docs name from its sources.

use bpf_pin_sys::{ARMS, Arm, Field, INFOS, Version};

use crate::since::tables::tables;

/// A release in a doc comment, and the names it applies to.
#[derive(Debug)]
pub struct Claim {
    /// `file:line` of the end of the paragraph.
    pub place: String,
    pub version: Version,
    /// The kernel's names that the claim is about, each with its release from the tables.
    pub subjects: Vec<(String, Version)>,
    /// The paragraph.
    pub text: String,
}

impl Claim {
    /// The release from the tables. A call exists once everything it needs exists.
    pub fn by_the_tables(&self) -> Option<Version> {
        self.subjects.iter().map(|(_, since)| *since).max()
    }
}

/// Every source file of the library: its path below `src` and its text.
pub const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The claims of a file.
pub fn claims(file: &str, source: &str) -> Vec<Claim> {
    let mut claims = vec![];
    let mut scope = Scope::default();
    let mut paragraphs: Vec<(usize, String)> = vec![];
    let mut is_new = true;
    for (number, line) in (1..).zip(source.lines()) {
        let line = line.trim();
        if let Some(text) = doc(line) {
            match paragraphs
                .last_mut()
                .filter(|_| !is_new && !text.is_empty())
            {
                Some((last, paragraph)) => {
                    *last = number;
                    paragraph.push(' ');
                    paragraph.push_str(text);
                }
                None => paragraphs.push((number, text.to_owned())),
            }
            is_new = text.is_empty();
            continue;
        }
        if line.is_empty() || line.starts_with("#[") {
            continue;
        }
        let item = scope.enter(line, &paragraphs);
        let before = claims.len();
        for (number, text) in paragraphs.drain(..) {
            claims.extend(claims_of_paragraph(
                &format!("{file}:{number}"),
                &text,
                &item,
            ));
        }
        // An item without a release of its own has the release of its enclosing struct.
        if claims.len() == before {
            let inherited = scope.since.filter(|_| !item.is_empty() && scope.is_info);
            claims.extend(inherited.map(|version| Claim {
                place: format!("{file}:{number}"),
                version,
                subjects: item,
                text: line.to_owned(),
            }));
        }
        is_new = true;
    }
    claims
}

/// The text of a doc comment.
fn doc(line: &str) -> Option<&str> {
    let text = line.strip_prefix("///").or(line.strip_prefix("//!"))?;
    Some(text.trim())
}

/// The scope that encloses an item.
#[derive(Default)]
struct Scope {
    /// The kernel's struct that the enclosing struct mirrors, and its release.
    info: Option<String>,
    since: Option<Version>,
    is_info: bool,
    is_target: bool,
    variant: Option<String>,
}

impl Scope {
    /// Records `line`, an item with these docs, and returns the kernel's names for it.
    fn enter(&mut self, line: &str, docs: &[(usize, String)]) -> Vec<(String, Version)> {
        let is_type = ["pub struct ", "pub enum "]
            .iter()
            .any(|start| line.starts_with(start));
        if is_type {
            let first = docs.first().map_or("", |(_, text)| text);
            let info = first
                .strip_prefix("`struct ")
                .and_then(|text| text.split('`').next());
            *self = Self {
                info: info.map(str::to_owned),
                since: claims_of_paragraph("", first, &[])
                    .first()
                    .map(|claim| claim.version),
                is_info: info.is_some(),
                is_target: line.starts_with("pub enum LinkTarget"),
                variant: None,
            };
            return vec![];
        }
        if line.starts_with("impl") || line.starts_with("fn ") || line.starts_with("pub fn ") {
            *self = Self::default();
        }
        let word = |text: &str| -> String {
            let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
            text.chars().take_while(is_part).collect()
        };
        let flag = line
            .strip_prefix("const ")
            .and_then(|line| line.split_once(" = abi::"));
        if let Some((_, name)) = flag.filter(|(name, _)| !name.contains(':')) {
            return constant(&word(name)).into_iter().collect();
        }
        if self.is_target && line.starts_with(char::is_uppercase) {
            let variant = word(line);
            let variant = snake_case(&variant);
            let found = constant(&format!("BPF_LINK_TYPE_{}", variant.to_uppercase()));
            self.variant = Some(variant);
            return found.into_iter().collect();
        }
        let name = word(line.trim_start_matches("pub "));
        if !line.ends_with(',') || !line.contains(&format!("{name}: ")) {
            return vec![];
        }
        let path = match (&self.info, &self.variant) {
            (Some(info), _) => info.clone(),
            (None, Some(variant)) => format!("bpf_link_info.{variant}"),
            (None, None) => return vec![],
        };
        let names = [name.clone(), format!("{name}_ns"), format!("target_{name}")];
        let is_it = |field: &&Field| names.iter().any(|name| field.name == *name);
        let below = format!("{path}.");
        let is_within = |arm: &&Arm| arm.name == path || arm.name.starts_with(&below);
        let arms = INFOS.iter().filter(is_within);
        let found = arms.flat_map(|arm| arm.fields).find(is_it);
        found
            .map(|field| (format!("{path}.{}", field.name), field.since))
            .into_iter()
            .collect()
    }
}

/// Converts "KprobeMulti" to the kernel's spelling.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// The claims of a paragraph. Each is about the names in front of it, or about the item.
fn claims_of_paragraph(place: &str, text: &str, item: &[(String, Version)]) -> Vec<Claim> {
    const LINUX: &str = "Linux ";
    let mut claims = vec![];
    let mut rest = text;
    while let Some(at) = rest.find(LINUX) {
        let (before, after) = (&rest[..at], &rest[at + LINUX.len()..]);
        rest = after;
        let Some(version) = parse_version(after) else {
            continue;
        };
        // The release that ends a behaviour is not the release that introduced the names in the sentence.
        let is_end = before.trim_end().to_lowercase().ends_with("before");
        let mut subjects = if is_end { vec![] } else { names(before) };
        if subjects.is_empty() && !is_end && claims.is_empty() {
            subjects = item.to_vec();
        }
        claims.push(Claim {
            place: place.to_owned(),
            version,
            subjects,
            text: text.to_owned(),
        });
    }
    claims
}

/// Parses `6.18` at the beginning of a text.
fn parse_version(text: &str) -> Option<Version> {
    let mut numbers = text.splitn(3, |c: char| !c.is_ascii_digit());
    let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    text.starts_with(&format!("{major}.{minor}"))
        .then_some(Version::new(major, minor))
}

/// The kernel's names among the words in backquotes.
fn names(text: &str) -> Vec<(String, Version)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|name| {
            if let Some(name) = name.strip_prefix("AttachType::") {
                return constant(&format!("BPF_{name}"));
            }
            if let Some(tag) = name.strip_prefix("struct ") {
                let fields = INFOS.iter().find(|arm| arm.name == tag)?.fields;
                let first = fields.iter().map(|field| field.since).min()?;
                return Some((name.to_owned(), first));
            }
            constant(name).or_else(|| argument(name))
        })
        .collect()
}

fn constant(name: &str) -> Option<(String, Version)> {
    tables().iter().find_map(|table| {
        let found = table.constants.iter().find(|c| c.name == name)?;
        Some((format!("{name} of {}", table.name), found.since))
    })
}

/// An argument of a command, if only one command has an argument of this name.
fn argument(name: &str) -> Option<(String, Version)> {
    let arms = ARMS.iter().filter(|arm| arm.offset == 0);
    let mut fields = arms.flat_map(|arm| arm.fields).filter(|f| f.name == name);
    match (fields.next(), fields.next()) {
        (Some(field), None) => Some((name.to_owned(), field.since)),
        _ => None,
    }
}
