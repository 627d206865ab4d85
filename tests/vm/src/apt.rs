//! Debian's archive through apt, with lists and sources of our own: the machine's stay as they are.

use crate::sources::{Mirrors, mirrors};
use std::fs::{create_dir_all, write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The suites that between them serve the default series.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];
const SECURITY_SUITES: [&str; 1] = ["bullseye-security"];
/// Cloud images have what a virtual machine needs built in. From 6.19 on the kernel lies in linux-binary. A name with
/// two numbers only is a metapackage's.
const PACKAGES: &str = "^linux-(image|binary)-[0-9]+[.][0-9]+[.][0-9].*-cloud-amd64$";

/// A package that should hold a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub package: String,
    pub version: String,
}

/// The archive, its lists fetched.
#[derive(Debug)]
pub struct Archive {
    conf: PathBuf,
    candidates: Vec<Candidate>,
}

impl Archive {
    /// Fetches the lists into `dir`.
    pub fn open(dir: &Path) -> Result<Self, String> {
        for tool in ["apt-get", "dpkg-deb"] {
            if Command::new(tool).arg("--version").output().is_err() {
                return Err(format!(
                    "{tool} is not here: kernels come from Debian's archive; --image takes one's own"
                ));
            }
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            create_dir_all(dir.join(part))
                .map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        let put = |name: &str, text: String| {
            let path = dir.join(name);
            write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(path)
        };
        put("status", String::new())?;
        put(
            "sources.list",
            sources_list(&mirrors(Path::new("/etc/apt")), keyring()?)?,
        )?;
        let conf = put("apt.conf", configuration(dir)?)?;

        let mut archive = Self {
            conf,
            candidates: vec![],
        };
        eprintln!("asking the archive for its kernels");
        // One suite that is gone must not hide the others, and apt calls most such things a warning.
        let update = archive.command("apt-get").arg("update").output();
        let update = update.map_err(|error| format!("apt-get: {error}"))?;
        eprint!("{}", String::from_utf8_lossy(&update.stderr));
        let names = archive.call("apt-cache", &["search", "--names-only", PACKAGES])?;
        let mut arguments = vec!["madison"];
        arguments.extend(
            names
                .lines()
                .filter_map(|line| line.split_whitespace().next()),
        );
        if arguments.len() > 1 {
            archive.candidates = madison(&archive.call("apt-cache", &arguments)?);
        }
        Ok(archive)
    }

    /// Candidates of a series (`newest`: of the newest there is), the best first.
    pub fn candidates(&self, slot: &str) -> Vec<Candidate> {
        best(&self.candidates, slot)
    }

    /// Where the kernels are looked for, for a message.
    pub fn suites(&self) -> String {
        [&SUITES[..], &SECURITY_SUITES[..]].concat().join(", ")
    }

    /// Downloads a package into an empty directory.
    pub fn download(&self, candidate: &Candidate, dir: &Path) -> Result<PathBuf, String> {
        let wanted = format!("{}={}", candidate.package, candidate.version);
        run(self
            .command("apt-get")
            .args(["download", &wanted])
            .current_dir(dir))?;
        let entries = dir
            .read_dir()
            .map_err(|error| format!("{}: {error}", dir.display()))?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| format!("apt-get download {wanted} left nothing"))
    }

    fn call(&self, tool: &str, args: &[&str]) -> Result<String, String> {
        run(self.command(tool).args(args))
    }

    /// `--config-file` is read last; what APT_CONFIG names is read first, and the machine's own would win.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.arg("--config-file").arg(&self.conf);
        command
    }
}

/// Runs a command to its end; what it said on its standard error is the error.
pub fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{name}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn keyring() -> Result<&'static str, String> {
    [
        "/usr/share/keyrings/debian-archive-keyring.pgp",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .ok_or_else(|| {
        "no keyring for Debian's archive: apt-get install debian-archive-keyring".to_owned()
    })
}

fn sources_list(mirrors: &Mirrors, keyring: &str) -> Result<String, String> {
    let main = mirrors.main.as_deref().ok_or(
        "apt is configured with no mirror of Debian's main archive; add one, or bring a kernel with --image",
    )?;
    let mut lists = vec![(main, &SUITES[..])];
    match mirrors.security.as_deref() {
        Some(security) => lists.push((security, &SECURITY_SUITES[..])),
        None => eprintln!(
            "apt is configured with no mirror of Debian's security archive: going without"
        ),
    }
    let line = |uri: &str, suite: &str| {
        format!("deb [arch=amd64 signed-by={keyring}] {uri} {suite} main\n")
    };
    Ok(lists
        .iter()
        .flat_map(|(uri, suites)| suites.iter().map(|suite| line(uri, suite)))
        .collect())
}

/// Read after the machine's own configuration, so that its proxies and certificates hold here too.
fn configuration(dir: &Path) -> Result<String, String> {
    let dir = dir
        .to_str()
        .filter(|dir| !dir.contains(['"', '\\', '\n']))
        .ok_or_else(|| {
            format!(
                "{}: a path that cannot stand in apt's configuration",
                dir.display()
            )
        })?;
    Ok(format!(
        r#"Dir::State "{dir}";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
// Hooks of the machine's packages are about the machine's lists.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
// The sandbox user may not reach this directory.
APT::Sandbox::User "root";
// An old release is not signed anew.
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
"#
    ))
}

/// `package | version | source`, one a line.
fn madison(text: &str) -> Vec<Candidate> {
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

/// The numbers of a package's version, `6.1.176-1` as 6, 1, 176, 1. Enough to order kernels: what follows a `~` or a
/// `+` tells builds of the same kernel apart.
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

fn best(candidates: &[Candidate], slot: &str) -> Vec<Candidate> {
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
    // Where both packages are there the kernel is in linux-binary, which is the lesser name.
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
        best(&madison(MADISON), slot)
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
        assert!(best(&[], "newest").is_empty());
    }

    #[test]
    fn series_are_two_numbers() {
        assert_eq!(series("5.10.262-1"), "5.10");
        assert_eq!(series("7.3~rc7-1~exp1"), "7.3");
        assert_eq!(series("nonsense"), "");
    }

    #[test]
    fn sources_need_a_main_mirror_only() {
        let mirrors = |main: Option<&str>, security: Option<&str>| Mirrors {
            main: main.map(str::to_owned),
            security: security.map(str::to_owned),
        };
        assert!(sources_list(&mirrors(None, Some("http://s.example")), "k").is_err());
        let text = sources_list(
            &mirrors(Some("http://m.example"), Some("http://s.example")),
            "k",
        )
        .unwrap();
        assert!(
            text.contains("deb [arch=amd64 signed-by=k] http://m.example trixie-backports main\n")
        );
        assert!(
            text.contains("deb [arch=amd64 signed-by=k] http://s.example bullseye-security main\n")
        );
        let text = sources_list(&mirrors(Some("http://m.example"), None), "k").unwrap();
        assert!(!text.contains("security"));
    }
}
