//! The kernels to boot: which, and where their images are kept.

use crate::apt::run;
use crate::candidates::{Archive, Candidate, series};
use crate::target::{HOST, Platform, Target};
use std::fs::{File, create_dir_all, read_to_string, remove_dir_all, rename, write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The name in tables and file names.
    pub label: String,
    /// The package's version, or the image's path.
    pub version: String,
    pub image: PathBuf,
}

/// The kernels on this machine, and those that can be fetched, for one target.
#[derive(Debug)]
pub struct KernelStore {
    dir: PathBuf,
    apt: PathBuf,
    target: &'static Target,
    refresh: bool,
    archive: Option<Result<Archive, String>>,
    // Held to the end, so that only one run fetches at a time.
    _lock: File,
}

impl KernelStore {
    /// Opens the kernels under `state`; waits for another run that is fetching.
    pub fn open(state: &Path, target: &'static Target, refresh: bool) -> Result<Self, String> {
        let dir = directory(state, "kernels", target.kernel);
        create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let lock = crate::lock(&dir)?;
        Ok(Self {
            dir,
            apt: directory(state, "apt", target.kernel),
            target,
            refresh,
            archive: None,
            _lock: lock,
        })
    }

    /// The slots that these `--kernel` arguments select, or the default ones if there are none.
    pub fn slots(&self, wanted: &[String]) -> Result<Vec<String>, String> {
        let newest = self.cached("newest").map(|kernel| kernel.label);
        let newest = newest.as_deref().filter(|_| !self.refresh);
        choose(self.target.slots, wanted, newest)
    }

    /// The slot's kernel, fetched if it is missing or to be refreshed.
    pub fn get(&mut self, slot: &str) -> Result<Kernel, String> {
        let cached = self.cached(slot);
        if let Some(kernel) = cached.clone().filter(|_| !self.refresh) {
            return Ok(kernel);
        }
        let fetched = self
            .candidates(slot)
            .and_then(|candidates| self.fetch(slot, &candidates));
        match (fetched, cached) {
            (Err(why), Some(kernel)) => {
                eprintln!("{slot}: keeping {}: {why}", kernel.version);
                Ok(kernel)
            }
            (fetched, _) => fetched,
        }
    }

    /// The slot's kernel as a line of `--list`. Downloads only lists.
    pub fn describe(&mut self, slot: &str) -> Result<String, String> {
        if let Some(kernel) = self.cached(slot).filter(|_| !self.refresh) {
            return Ok(format!(
                "{:8} {:24} {}",
                kernel.label,
                kernel.version,
                kernel.image.display()
            ));
        }
        let best = self.candidates(slot)?.swap_remove(0);
        Ok(format!(
            "{:8} {:24} to be fetched: {}",
            series(&best.version),
            best.version,
            best.package
        ))
    }

    fn cached(&self, slot: &str) -> Option<Kernel> {
        let dir = self.dir.join(slot);
        let version = read_to_string(dir.join("version")).ok()?;
        let image = dir.join("vmlinuz");
        image.is_file().then(|| Kernel {
            label: series(&version),
            version,
            image,
        })
    }

    fn candidates(&mut self, slot: &str) -> Result<Vec<Candidate>, String> {
        let archive = self
            .archive
            .get_or_insert_with(|| Archive::open(&self.apt, self.target.kernel))
            .as_ref()?;
        let candidates = archive.candidates(slot);
        if candidates.is_empty() {
            return Err(format!(
                "no {} kernel {slot} in {}",
                self.target.kernel.flavour,
                archive.suites()
            ));
        }
        Ok(candidates)
    }

    fn fetch(&mut self, slot: &str, candidates: &[Candidate]) -> Result<Kernel, String> {
        // A listed version may be gone, and a package may hold no kernel. Then the next candidate is tried.
        let archive = self
            .archive
            .as_ref()
            .and_then(|archive| archive.as_ref().ok())
            .ok_or("no archive")?;
        let mut whys = vec![];
        for candidate in candidates {
            let is_candidate = |kernel: &Kernel| kernel.version == candidate.version;
            if let Some(kernel) = self.cached(slot).filter(is_candidate) {
                return Ok(kernel);
            }
            eprintln!(
                "{slot}: fetching {} {}",
                candidate.package, candidate.version
            );
            let unpacked = self.unpack(archive, slot, candidate);
            match unpacked.and_then(|()| {
                self.cached(slot)
                    .ok_or_else(|| "nothing was unpacked".to_owned())
            }) {
                Ok(kernel) => return Ok(kernel),
                Err(why) => whys.push(format!(
                    "{} {}: {why}",
                    candidate.package, candidate.version
                )),
            }
        }
        let _ = remove_dir_all(self.new_dir(slot));
        Err(whys.join("\n"))
    }

    /// Where a package is unpacked.
    fn new_dir(&self, slot: &str) -> PathBuf {
        self.dir.join(format!("{slot}.new"))
    }

    fn unpack(&self, archive: &Archive, slot: &str, candidate: &Candidate) -> Result<(), String> {
        let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let dir = self.new_dir(slot);
        let _ = remove_dir_all(&dir);
        let tree = dir.join("tree");
        create_dir_all(&tree).map_err(|error| at(&tree, error))?;
        let package = archive.download(candidate)?;
        extract(&package, &tree)?;

        // The new directory replaces the old one as a whole, so a version and its image always match.
        let image = find_kernel(&tree).ok_or("no kernel in the package")?;
        rename(&image, dir.join("vmlinuz")).map_err(|error| at(&image, error))?;
        write(dir.join("version"), &candidate.version).map_err(|error| at(&dir, error))?;
        std::fs::remove_file(&package).map_err(|error| at(&package, error))?;
        remove_dir_all(&tree).map_err(|error| at(&tree, error))?;
        let _ = remove_dir_all(self.dir.join(slot));
        rename(&dir, self.dir.join(slot)).map_err(|error| at(&dir, error))
    }
}

/// This machine's own kernel, which no guest boots.
pub fn host() -> Kernel {
    Kernel {
        label: HOST.to_owned(),
        version: HOST.to_owned(),
        image: PathBuf::new(),
    }
}

/// The kernel in a file of the caller's.
pub fn kernel_from_file(image: &Path) -> Result<Kernel, String> {
    let image = image
        .canonicalize()
        .map_err(|error| format!("{}: {error}", image.display()))?;
    let label = image
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .replace([',', ' '], "_");
    Ok(Kernel {
        label,
        version: image.display().to_string(),
        image,
    })
}

/// Where the kernels, or apt's state, of a platform are.
fn directory(state: &Path, what: &str, platform: &Platform) -> PathBuf {
    state.join(format!("{what}-{}", platform.debian))
}

/// The release string in an x86 image's boot header. Its offset, less 512, is at 0x20e.
pub fn release(image: &Path) -> Option<String> {
    let image = std::fs::read(image).ok()?;
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let place = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(usize::from(place) + 0x200..)?;
    let end = text.iter().position(|byte| matches!(byte, b' ' | 0))?;
    String::from_utf8(text[..end].to_vec()).ok()
}

/// Unpacks only the files that may be a kernel.
fn extract(package: &Path, tree: &Path) -> Result<(), String> {
    let mut tarfile = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("dpkg-deb: {error}"))?;
    let pipe = tarfile.stdout.take().expect("piped");
    let names = ["--wildcards", "--no-anchored", "vmlinu[xz]*"];
    let unpacked = run(Command::new("tar")
        .args(["--extract", "--file=-"])
        .arg("--directory")
        .arg(tree)
        .args(names)
        .stdin(pipe));
    let status = tarfile
        .wait()
        .map_err(|error| format!("dpkg-deb: {error}"))?;
    unpacked?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("dpkg-deb: {status}"))
    }
}

fn find_kernel(tree: &Path) -> Option<PathBuf> {
    tree.read_dir().ok()?.flatten().find_map(|entry| {
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            find_kernel(&entry.path())
        } else {
            kind.is_file().then(|| entry.path())
        }
    })
}

/// Matches `wanted` against the default slots: `6` selects 6.1, 6.12 and 6.18, but `6.1` does not select 6.12. `newest`
/// also answers to its series, if that is known. Any other series is a slot of its own.
fn choose(
    default: &[&str],
    wanted: &[String],
    newest: Option<&str>,
) -> Result<Vec<String>, String> {
    if wanted.is_empty() {
        return Ok(default.iter().map(|&slot| slot.to_owned()).collect());
    }
    let mut slots = vec![];
    for want in wanted {
        let answers = |name: &str| {
            name.strip_prefix(want.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let before = slots.len();
        slots.extend(
            default
                .iter()
                .chain([&"newest", &HOST])
                .filter(|slot| answers(slot) || (**slot == "newest" && newest.is_some_and(answers)))
                .map(|&slot| slot.to_owned()),
        );
        if slots.len() == before {
            if series(want) != *want || !want.contains('.') {
                return Err(format!(
                    "--kernel {want}: a series is two numbers as in 6.1, newest, or host"
                ));
            }
            slots.push(want.clone());
        }
    }
    let mut seen = vec![];
    slots.retain(|slot| {
        !seen.contains(slot) && {
            seen.push(slot.clone());
            true
        }
    });
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];

    fn choose_slots(wanted: &[&str], newest: Option<&str>) -> Result<Vec<String>, String> {
        choose(
            &DEFAULT,
            &wanted
                .iter()
                .map(|&want| want.to_owned())
                .collect::<Vec<_>>(),
            newest,
        )
    }

    #[test]
    fn series_are_matched_number_by_number() {
        assert_eq!(choose_slots(&[], None).unwrap(), DEFAULT);
        assert_eq!(choose_slots(&["6.1"], None).unwrap(), ["6.1"]);
        assert_eq!(choose_slots(&["6"], None).unwrap(), ["6.1", "6.12", "6.18"]);
        assert_eq!(
            choose_slots(&["6.18", "6", "6.1"], None).unwrap(),
            ["6.18", "6.1", "6.12"]
        );
    }

    #[test]
    fn newest_matches_its_series() {
        assert_eq!(choose_slots(&["7.3"], Some("7.3")).unwrap(), ["newest"]);
        assert_eq!(
            choose_slots(&["newest", "7"], Some("7.3")).unwrap(),
            ["newest"]
        );
        assert_eq!(choose_slots(&["7.3"], None).unwrap(), ["7.3"]);
    }

    #[test]
    fn the_boot_header_names_the_release() {
        let path = std::env::temp_dir().join(format!("vm-image-{}", std::process::id()));
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x80u16.to_le_bytes());
        image[0x280..0x294].copy_from_slice(b"6.12.107+deb13 (a@b)");
        write(&path, &image).unwrap();
        let named = release(&path);
        image.truncate(0x285);
        write(&path, &image).unwrap();
        let cut = release(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(named.as_deref(), Some("6.12.107+deb13"));
        assert_eq!(cut, None);
    }

    #[test]
    fn any_series_may_be_selected() {
        assert_eq!(choose_slots(&["6.16"], Some("7.3")).unwrap(), ["6.16"]);
        for want in ["", "new", "4", "6.1.0", "../x", "6.x"] {
            assert!(choose_slots(&[want], Some("7.3")).is_err(), "{want:?}");
        }
    }
}
