//! Another process, which does not take the lock, changes the pin between two syscalls of `open_or_attach`.

use bpf_pin::reuse::Attachment;
use bpf_pin::types::AttachType;
use bpf_pin::{Link, LinkSpec, PinDir, Prog};
use common::*;

use super::{one_link, unshare_network};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];

#[common::test_alone(ROOT)]
fn a_link_pinned_before_link_create_is_updated() {
    let (scene, xdp) = (Scene::new(xdp_prog), LinkSpec::xdp(LOOPBACK));
    let updated = scene.updated();
    scene.race(&xdp, is_create, || scene.pin_theirs(&xdp), updated);
}

#[common::test_alone(TCX)]
fn a_link_pinned_after_link_create_is_updated() {
    let tcx = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
    let is_created = |stop: &Stop| stop.is_success_of("LINK_CREATE");
    let try_once = |_| {
        let scene = Scene::new(tcx_prog);
        let updated = scene.updated();
        scene.race_or_busy(&tcx, is_created, || scene.pin_theirs(&tcx), updated)
    };
    assert!((0..5).any(try_once), "EEXIST each time");
}

/// The detached link is replaced by an attached one. XDP has room for one link only.
#[common::test_alone(ROOT)]
fn a_detached_link_replaced_before_link_create_is_updated() {
    let (scene, xdp) = (Scene::new(xdp_prog), LinkSpec::xdp(LOOPBACK));
    scene.pin_detached(&xdp);
    let replace = || {
        let link = xdp.create(&scene.theirs).unwrap();
        scene.dir.replace(&link, "link").unwrap();
    };
    let updated = scene.updated();
    scene.race(&xdp, is_create, replace, updated);
}

/// rename(2) needs no target.
#[common::test_alone(ROOT)]
fn a_detached_link_unlinked_before_the_rename_is_reattached() {
    let (scene, xdp) = (Scene::new(xdp_prog), LinkSpec::xdp(LOOPBACK));
    scene.pin_detached(&xdp);
    let is_rename = |stop: &Stop| stop.is_entry() && stop.name() == "renameat2";
    let unlink = || scene.dir.unlink("link").unwrap();
    scene.race(&xdp, is_rename, unlink, Attachment::Reattached);
}

fn is_create(stop: &Stop) -> bool {
    stop.is_entry() && stop.name() == "LINK_CREATE"
}

struct Scene {
    fs: TestFs,
    dir: PinDir,
    ours: Prog,
    theirs: Prog,
}

impl Scene {
    fn new(make: impl Fn() -> Prog) -> Self {
        unshare_network();
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        // Probes what the kernel supports before the fork, so that no child does.
        dir.get::<bpf_pin::Object>("nothing").unwrap_err();
        let (ours, theirs) = (make(), make());
        Self {
            fs,
            dir,
            ours,
            theirs,
        }
    }

    fn updated(&self) -> Attachment {
        let old_prog_id = self.theirs.id().unwrap();
        Attachment::Updated { old_prog_id }
    }

    fn pin_theirs(&self, spec: &LinkSpec<'_>) {
        let link = spec.create(&self.theirs).unwrap();
        self.dir.pin(&link, "link").unwrap();
    }

    fn pin_detached(&self, spec: &LinkSpec<'_>) {
        self.pin_theirs(spec);
        self.dir.get::<Link>("link").unwrap().detach().unwrap();
    }

    /// Calls `open_or_attach` in another process, and `act` at its first such stop.
    fn race(
        &self,
        spec: &LinkSpec<'_>,
        is_wanted: impl Fn(&Stop) -> bool,
        act: impl FnOnce(),
        expected: Attachment,
    ) {
        assert!(self.race_or_busy(spec, is_wanted, act, expected), "EEXIST");
    }

    /// Like `race`, but returns false if the update failed with EEXIST: a process that lists all links, such as
    /// another test, may hold the dropped link for a moment, and TCX attaches a program once.
    fn race_or_busy(
        &self,
        spec: &LinkSpec<'_>,
        is_wanted: impl Fn(&Stop) -> bool,
        act: impl FnOnce(),
        expected: Attachment,
    ) -> bool {
        let ready = || PinDir::open(self.fs.root()).unwrap();
        let run = |dir: PinDir| match dir.open_or_attach("link", spec, &self.ours) {
            Ok(attached) if attached.attachment == expected => 0,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => 2,
            other => {
                eprintln!("{other:?}");
                1
            }
        };
        let mut tracee = Tracee::fork(ready, run).unwrap();
        loop {
            let stop = tracee.next().unwrap().expect("such a stop");
            if is_wanted(&stop) {
                break;
            }
        }
        act();
        let code = tracee.finish().unwrap();
        if code == 2 {
            return false;
        }
        assert_eq!(code, 0);
        assert_eq!(self.fs.names(), ["link"]);
        let link = one_link(&self.dir, &[&self.ours, &self.theirs]);
        assert_eq!(link.info().unwrap().prog_id, self.ours.id().unwrap());
        true
    }
}
