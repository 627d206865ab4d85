//! The targets: what each is built with, which kernels it boots, and how QEMU is started for it.

use std::path::Path;
use std::process::Command;

/// A target of rustc, and the machine that runs it.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub triple: &'static str,
    /// The first part of the triple, which names the machine in tables.
    pub name: &'static str,
    /// Debian's name of the architecture.
    pub debian: &'static str,
    /// The architecture of the kernel, which may be wider than the target's.
    pub kernel: &'static Platform,
    /// The kernels that are booted by default.
    pub slots: &'static [&'static str],
    /// GCC's name of the target, as in `aarch64-linux-gnu-gcc`; none for this machine's own.
    pub gnu: Option<&'static str>,
}

/// How kernels of an architecture are found and booted.
#[derive(Debug, PartialEq, Eq)]
pub struct Platform {
    pub debian: &'static str,
    /// A package name ends with this.
    pub flavour: &'static str,
    pub qemu: &'static str,
    pub qemu_package: &'static str,
    /// The machine and its processor. The x86 processor depends on the kernel.
    pub machine: &'static [&'static str],
    /// Devices for the character devices `console` and `records`.
    pub devices: &'static [&'static str],
    /// Features that the kernels are built without, or have as modules, which a guest does not load; a test may be
    /// skipped for them.
    pub lacks: &'static [&'static str],
    /// The console's name under `/dev` in the guest, and the one of the records.
    pub ttys: [&'static str; 2],
}

/// The slot that is no guest: this machine's own kernel.
pub const HOST: &str = "host";

const AMD64: Platform = Platform {
    debian: "amd64",
    // Cloud images have what a virtual machine needs built in.
    flavour: "cloud-amd64",
    qemu: "qemu-system-x86_64",
    qemu_package: "qemu-system-x86",
    machine: &[],
    devices: &["-serial", "chardev:console", "-serial", "chardev:records"],
    lacks: &["veth"],
    ttys: ["ttyS0", "ttyS1"],
};

/// One serial port, and a console on virtio for the records.
const VIRTIO_PCI: &[&str] = &[
    "-serial",
    "chardev:console",
    "-device",
    "virtio-serial-pci",
    "-device",
    "virtconsole,chardev=records",
];

const ARM64: Platform = Platform {
    debian: "arm64",
    flavour: "cloud-arm64",
    qemu: "qemu-system-aarch64",
    qemu_package: "qemu-system-arm",
    // Without pauth-impdef the emulator computes a cipher at every call.
    machine: &["-M", "virt", "-cpu", "max,pauth-impdef=on"],
    devices: VIRTIO_PCI,
    lacks: &["kprobe_multi", "veth"],
    ttys: ["ttyAMA0", "hvc0"],
};

const ARMHF: Platform = Platform {
    debian: "armhf",
    flavour: "armmp-lpae",
    qemu: "qemu-system-arm",
    qemu_package: "qemu-system-arm",
    machine: &["-M", "virt", "-cpu", "max"],
    devices: VIRTIO_PCI,
    lacks: &[
        "BTF",
        "arena",
        "BPF LSM",
        "struct_ops",
        "kprobe_multi",
        "trampolines",
        "veth",
    ],
    ttys: ["ttyAMA0", "hvc0"],
};

const S390X: Platform = Platform {
    debian: "s390x",
    flavour: "s390x",
    qemu: "qemu-system-s390x",
    qemu_package: "qemu-system-misc",
    machine: &["-M", "s390-ccw-virtio", "-cpu", "max"],
    devices: &[
        "-device",
        "sclpconsole,chardev=console",
        "-device",
        "virtio-serial-ccw",
        "-device",
        "virtconsole,chardev=records",
    ],
    lacks: &[
        "JIT",
        "BPF LSM",
        "struct_ops",
        "trampolines",
        "arena",
        "kprobe_multi",
        "veth",
    ],
    ttys: ["ttysclp0", "hvc0"],
};

const RISCV64: Platform = Platform {
    debian: "riscv64",
    flavour: "riscv64",
    qemu: "qemu-system-riscv64",
    qemu_package: "qemu-system-misc",
    machine: &["-M", "virt", "-cpu", "max"],
    devices: VIRTIO_PCI,
    lacks: &["veth"],
    ttys: ["ttyS0", "hvc0"],
};

const PPC64EL: Platform = Platform {
    debian: "ppc64el",
    flavour: "powerpc64le",
    qemu: "qemu-system-ppc64",
    qemu_package: "qemu-system-ppc",
    machine: &["-M", "pseries", "-cpu", "power9"],
    devices: &[
        "-serial",
        "chardev:console",
        "-device",
        "spapr-vty,chardev=records,reg=0x71000100",
    ],
    lacks: &["veth"],
    ttys: ["hvc0", "hvc1"],
};

/// How many of the targets `--target all` means; the others have no kernel that boots in reasonable time.
pub const DEFAULT: usize = 5;

/// All targets, this machine's own first.
pub const TARGETS: [Target; 7] = [
    Target {
        triple: "x86_64-unknown-linux-gnu",
        name: "x86_64",
        debian: "amd64",
        kernel: &AMD64,
        slots: &["5.10", "6.1", "6.12", "6.18", "newest"],
        gnu: None,
    },
    Target {
        triple: "aarch64-unknown-linux-gnu",
        name: "aarch64",
        debian: "arm64",
        kernel: &ARM64,
        slots: &["6.12"],
        gnu: Some("aarch64-linux-gnu"),
    },
    Target {
        triple: "s390x-unknown-linux-gnu",
        name: "s390x",
        debian: "s390x",
        kernel: &S390X,
        slots: &["6.12"],
        gnu: Some("s390x-linux-gnu"),
    },
    Target {
        triple: "armv7-unknown-linux-gnueabihf",
        name: "armv7",
        debian: "armhf",
        kernel: &ARMHF,
        slots: &["6.12"],
        gnu: Some("arm-linux-gnueabihf"),
    },
    Target {
        triple: "i686-unknown-linux-gnu",
        name: "i686",
        debian: "i386",
        kernel: &AMD64,
        slots: &[HOST, "6.12"],
        gnu: Some("i686-linux-gnu"),
    },
    Target {
        triple: "riscv64gc-unknown-linux-gnu",
        name: "riscv64gc",
        debian: "riscv64",
        kernel: &RISCV64,
        slots: &["6.12"],
        gnu: Some("riscv64-linux-gnu"),
    },
    Target {
        triple: "powerpc64le-unknown-linux-gnu",
        name: "powerpc64le",
        debian: "ppc64el",
        kernel: &PPC64EL,
        slots: &["6.12"],
        gnu: Some("powerpc64le-linux-gnu"),
    },
];

/// This machine's own target.
pub const OWN: &Target = &TARGETS[0];

/// The target of that triple.
pub fn find(triple: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.triple == triple)
}

impl Target {
    /// True if this machine's processor runs the target's programs.
    pub fn is_native(&self) -> bool {
        self.kernel.debian == OWN.kernel.debian
    }

    /// The linker, if it is not the default one.
    pub fn linker(&self) -> Option<String> {
        self.gnu.map(|gnu| format!("{gnu}-gcc"))
    }

    /// Checks for the programs that building and booting need; one sentence names everything that is missing.
    pub fn check(&self, links: bool, boots: bool) -> Result<(), String> {
        let (mut missing, mut packages) = (vec![], vec![]);
        if let (Some(gnu), Some(linker), true) = (self.gnu, self.linker(), links) {
            if !runs(&linker) {
                missing.push(linker);
                packages.push(format!("gcc-{}", gnu));
            }
            let libc = format!("/usr/{gnu}/lib/libc.a");
            if !Path::new(&libc).exists() {
                missing.push(libc);
                packages.push(format!("libc6-dev-{}-cross", self.debian));
            }
        }
        if boots && !runs(self.kernel.qemu) {
            missing.push(self.kernel.qemu.to_owned());
            packages.push(self.kernel.qemu_package.to_owned());
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} needs {}; run: apt-get install {}",
            self.triple,
            missing.join(" and "),
            packages.join(" ")
        ))
    }
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_are_found_and_name_their_machine() {
        for target in &TARGETS {
            assert_eq!(find(target.triple), Some(target));
            assert_eq!(target.triple.split('-').next(), Some(target.name));
        }
        assert_eq!(find("avr-none"), None);
        assert!(OWN.is_native() && OWN.linker().is_none());
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        static NONE: Platform = Platform {
            qemu: "qemu-system-none",
            qemu_package: "qemu-none",
            ..AMD64
        };
        let target = Target {
            triple: "none",
            name: "none",
            debian: "none",
            kernel: &NONE,
            slots: &[],
            gnu: Some("none-linux-gnu"),
        };
        let error = target.check(true, true).unwrap_err();
        let packages = "apt-get install gcc-none-linux-gnu libc6-dev-none-cross qemu-none";
        assert!(error.ends_with(packages), "{error}");
        assert_eq!(target.check(false, false), Ok(()));
    }
}
