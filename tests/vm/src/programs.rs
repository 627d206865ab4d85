//! Building the workspace's tests and examples as static programs, which need nothing but a kernel.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Packages whose tests have no place in a guest: this one, and those that need other programs or libraries.
const EXCLUDED: [&str; 3] = ["vm", "bpf-pin-interop", "bpf-pin-bench"];

/// A program and its name in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
}

/// All that was built.
#[derive(Debug, Default)]
pub struct Programs {
    /// Named `package/target`.
    pub tests: Vec<Program>,
    /// Named as `cargo run --example` names them.
    pub examples: Vec<Program>,
    pub init: PathBuf,
}

/// What cargo says of the workspace.
#[derive(Debug)]
pub struct Workspace {
    /// Where `cargo vm` keeps everything.
    pub state: PathBuf,
    packages: Vec<String>,
}

impl Workspace {
    /// The workspace the working directory is in.
    pub fn find() -> Result<Self, String> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version=1"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("cargo metadata: {error}"))?;
        let target = metadata["target_directory"]
            .as_str()
            .ok_or("cargo metadata: no target_directory")?;
        let packages = metadata["packages"]
            .as_array()
            .ok_or("cargo metadata: no packages")?;
        let packages = packages
            .iter()
            .filter_map(|package| package["name"].as_str())
            .map(str::to_owned)
            .collect();
        Ok(Self {
            state: Path::new(target).join("vm"),
            packages,
        })
    }

    /// Builds tests, examples and init.
    pub fn build(&self) -> Result<Programs, String> {
        eprintln!("building static test programs");
        let host = host_triple()?;
        let build = |arguments: &[&str]| -> Result<Vec<Value>, String> {
            let mut command = cargo();
            command
                .args(arguments)
                .args([
                    "--target",
                    &host,
                    "--message-format=json-render-diagnostics",
                ])
                .arg("--target-dir")
                .arg(self.state.join("build"))
                // This one is asked before RUSTFLAGS and the configuration.
                .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
                // The initramfs is the guest's memory: no debug information, nor the standard library's.
                .env("CARGO_PROFILE_DEV_DEBUG", "0")
                .env("CARGO_PROFILE_DEV_STRIP", "debuginfo")
                // An emulated processor is slow enough: the tests take half the time.
                .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
                .stderr(Stdio::inherit());
            let output = command
                .output()
                .map_err(|error| format!("cargo: {error}"))?;
            if !output.status.success() {
                return Err(format!(
                    "the static build failed ({}): cargo {}",
                    output.status,
                    arguments.join(" ")
                ));
            }
            Ok(output
                .stdout
                .split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect())
        };

        let mut selection = vec![];
        for package in self
            .packages
            .iter()
            .filter(|package| !EXCLUDED.contains(&package.as_str()))
        {
            selection.extend(["--package", package]);
        }
        let mut programs = Programs::default();
        // Without --examples an example with `test = true` would come as a test only.
        for message in build(&[&["test", "--no-run", "--quiet"][..], &selection].concat())?
            .iter()
            .chain(&build(
                &[&["build", "--examples", "--quiet"][..], &selection].concat(),
            )?)
            .chain(&build(&[
                "build",
                "--package",
                "vm",
                "--bin",
                "init",
                "--quiet",
            ])?)
        {
            programs.add(message);
        }
        for list in [&mut programs.tests, &mut programs.examples] {
            list.sort_by(|a, b| a.name.cmp(&b.name));
            list.dedup();
        }
        if let Some(pair) = programs
            .tests
            .windows(2)
            .find(|pair| pair[0].name == pair[1].name)
        {
            return Err(format!("two test programs named {}", pair[0].name));
        }
        if programs.init.as_os_str().is_empty() {
            return Err("cargo built no init".to_owned());
        }
        Ok(programs)
    }
}

impl Programs {
    /// Takes a message of cargo's, if it is about an executable that is wanted.
    fn add(&mut self, message: &Value) {
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else {
            return;
        };
        let target = &message["target"];
        let Some(name) = target["name"].as_str() else {
            return;
        };
        let kind = target["kind"][0].as_str().unwrap_or_default();
        if message["profile"]["test"] == true {
            // Unit tests may share their name with a file under tests/.
            let inner = if ["test", "example", "bench"].contains(&kind) {
                ""
            } else {
                "unit-"
            };
            let package = package_name(message);
            self.tests.push(Program {
                name: format!("{package}/{inner}{name}"),
                path,
            });
        } else if kind == "example" {
            self.examples.push(Program {
                name: name.to_owned(),
                path,
            });
        } else if name == "init" {
            self.init = path;
        }
    }
}

/// The name of the package a message is about: the directory its manifest is in says nothing.
fn package_name(message: &Value) -> String {
    // `path+file:///dir/NAME#VERSION`, or `path+file:///dir#NAME@VERSION`.
    let id = message["package_id"].as_str().unwrap_or_default();
    let (place, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => place.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

/// The cargo that runs us. What it told us about our own package is not for another build.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
    command
}

fn host_triple() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = crate::apt::run(Command::new(rustc).arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or("rustc names no host")?;
    if !host.starts_with("x86_64-") {
        return Err(format!(
            "the guests are x86_64, this machine builds for {host}"
        ));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(kind: &str, name: &str, test: bool, executable: Option<&str>) -> Value {
        json!({
            "reason": "compiler-artifact",
            "package_id": "path+file:///src/tests#some-tests@0.1.0",
            "target": { "kind": [kind], "name": name },
            "profile": { "test": test },
            "executable": executable,
        })
    }

    #[test]
    fn executables_are_sorted_by_what_they_are() {
        let mut programs = Programs::default();
        for message in [
            message("test", "pin", true, Some("/a")),
            message("lib", "pin", true, Some("/b")),
            message("lib", "pin", false, None),
            message("example", "pin_map", false, Some("/c")),
            message("bin", "init", false, Some("/d")),
            message("bin", "tool", false, Some("/e")),
            json!({ "reason": "build-finished", "success": true }),
        ] {
            programs.add(&message);
        }
        let names = |list: &[Program]| {
            list.iter()
                .map(|program| program.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(&programs.tests),
            ["some-tests/pin", "some-tests/unit-pin"]
        );
        assert_eq!(names(&programs.examples), ["pin_map"]);
        assert_eq!(programs.init, Path::new("/d"));
    }

    #[test]
    fn package_ids_of_both_forms() {
        assert_eq!(
            package_name(&json!({ "package_id": "path+file:///src/vm#0.1.0" })),
            "vm"
        );
        assert_eq!(
            package_name(&json!({ "package_id": "path+file:///src/tests#bpf-pin-tests@0.1.0" })),
            "bpf-pin-tests"
        );
    }
}
