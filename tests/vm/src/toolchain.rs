//! Rust 1.85 of Debian 13, the least Rust that the library supports, with the standard library of each target.
//!
//! The packages are unpacked under `target/` and not installed. Their programs need a newer glibc than Debian 12 has, so
//! wrapper scripts start them with the loader and the libraries of Debian 13.

use crate::apt::{Apt, unpack};
use crate::target::{OWN, Target};
use std::fs::{Permissions, create_dir_all, remove_dir_all, rename, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release that Debian 13 has.
pub const RELEASE: &str = "1.85";
const SUITES: [&str; 1] = ["trixie"];
const STD: &str = "libstd-rust-dev";
/// Rust's packages depend on them, but this machine's own serve as well.
const PROVIDED: [(&str, &str); 3] = [("gcc", ""), ("binutils", ""), ("libc6-dev", "libc-dev")];

/// The unpacked toolchain.
#[derive(Debug)]
pub struct Toolchain {
    dir: PathBuf,
}

impl Toolchain {
    /// Fetches what is missing for the target.
    pub fn get(state: &Path, target: &Target) -> Result<Self, String> {
        if std::env::consts::ARCH != OWN.name {
            return Err(format!(
                "Rust {RELEASE} is fetched for x86-64 machines only"
            ));
        }
        let dir = state.join(format!("rust-{RELEASE}"));
        create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let _lock = crate::lock(&dir)?;
        let this = Self { dir };
        if !this.dir.join("bin").exists() {
            eprintln!("fetching Rust {RELEASE}");
            let apt = this.apt(OWN)?;
            this.fetch("usr", &apt.download_all(&["rustc", "cargo"])?)?;
            this.wrap()?;
        }
        if !this.std(target).exists() {
            eprintln!("fetching Rust's standard library for {}", target.triple);
            let package = format!("{STD}:{}", target.debian);
            let packages = this.apt(target)?.download(&[&package])?;
            this.fetch(&this.std_name(target), &packages)?;
        }
        Ok(this)
    }

    /// Cargo with this toolchain, the target's linker and static linking. The target itself is an argument.
    pub fn cargo(&self, target: &Target) -> Command {
        let mut command = crate::programs::clean(self.dir.join("bin/cargo"));
        command
            .env("RUSTC", self.dir.join("bin/rustc"))
            .env("RUSTDOC", self.dir.join("bin/rustdoc"))
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
        if let Some(linker) = target.linker() {
            let triple = target.triple.replace('-', "_").to_uppercase();
            command.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
        }
        command
    }

    fn apt(&self, target: &Target) -> Result<Apt, String> {
        let provided: String = PROVIDED
            .iter()
            .map(|(package, provides)| {
                let provides = match provides {
                    &"" => String::new(),
                    name => format!("Provides: {name}\n"),
                };
                format!(
                    "Package: {package}\nStatus: install ok installed\nVersion: 99\n\
                     Architecture: {}\nMaintainer: none\n{provides}Description: of this machine\n\n",
                    OWN.debian
                )
            })
            .collect();
        let dir = self.dir.join(format!("apt-{}", target.debian));
        Apt::open(&dir, &[OWN.debian, target.debian], &SUITES, &[], &provided)
    }

    /// Where a target's standard library is.
    fn std(&self, target: &Target) -> PathBuf {
        self.dir.join(self.std_name(target))
    }

    fn std_name(&self, target: &Target) -> String {
        format!("usr/lib/rustlib/{}", target.triple)
    }

    /// Unpacks packages and moves one directory of theirs to the same place below `dir`.
    fn fetch(&self, wanted: &str, packages: &[PathBuf]) -> Result<(), String> {
        let at = |error: std::io::Error| format!("{}: {error}", self.dir.display());
        let tree = self.dir.join("new");
        let _ = remove_dir_all(&tree);
        create_dir_all(&tree).map_err(at)?;
        for package in packages {
            unpack(package, &tree)?;
        }
        let place = self.dir.join(wanted);
        let _ = remove_dir_all(&place);
        rename(tree.join(wanted), &place).map_err(at)?;
        remove_dir_all(&tree).map_err(at)?;
        // The archives are as large as what they hold.
        for package in packages {
            std::fs::remove_file(package).map_err(at)?;
        }
        Ok(())
    }

    /// Writes the scripts. Their directory marks a complete toolchain.
    fn wrap(&self) -> Result<(), String> {
        let at = |error: std::io::Error| format!("{}: {error}", self.dir.display());
        let (usr, new) = (self.dir.join("usr"), self.dir.join("bin.new"));
        let libraries = usr.join("lib/x86_64-linux-gnu");
        create_dir_all(&new).map_err(at)?;
        for program in ["rustc", "rustdoc", "cargo"] {
            let sysroot = match program {
                "cargo" => String::new(),
                _ => format!(" '--sysroot={}'", usr.display()),
            };
            let script = format!(
                "#!/bin/sh\nexec '{0}/ld-linux-x86-64.so.2' --library-path '{0}' --argv0 \"$0\" \
                 '{1}/bin/{program}'{sysroot} \"$@\"\n",
                libraries.display(),
                usr.display()
            );
            let path = new.join(program);
            write(&path, script).map_err(at)?;
            set_permissions(&path, Permissions::from_mode(0o755)).map_err(at)?;
        }
        // A loader that cannot start is found here and not in the middle of a build.
        crate::apt::run(Command::new(new.join("rustc")).arg("--version"))?;
        rename(&new, self.dir.join("bin")).map_err(at)
    }
}
