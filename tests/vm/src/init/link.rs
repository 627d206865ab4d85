//! The second serial port, on which the host listens.

use guest::wire::Record;
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::Write;
use std::sync::Mutex;

const PORT: &str = "/dev/ttyS1";

/// The port, and the number of the next record.
#[derive(Debug)]
pub struct Link(Mutex<(File, u64)>);

impl Link {
    /// Opens the port, raw: a line discipline would turn a newline into two bytes.
    pub fn open() -> Result<Self, String> {
        let at = |error: &dyn std::fmt::Display| format!("{PORT}: {error}");
        let port = File::options()
            .read(true)
            .write(true)
            .open(PORT)
            .map_err(|error| at(&error))?;
        let mut termios = tcgetattr(&port).map_err(|error| at(&error))?;
        termios.make_raw();
        tcsetattr(&port, OptionalActions::Now, &termios).map_err(|error| at(&error))?;
        Ok(Self(Mutex::new((port, 0))))
    }

    /// Sends a record. Where that fails there is nobody to tell but the console: the host notices the gap.
    pub fn send(&self, record: &Record) {
        let mut inner = self.0.lock().expect("no thread panics while it sends");
        let (port, number) = &mut *inner;
        if let Err(error) = port.write_all(record.encode(*number).as_bytes()) {
            println!("init: {PORT}: {error}");
        }
        *number += 1;
    }

    /// Waits until the last byte has left.
    pub fn drain(&self) -> Result<(), String> {
        let inner = self.0.lock().expect("no thread panics while it sends");
        tcdrain(&inner.0).map_err(|error| format!("{PORT}: {error}"))
    }
}
