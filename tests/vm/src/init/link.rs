//! The port on which the host listens.

use guest::wire::Record;
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// The port, and the number of the next record.
#[derive(Debug)]
pub struct Link {
    path: PathBuf,
    inner: Mutex<(File, u64)>,
}

impl Link {
    /// Opens the port in raw mode: a line discipline would turn a newline into two bytes.
    pub fn open(tty: &str) -> Result<Self, String> {
        let path = Path::new("/dev").join(tty);
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let port = open_soon(&path).map_err(|error| at(&error))?;
        let mut termios = tcgetattr(&port).map_err(|error| at(&error))?;
        termios.make_raw();
        tcsetattr(&port, OptionalActions::Now, &termios).map_err(|error| at(&error))?;
        Ok(Self {
            path,
            inner: Mutex::new((port, 0)),
        })
    }

    /// Sends a record. A failure goes to the console, and the host notices the missing number.
    pub fn send(&self, record: &Record) {
        let mut inner = self.inner.lock().expect("no thread panics while it sends");
        let (port, number) = &mut *inner;
        if let Err(error) = port.write_all(record.encode(*number).as_bytes()) {
            println!("init: {}: {error}", self.path.display());
        }
        *number += 1;
    }

    /// Waits until the last byte is sent.
    pub fn drain(&self) -> Result<(), String> {
        let inner = self.inner.lock().expect("no thread panics while it sends");
        tcdrain(&inner.0).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// A virtio console may appear a moment after init has started.
fn open_soon(path: &Path) -> std::io::Result<File> {
    const STEP: Duration = Duration::from_millis(20);
    const STEPS: u32 = 500;
    let open = || File::options().read(true).write(true).open(path);
    for _ in 0..STEPS {
        if let Ok(port) = open() {
            return Ok(port);
        }
        std::thread::sleep(STEP);
    }
    open()
}
