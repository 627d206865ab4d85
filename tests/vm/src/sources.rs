//! The machine's apt configuration, read for one thing: which mirrors serve Debian.

use std::path::Path;

/// A mirror and one suite it is configured for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

/// The mirrors of Debian's two archives.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// The main archive.
    pub main: Option<String>,
    /// The security archive.
    pub security: Option<String>,
}

/// The first mirror of either archive in apt's own order: `sources.list`, then `sources.list.d` by name.
pub fn mirrors(etc_apt: &Path) -> Mirrors {
    let mut sources = vec![];
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(parts) = etc_apt.join("sources.list.d").read_dir() {
        let mut parts: Vec<_> = parts.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.append(&mut parts);
    }
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.append(&mut one_line(&text)),
            Some("sources") => sources.append(&mut deb822(&text)),
            _ => {}
        }
    }
    pick(&sources)
}

fn pick(sources: &[Source]) -> Mirrors {
    let first = |wanted: fn(&str) -> bool| {
        sources
            .iter()
            .find(|source| wanted(&source.suite))
            .map(|source| source.uri.clone())
    };
    Mirrors {
        main: first(is_main),
        security: first(is_security),
    }
}

fn is_release(name: &str) -> bool {
    const CLASSES: [&str; 6] = [
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "sid",
    ];
    const NAMES: [&str; 5] = ["bullseye", "bookworm", "trixie", "forky", "duke"];
    CLASSES.contains(&name) || NAMES.contains(&name)
}

fn is_main(suite: &str) -> bool {
    is_release(
        suite
            .trim_end_matches("-updates")
            .trim_end_matches("-backports"),
    )
}

fn is_security(suite: &str) -> bool {
    suite
        .strip_suffix("-security")
        .or_else(|| suite.strip_suffix("/updates"))
        .is_some_and(is_release)
}

/// An entry with this signature and these components can be Debian's own archive.
fn could_be_debian(signed_by: &str, components: &[&str]) -> bool {
    components.contains(&"main") && (signed_by.is_empty() || signed_by.contains("debian-archive"))
}

/// `deb [options] URI suite component...`
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim();
            let rest = line
                .strip_prefix("deb")?
                .strip_prefix([' ', '\t'])?
                .trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let signed_by = options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="));
            let mut words = rest.split_whitespace();
            let (uri, suite) = (words.next()?, words.next()?);
            let components: Vec<_> = words.collect();
            could_be_debian(signed_by.unwrap_or_default(), &components).then(|| Source {
                uri: uri.to_owned(),
                suite: suite.to_owned(),
            })
        })
        .collect()
}

/// Stanzas of `Field: words`. A line that starts with a blank continues the line before it.
fn deb822(text: &str) -> Vec<Source> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .flat_map(stanza)
        .collect()
}

fn stanza(lines: &[&str]) -> Vec<Source> {
    let field = |name: &str| -> Vec<&str> {
        let mut within = false;
        let mut words = vec![];
        for line in lines {
            let value = if line.starts_with([' ', '\t']) {
                line
            } else {
                let (key, value) = line.split_once(':').unwrap_or((line, ""));
                within = key.eq_ignore_ascii_case(name);
                value
            };
            if within {
                words.extend(value.split_whitespace());
            }
        }
        words
    };
    let enabled = !field("Enabled")
        .first()
        .is_some_and(|word| ["no", "false", "0"].contains(word));
    let is_deb = field("Types").contains(&"deb");
    if !enabled || !is_deb || !could_be_debian(&field("Signed-By").join(" "), &field("Components"))
    {
        return vec![];
    }
    let suites = field("Suites");
    field("URIs")
        .iter()
        .flat_map(|uri| {
            suites.iter().map(|suite| Source {
                uri: (*uri).to_owned(),
                suite: (*suite).to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sources: &[Source]) -> (Option<String>, Option<String>) {
        let mirrors = pick(sources);
        (mirrors.main, mirrors.security)
    }

    fn some(uri: &str) -> Option<String> {
        Some(uri.to_owned())
    }

    #[test]
    fn parses_one_line_entries() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.example bookworm main
deb http://vendor.example/linux/debian bookworm stable
deb http://pgdg.example/apt bookworm-pgdg main
deb [ signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] http://a.example/debian bookworm-updates main # why
deb http://b.example/debian bookworm main contrib
deb\thttp://c.example/debian-security bookworm-security main
deb http://truncated.example
";
        assert_eq!(
            found(&one_line(text)),
            (
                some("http://a.example/debian"),
                some("http://c.example/debian-security")
            )
        );
    }

    #[test]
    fn parses_deb822_stanzas() {
        let text = "\
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no

# a comment
Types: deb deb-src
URIs: http://a.example/debian
Suites: trixie
# a comment within
 trixie-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Types: deb
URIs: http://vendor.example
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF==

types: deb
uris: http://s.example/debian-security
suites: buster/updates trixie-security
components: main
";
        let sources = deb822(text);
        assert_eq!(
            found(&sources),
            (
                some("http://a.example/debian"),
                some("http://s.example/debian-security")
            )
        );
        assert!(
            sources
                .iter()
                .any(|source| source.suite == "trixie-updates")
        );
    }

    #[test]
    fn another_distribution_has_no_mirrors() {
        let text = "deb http://archive.example/ubuntu noble main\ndeb http://archive.example/ubuntu noble-security main\n";
        assert_eq!(pick(&one_line(text)), Mirrors::default());
    }

    #[test]
    fn files_are_read_in_the_order_of_apt() {
        let dir = std::env::temp_dir().join(format!("vm-sources-{}", std::process::id()));
        let parts = dir.join("sources.list.d");
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::write(
            parts.join("b.list"),
            "deb http://b.example/debian sid main\n",
        )
        .unwrap();
        std::fs::write(
            parts.join("a.sources"),
            "Types: deb\nURIs: http://a.example/\nSuites: sid\nComponents: main\n",
        )
        .unwrap();
        std::fs::write(
            parts.join("0.list.save"),
            "deb http://old.example/debian sid main\n",
        )
        .unwrap();
        let found = mirrors(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            found,
            Mirrors {
                main: some("http://a.example/"),
                security: None
            }
        );
    }
}
