//! The guest's file systems and its network device.

use guest::plan::BPFFS;
use rustix::mount::{MountFlags, mount};
use std::ffi::{CStr, CString};
use std::fs::create_dir_all;
use std::io::Error;

/// Type, target, options. The bpffs is open to every user, and none is at `/sys/fs/bpf`.
const MOUNTS: [(&str, &str, &CStr); 8] = [
    ("proc", "/proc", c""),
    ("sysfs", "/sys", c""),
    ("securityfs", "/sys/kernel/security", c""),
    ("devtmpfs", "/dev", c"mode=755"),
    ("tmpfs", "/tmp", c"mode=1777"),
    ("tmpfs", "/run", c"mode=755"),
    ("cgroup2", "/sys/fs/cgroup", c""),
    ("bpf", BPFFS, c"mode=1777"),
];

/// Mounts all of them.
pub fn mount_all() -> Result<(), String> {
    for (kind, target, options) in MOUNTS {
        // The kernel makes the directories in sysfs.
        if !target.starts_with("/sys/") {
            create_dir_all(target).map_err(|error| format!("mkdir {target}: {error}"))?;
        }
        let path = CString::new(target).expect("no NUL in the table");
        mount(kind, &path, kind, MountFlags::empty(), options)
            .map_err(|error| format!("mount {kind} on {target}: {error}"))?;
    }
    Ok(())
}

/// `ip link set lo up`.
pub fn bring_lo_up() -> Result<(), String> {
    use std::os::fd::AsRawFd;
    // The interface ioctls work on any socket.
    let socket =
        std::net::UdpSocket::bind("0.0.0.0:0").map_err(|error| format!("socket: {error}"))?;
    // SAFETY: ifreq is integers and a union of such; all zeroes is one of its values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    // SAFETY: both requests take a pointer to an ifreq, which outlives the calls; SIOCGIFFLAGS writes the union's
    // flags, so reading them is reading what is there.
    let done = unsafe {
        let ioctl = |number, request: &mut libc::ifreq| {
            libc::ioctl(socket.as_raw_fd(), number, request) == 0
        };
        ioctl(libc::SIOCGIFFLAGS, &mut request) && {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            ioctl(libc::SIOCSIFFLAGS, &mut request)
        }
    };
    if done {
        Ok(())
    } else {
        Err(format!("lo: {}", Error::last_os_error()))
    }
}
