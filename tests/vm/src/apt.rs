//! Debian's archive through apt, with lists and sources of our own. The machine's own apt state stays as it is.

use crate::sources::{Mirrors, mirrors};
use std::fs::{create_dir_all, remove_dir_all, write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An apt state, its lists fetched.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
    conf: PathBuf,
}

impl Apt {
    /// Fetches the lists of these suites into `dir`. The first architecture is the native one; `status` holds the
    /// packages that count as installed.
    pub fn open(
        dir: &Path,
        architectures: &[&str],
        suites: &[&str],
        security: &[&str],
        status: &str,
    ) -> Result<Self, String> {
        for tool in ["apt-get", "dpkg-deb"] {
            if Command::new(tool).arg("--version").output().is_err() {
                return Err(format!(
                    "{tool} is missing: kernels and toolchains come from Debian's archive; --image takes a kernel of \
                     your own"
                ));
            }
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            create_dir_all(dir.join(part))
                .map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(path)
        };
        put("status", status)?;
        let mirrors = mirrors(Path::new("/etc/apt"));
        let sources = sources_list(&mirrors, keyring()?, architectures, suites, security)?;
        put("sources.list", &sources)?;
        let conf = put("apt.conf", &configuration(dir, architectures)?)?;
        let apt = Self {
            dir: dir.to_owned(),
            conf,
        };
        // apt reports most failures here as warnings, and one missing suite must not hide the others.
        let update = apt.command("apt-get").arg("update").output();
        let update = update.map_err(|error| format!("apt-get: {error}"))?;
        eprint!("{}", String::from_utf8_lossy(&update.stderr));
        Ok(apt)
    }

    /// Downloads these packages alone.
    pub fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>, String> {
        let dir = self.dir.join("download");
        let _ = remove_dir_all(&dir);
        create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut command = self.command("apt-get");
        run(command.arg("download").args(packages).current_dir(&dir))?;
        some_packages(&dir)
    }

    /// Downloads these packages and their dependencies.
    pub fn download_all(&self, packages: &[&str]) -> Result<Vec<PathBuf>, String> {
        let mut command = self.command("apt-get");
        run(command
            .args([
                "install",
                "--yes",
                "--no-install-recommends",
                "--download-only",
            ])
            .args(packages))?;
        some_packages(&self.dir.join("cache/archives"))
    }

    /// Runs a tool to its end and returns its output.
    pub fn call(&self, tool: &str, args: &[&str]) -> Result<String, String> {
        run(self.command(tool).args(args))
    }

    /// apt reads `--config-file` last. It reads APT_CONFIG's file first, and the machine's own would override that.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.arg("--config-file").arg(&self.conf);
        command
    }
}

/// The packages in a directory, at least one.
fn some_packages(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = dir
        .read_dir()
        .map_err(|error| format!("{}: {error}", dir.display()))?;
    let packages: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect();
    if packages.is_empty() {
        return Err(format!("apt-get downloaded nothing into {}", dir.display()));
    }
    Ok(packages)
}

/// Unpacks a whole package.
pub fn unpack(package: &Path, tree: &Path) -> Result<(), String> {
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(tree))?;
    Ok(())
}

/// Runs a command to its end and returns its output. The error holds its standard error.
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

fn sources_list(
    mirrors: &Mirrors,
    keyring: &str,
    architectures: &[&str],
    suites: &[&str],
    security_suites: &[&str],
) -> Result<String, String> {
    let main = mirrors.main.as_deref().ok_or(
        "apt is configured without a mirror of Debian's main archive; add one, or pass a kernel with --image",
    )?;
    let mut lists = vec![(main, suites)];
    match mirrors.security.as_deref() {
        _ if security_suites.is_empty() => {}
        Some(security) => lists.push((security, security_suites)),
        None => eprintln!("apt is configured without a mirror of Debian's security archive"),
    }
    let mut architectures = architectures.to_vec();
    architectures.dedup();
    let architectures = architectures.join(",");
    let line = |uri: &str, suite: &str| {
        format!("deb [arch={architectures} signed-by={keyring}] {uri} {suite} main\n")
    };
    Ok(lists
        .iter()
        .flat_map(|(uri, suites)| suites.iter().map(|suite| line(uri, suite)))
        .collect())
}

/// apt reads this after the machine's own configuration, so the machine's proxies and certificates stay in force.
fn configuration(dir: &Path, architectures: &[&str]) -> Result<String, String> {
    let dir = dir
        .to_str()
        .filter(|dir| !dir.contains(['"', '\\', '\n']))
        .ok_or_else(|| {
            format!(
                "{}: apt's configuration cannot hold this path",
                dir.display()
            )
        })?;
    let native = architectures[0];
    let all: String = architectures
        .iter()
        .map(|architecture| format!("\"{architecture}\"; "))
        .collect();
    Ok(format!(
        r#"APT::Architecture "{native}";
#clear APT::Architectures;
APT::Architectures {{ {all}}};
Dir::State "{dir}";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
// The machine's hooks are for the machine's lists.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
// apt's sandbox user may not have access to this directory.
APT::Sandbox::User "root";
// The signature of an old release has expired.
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_need_a_main_mirror_only() {
        let mirrors = |main: Option<&str>, security: Option<&str>| Mirrors {
            main: main.map(str::to_owned),
            security: security.map(str::to_owned),
        };
        let list = |main, security| {
            let suites = ["bookworm", "trixie-backports"];
            let security_suites = ["bullseye-security"];
            let architectures = ["amd64", "arm64"];
            sources_list(
                &mirrors(main, security),
                "k",
                &architectures,
                &suites,
                &security_suites,
            )
        };
        assert!(list(None, Some("http://s.example")).is_err());
        let text = list(Some("http://m.example"), Some("http://s.example")).unwrap();
        assert!(text.contains(
            "deb [arch=amd64,arm64 signed-by=k] http://m.example trixie-backports main\n"
        ));
        assert!(text.contains(
            "deb [arch=amd64,arm64 signed-by=k] http://s.example bullseye-security main\n"
        ));
        let text = list(Some("http://m.example"), None).unwrap();
        assert!(!text.contains("security"));
    }
}
