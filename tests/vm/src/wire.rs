//! The records that a guest sends, one a line: `NUMBER KIND PAYLOAD`.
//!
//! Everything but printable ASCII is escaped, so no output of a test can break a record. The records are numbered, so
//! a lost one is noticed.

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// With this exit status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Killed by init at its time limit.
    Late,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The guest is up; the kernel's release string.
    Boot(String),
    /// A phase begins.
    Phase(String),
    /// A phase that the kernel does not allow, and why.
    NoPhase(String, String),
    /// A program begins.
    Start(String),
    /// A piece of the program's standard output.
    Out(Vec<u8>),
    /// A piece of the program's standard error.
    Err(Vec<u8>),
    /// The program ended.
    Exit(Status),
    /// Init failed.
    Fault(String),
    /// Everything has run; the guest powers off.
    End,
}

impl Record {
    /// The record as a line, with its newline.
    #[must_use]
    pub fn encode(&self, number: u64) -> String {
        let (kind, payload) = match self {
            Self::Boot(release) => ("boot", escape(release.as_bytes())),
            Self::Phase(name) => ("phase", escape(name.as_bytes())),
            Self::NoPhase(name, why) => ("no-phase", format!("{name} {}", escape(why.as_bytes()))),
            Self::Start(name) => ("start", escape(name.as_bytes())),
            Self::Out(bytes) => ("out", escape(bytes)),
            Self::Err(bytes) => ("err", escape(bytes)),
            Self::Exit(Status::Code(code)) => ("exit", code.to_string()),
            Self::Exit(Status::Signal(signal)) => ("signal", signal.to_string()),
            Self::Exit(Status::Late) => ("late", String::new()),
            Self::Fault(why) => ("fault", escape(why.as_bytes())),
            Self::End => ("end", String::new()),
        };
        format!("{number} {kind} {payload}\n")
    }

    /// Reads a line's number and record; `None` for a line that [`encode`](Self::encode) did not write.
    #[must_use]
    pub fn decode(line: &str) -> Option<(u64, Self)> {
        let mut parts = line.strip_suffix('\n')?.splitn(3, ' ');
        let number = parts.next()?.parse().ok()?;
        let (kind, payload) = (parts.next()?, parts.next()?);
        let text = |escaped: &str| String::from_utf8(unescape(escaped)?).ok();
        let record = match kind {
            "boot" => Self::Boot(text(payload)?),
            "phase" => Self::Phase(text(payload)?),
            "no-phase" => {
                let (name, why) = payload.split_once(' ')?;
                Self::NoPhase(name.to_owned(), text(why)?)
            }
            "start" => Self::Start(text(payload)?),
            "out" => Self::Out(unescape(payload)?),
            "err" => Self::Err(unescape(payload)?),
            "exit" => Self::Exit(Status::Code(payload.parse().ok()?)),
            "signal" => Self::Exit(Status::Signal(payload.parse().ok()?)),
            "late" => Self::Exit(Status::Late),
            "fault" => Self::Fault(text(payload)?),
            "end" => Self::End,
            _ => return None,
        };
        Some((number, record))
    }
}

/// Keeps printable ASCII; a backslash and all else become `\xHH`.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' | 0..0x20 | 0x7f.. => text.push_str(&format!("\\x{byte:02x}")),
            _ => text.push(char::from(byte)),
        }
    }
    text
}

/// Undoes [`escape`].
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let digits = escaped.strip_prefix('x')?.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &escaped[3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_escaping() {
        let all: Vec<u8> = (0..=255).collect();
        let text = escape(&all);
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(unescape(&text), Some(all));
    }

    #[test]
    fn a_broken_escape_is_rejected() {
        for text in ["\\", "\\x", "\\x1", "\\y00", "\\xzz", "\\xé"] {
            assert_eq!(unescape(text), None, "{text:?}");
        }
    }

    #[test]
    fn records_survive_encoding() {
        let records = [
            Record::Boot("6.1.0-50-cloud-amd64".into()),
            Record::Phase("none/0".into()),
            Record::NoPhase("none/0".into(), "Operation not permitted".into()),
            Record::Start("bpf-pin-tests/pin".into()),
            Record::Out(b"a\r\nb\\ \xc3\xa9\0".to_vec()),
            Record::Err(vec![]),
            Record::Exit(Status::Code(101)),
            Record::Exit(Status::Signal(6)),
            Record::Exit(Status::Late),
            Record::Fault("mount: ENOENT".into()),
            Record::End,
        ];
        for (number, record) in (7..).zip(records) {
            let line = record.encode(number);
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(Record::decode(&line), Some((number, record)));
        }
    }

    #[test]
    fn a_partial_line_is_not_a_record() {
        for line in [
            "",
            "\n",
            "3 end",
            "3 end\n",
            "x end \n",
            "3 exit \n",
            "3 dance \n",
            "[    0.1] hello\n",
        ] {
            assert_eq!(Record::decode(line), None, "{line:?}");
        }
    }
}
