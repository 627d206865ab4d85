//! `Bpffs::inspect` finds a hidden bpffs for every spelling of its path.

use std::fs;
use std::os::unix::fs::symlink;

use bpf_pin::Bpffs;
use bpf_pin::bpffs::{MountOptions, Verdict};
use common::*;
use rustix::mount::{MountFlags, mount};
use rustix::process::chdir;

use crate::inspect::with_mount_point;

#[common::test(&[cap::SYS_ADMIN])]
fn a_hidden_bpffs_is_found_for_every_spelling_of_its_path() -> Outcome {
    with_mount_point(|path| {
        fs::create_dir_all(path.join("real/b/c"))?;
        symlink("real", path.join("link"))?;
        symlink(path.join("real"), path.join("from_root"))?;
        let bpffs = MountOptions::new().mount(path.join("real/b/c"))?;
        let hidden = [bpffs.mount()?];
        mount(
            "tmpfs",
            path.join("real"),
            "tmpfs",
            MountFlags::empty(),
            None,
        )?;
        let spellings = [
            "real/b/c",
            "real/b/c/",
            "real/b/c/.",
            "real//b/./c",
            "real/../real/b/c",
            "link/b/c",
            "link/../link/b/c/",
            "from_root/b/c",
        ];
        for spelling in spellings {
            let seen = Bpffs::inspect(path.join(spelling))?;
            assert!(matches!(seen.verdict, Verdict::Missing { .. }), "{seen}");
            assert_eq!(seen.hidden, hidden, "{spelling}");
        }
        chdir(path)?;
        for spelling in spellings {
            assert_eq!(Bpffs::inspect(spelling)?.hidden, hidden, "{spelling}");
        }
        chdir("/")?;
        for other in ["real/b", "real/b/c/d", "real/c", "gone/b/c", "real/b/../c"] {
            assert_eq!(Bpffs::inspect(path.join(other))?.hidden, [], "{other}");
        }
        // A loop of symbolic links ends with an error.
        symlink("one", path.join("other"))?;
        symlink("other", path.join("one"))?;
        let error = Bpffs::inspect(path.join("one/b")).expect_err("a loop");
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
        Ok(())
    })
}
