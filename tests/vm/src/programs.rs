//! Building the workspace's tests and examples as static programs, which need only a kernel.

use crate::target::{OWN, Target};
use crate::toolchain::{RELEASE, Toolchain};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package of the tests that `--test` names.
const TESTS: &str = "bpf-pin-tests";
/// Packages without programs for a guest: this one, and those that need other programs or libraries.
const EXCLUDED: [&str; 3] = ["vm", "bpf-pin-interop", "bpf-pin-bench"];

/// A program and its name in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
}

/// The programs that cargo built.
#[derive(Debug, Default)]
pub struct Programs {
    /// Named `package/target`.
    pub tests: Vec<Program>,
    /// Named as `cargo run --example` names them.
    pub examples: Vec<Program>,
    pub init: PathBuf,
}

/// The workspace, as cargo describes it.
#[derive(Debug)]
pub struct Workspace {
    /// The directory for everything that `cargo vm` keeps.
    pub state: PathBuf,
    packages: Vec<String>,
}

impl Workspace {
    /// The workspace of the working directory.
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

    /// Builds what is wanted for the target, and init.
    pub fn build(&self, target: &Target, wanted: &Wanted) -> Result<Programs, String> {
        let builder = Builder::new(&self.state, target)?;
        eprintln!("building static programs for {}", target.triple);
        let mut messages = vec![];
        match wanted {
            Wanted::Tests(names) if !names.is_empty() => {
                let names = names.iter().flat_map(|name| ["--test", name]);
                let mut arguments = vec!["test", "--no-run", "--package", TESTS];
                arguments.extend(names);
                messages.extend(builder.run(&arguments)?);
            }
            Wanted::Tests(_) => {
                messages.extend(builder.run(&self.select(&["test", "--no-run"]))?);
            }
            Wanted::Example(name) => {
                messages.extend(builder.run(&self.select(&["build", "--example", name]))?);
            }
            Wanted::Everything => {
                messages.extend(builder.run(&self.select(&["test", "--no-run"]))?);
                // Without --examples an example with `test = true` would only come as a test.
                messages.extend(builder.run(&self.select(&["build", "--examples"]))?);
            }
        }
        messages.extend(builder.run(&["build", "--package", "vm", "--bin", "init"])?);

        let mut programs = Programs::default();
        for message in &messages {
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
            return Err(format!("two test programs are named {}", pair[0].name));
        }
        if programs.init.as_os_str().is_empty() {
            return Err("cargo built no init".to_owned());
        }
        Ok(programs)
    }

    /// Cargo's arguments, for the packages that have programs for a guest.
    fn select<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = arguments.to_vec();
        for package in &self.packages {
            if !EXCLUDED.contains(&package.as_str()) {
                all.extend(["--package", package]);
            }
        }
        all
    }
}

/// The programs that a run needs.
#[derive(Debug)]
pub enum Wanted {
    /// These programs of bpf-pin-tests, or every test program if there are none.
    Tests(Vec<String>),
    /// One example.
    Example(String),
    /// Tests and examples.
    Everything,
}

/// Cargo for static programs of a target.
struct Builder {
    target: &'static str,
    dir: PathBuf,
    toolchain: Option<Toolchain>,
}

impl Builder {
    fn new(state: &Path, target: &Target) -> Result<Self, String> {
        let is_own = target == OWN;
        if is_own {
            check_host()?;
        }
        let (dir, toolchain) = match is_own {
            true => (state.join("build"), None),
            false => (build_dir(state), Some(Toolchain::get(state, target)?)),
        };
        Ok(Self {
            target: target.triple,
            dir,
            toolchain,
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<Value>, String> {
        let mut command = match &self.toolchain {
            Some(toolchain) => toolchain.cargo(crate::target::find(self.target).expect("a target")),
            None => cargo(),
        };
        command
            .args(arguments)
            .args(["--quiet", "--message-format=json-render-diagnostics"])
            .args(["--target", self.target])
            .arg("--target-dir")
            .arg(&self.dir)
            // Cargo reads this one before RUSTFLAGS and its configuration.
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
            // The initramfs is the guest's memory, so it holds no debug information.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_STRIP", "debuginfo")
            // Emulated processors are slow: with optimisation the tests take half the time.
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
    }
}

/// Runs cargo with Rust 1.85 for a target, after its subcommand `arguments[0]`.
pub fn run_cargo(state: &Path, target: &Target, arguments: &[OsString]) -> Result<bool, String> {
    let (subcommand, rest) = arguments.split_first().ok_or("--cargo: no command")?;
    let status = Toolchain::get(state, target)?
        .cargo(target)
        .arg(subcommand)
        .args(["--target", target.triple])
        .arg("--target-dir")
        .arg(build_dir(state))
        .args(rest)
        .status();
    Ok(status.map_err(|error| format!("cargo: {error}"))?.success())
}

/// Builds with Rust 1.85.
fn build_dir(state: &Path) -> PathBuf {
    state.join(format!("build-{RELEASE}"))
}

impl Programs {
    /// Takes the executable of one of cargo's messages.
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

/// The name of a message's package, which need not be that of its directory.
fn package_name(message: &Value) -> String {
    // `path+file:///dir/NAME#VERSION`, or `path+file:///dir#NAME@VERSION`.
    let id = message["package_id"].as_str().unwrap_or_default();
    let (place, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => place.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

/// The cargo that runs this program.
fn cargo() -> Command {
    clean(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A cargo without the variables that describe this package.
pub fn clean(cargo: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(cargo);
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
    command
}

/// The default toolchain must build for the default target.
fn check_host() -> Result<(), String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = crate::apt::run(Command::new(rustc).arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or("rustc names no host")?;
    match host == OWN.triple {
        true => Ok(()),
        false => Err(format!(
            "the guests need {}, and rustc builds for {host}",
            OWN.triple
        )),
    }
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
    fn executables_are_sorted_by_kind() {
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
    fn parses_package_ids_of_both_forms() {
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
