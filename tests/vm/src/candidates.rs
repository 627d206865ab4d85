//! The kernels in Debian's archive: which packages hold one, and which of them is the best of its series.

use crate::apt::Apt;
use crate::target::Platform;
use std::path::{Path, PathBuf};

/// The suites that together have the default series.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];
const SECURITY_SUITES: [&str; 1] = ["bullseye-security"];

/// A package that should hold a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub package: String,
    pub version: String,
}

/// The archive's kernels for a platform.
#[derive(Debug)]
pub struct Archive {
    apt: Apt,
    candidates: Vec<Candidate>,
}

impl Archive {
    /// Fetches the lists into `dir`.
    pub fn open(dir: &Path, platform: &Platform) -> Result<Self, String> {
        eprintln!("fetching the archive's list of {} kernels", platform.debian);
        let apt = Apt::open(dir, &[platform.debian], &SUITES, &SECURITY_SUITES, "")?;
        // From 6.19 on the kernel is in linux-binary. A name with only two numbers is a metapackage's.
        let pattern = format!(
            "^linux-(image|binary)-[0-9]+[.][0-9]+[.][0-9].*-{}$",
            platform.flavour
        );
        let names = apt.call("apt-cache", &["search", "--names-only", &pattern])?;
        let mut arguments = vec!["madison"];
        arguments.extend(
            names
                .lines()
                .filter_map(|line| line.split_whitespace().next()),
        );
        let mut candidates = vec![];
        if arguments.len() > 1 {
            candidates = parse_madison(&apt.call("apt-cache", &arguments)?);
        }
        Ok(Self { apt, candidates })
    }

    /// Candidates of a series, the best first. The series `newest` is the newest in the archive.
    pub fn candidates(&self, slot: &str) -> Vec<Candidate> {
        newest_candidates(&self.candidates, slot)
    }

    /// The suites that are searched, for a message.
    pub fn suites(&self) -> String {
        [&SUITES[..], &SECURITY_SUITES[..]].concat().join(", ")
    }

    /// Downloads a candidate's package.
    pub fn download(&self, candidate: &Candidate) -> Result<PathBuf, String> {
        let wanted = format!("{}={}", candidate.package, candidate.version);
        Ok(self.apt.download(&[&wanted])?.swap_remove(0))
    }
}

/// `package | version | source`, one a line.
fn parse_madison(text: &str) -> Vec<Candidate> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split('|').map(str::trim);
            let (package, version) = (columns.next()?, columns.next()?);
            Some(Candidate {
                package: package.to_owned(),
                version: version.to_owned(),
            })
        })
        .collect()
}

/// The numbers of a package's version: 6, 1, 176, 1 for `6.1.176-1`. They order kernels; what follows a `~` or a `+`
/// only distinguishes builds of the same kernel.
fn numbers(version: &str) -> Vec<u64> {
    let version = version.split(['~', '+']).next().unwrap_or_default();
    version
        .split(['.', '-'])
        .map_while(|number| number.parse().ok())
        .collect()
}

/// The first two numbers of a version, `6.1`.
pub fn series(version: &str) -> String {
    let numbers = numbers(version);
    numbers
        .iter()
        .take(2)
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(".")
}

fn newest_candidates(candidates: &[Candidate], slot: &str) -> Vec<Candidate> {
    let newest = || {
        candidates
            .iter()
            .max_by_key(|candidate| numbers(&candidate.version))
    };
    let wanted = match slot {
        "newest" => newest()
            .map(|candidate| series(&candidate.version))
            .unwrap_or_default(),
        slot => slot.to_owned(),
    };
    let mut found: Vec<_> = candidates
        .iter()
        .filter(|candidate| series(&candidate.version) == wanted)
        .cloned()
        .collect();
    // If both packages exist the kernel is in linux-binary, which sorts first.
    found.sort_by(|a, b| {
        numbers(&b.version)
            .cmp(&numbers(&a.version))
            .then(a.package.cmp(&b.package))
    });
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "\
linux-image-6.1.0-9-cloud-amd64 | 6.1.99-1 | http://a.example/debian bookworm/main amd64 Packages
linux-image-6.1.0-50-cloud-amd64 |  6.1.176-1 | http://a.example/debian bookworm/main amd64 Packages
linux-image-6.1.0-0.deb11.51-cloud-amd64 | 6.1.177-1~deb11u1 | http://a.example/debian bullseye-security/main amd64 Packages
linux-image-6.12.107+deb13-cloud-amd64 | 6.12.107-1 | http://a.example/debian trixie/main amd64 Packages
linux-image-7.3.4+deb13-cloud-amd64 | 7.3.4-1~bpo13+1 | http://a.example/debian trixie-backports/main amd64 Packages
linux-binary-7.3.4+deb13-cloud-amd64 | 7.3.4-1~bpo13+1 | http://a.example/debian trixie-backports/main amd64 Packages
linux-binary-7.2.12+deb13-cloud-amd64 | 7.2.12-1~bpo13+1 | http://a.example/debian trixie-backports/main amd64 Packages
";

    fn packages(slot: &str) -> Vec<String> {
        newest_candidates(&parse_madison(MADISON), slot)
            .into_iter()
            .map(|candidate| candidate.package)
            .collect()
    }

    #[test]
    fn newest_of_a_series_comes_first() {
        assert_eq!(
            packages("6.1")[0],
            "linux-image-6.1.0-0.deb11.51-cloud-amd64"
        );
        assert_eq!(
            packages("6.1").last().unwrap(),
            "linux-image-6.1.0-9-cloud-amd64"
        );
        assert_eq!(packages("6.12"), ["linux-image-6.12.107+deb13-cloud-amd64"]);
        assert!(packages("5.10").is_empty());
    }

    #[test]
    fn newest_of_all_prefers_the_package_with_the_kernel() {
        let both = [
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
        ];
        assert_eq!(packages("newest"), both);
        assert!(newest_candidates(&[], "newest").is_empty());
    }

    #[test]
    fn series_are_two_numbers() {
        assert_eq!(series("5.10.262-1"), "5.10");
        assert_eq!(series("7.3~rc7-1~exp1"), "7.3");
        assert_eq!(series("nonsense"), "");
    }
}
