//! Somebody who knows nothing of turns is faster, right between two syscalls.

use bpf_pin::reuse::Attachment;
use bpf_pin::types::AttachType;
use bpf_pin::{LinkSpec, PinDir, Prog};
use common::*;

use crate::open_or_attach::one_link;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];

pub const CASES: &[(&str, &[Need])] = &[
    ("faster_to_attach", ROOT),
    ("faster_to_pin", TCX),
    ("faster_to_replace", ROOT),
    ("faster_to_unlink", ROOT),
];

pub fn run(name: &str) -> bool {
    let xdp = LinkSpec::xdp(LOOPBACK);
    let tcx = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
    match name {
        // Both the device and the name.
        "faster_to_attach" => {
            let scene = Scene::new(xdp_prog);
            scene.go(
                &xdp,
                |stop| stop.is_entry() && stop.name() == "LINK_CREATE",
                || scene.attach(&xdp),
                Attachment::Updated {
                    old_prog_id: scene.theirs.id().unwrap(),
                },
            );
        }
        "faster_to_pin" => {
            let scene = Scene::new(tcx_prog);
            scene.go(
                &tcx,
                |stop| stop.is_success_of("LINK_CREATE"),
                || scene.attach(&tcx),
                Attachment::Updated {
                    old_prog_id: scene.theirs.id().unwrap(),
                },
            );
        }
        // What was defunct has been replaced by one that is not, whose device is another: XDP has
        // room for one alone.
        "faster_to_replace" => {
            let scene = Scene::new(xdp_prog);
            scene.attach(&xdp);
            scene
                .dir
                .get::<bpf_pin::Link>("link")
                .unwrap()
                .detach()
                .unwrap();
            scene.go(
                &xdp,
                |stop| stop.is_entry() && stop.name() == "LINK_CREATE",
                || {
                    let link = xdp.create(&scene.theirs).unwrap();
                    scene.dir.replace(&link, "link").unwrap();
                },
                Attachment::Updated {
                    old_prog_id: scene.theirs.id().unwrap(),
                },
            );
        }
        "faster_to_unlink" => {
            let scene = Scene::new(xdp_prog);
            scene.attach(&xdp);
            scene
                .dir
                .get::<bpf_pin::Link>("link")
                .unwrap()
                .detach()
                .unwrap();
            scene.go(
                &xdp,
                |stop| stop.is_entry() && stop.name() == "renameat2",
                || scene.dir.unlink("link").unwrap(),
                // rename(2) needs no name there.
                Attachment::Reattached,
            );
        }
        _ => return false,
    }
    true
}

struct Scene {
    fs: TestFs,
    dir: PinDir,
    ours: Prog,
    theirs: Prog,
}

impl Scene {
    fn new(make: impl Fn() -> Prog) -> Self {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        // What the kernel knows of descriptors is asked once.
        dir.get::<bpf_pin::Object>("nothing").unwrap_err();
        let (ours, theirs) = (make(), make());
        Self {
            fs,
            dir,
            ours,
            theirs,
        }
    }

    fn attach(&self, spec: &LinkSpec<'_>) {
        let link = spec.create(&self.theirs).unwrap();
        self.dir.pin(&link, "link").unwrap();
    }

    /// Does something when the process is at its first such stop.
    fn go(
        &self,
        spec: &LinkSpec<'_>,
        is_it: impl Fn(&Stop) -> bool,
        faster: impl FnOnce(),
        expected: Attachment,
    ) {
        let ready = || PinDir::open(self.fs.root()).unwrap();
        let run = |dir: PinDir| match dir.open_or_attach("link", spec, &self.ours) {
            Ok(attached) if attached.attachment == expected => 0,
            other => {
                eprintln!("{other:?}");
                1
            }
        };
        let mut tracee = Tracee::fork(ready, run).unwrap();
        loop {
            let stop = tracee.next().unwrap().expect("such a stop");
            if is_it(&stop) {
                break;
            }
        }
        faster();
        assert_eq!(tracee.finish().unwrap(), 0);
        assert_eq!(self.fs.names(), ["link"]);
        let link = one_link(&self.dir, &[&self.ours, &self.theirs]);
        assert_eq!(link.info().unwrap().prog_id, self.ours.id().unwrap());
    }
}
