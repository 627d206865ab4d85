//! Text for a terminal.

use std::fmt::{self, Write as _};
use std::path::{Display, Path};

/// Displays a value with control characters, and characters that change the order of letters, escaped as
/// in a string of Rust. Paths and names may contain them.
pub(crate) struct Escaped<T>(pub(crate) T);

pub(crate) fn escaped_path(path: &Path) -> Escaped<Display<'_>> {
    Escaped(path.display())
}

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Filter(f), "{}", self.0)
    }
}

struct Filter<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Filter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match is_escaped(c) {
                true => write!(self.0, "{}", c.escape_debug())?,
                false => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn is_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn escaped_text_stays_on_its_line_and_in_its_order() {
        for (text, expected) in [
            ("/sys/fs/bpf/flows", "/sys/fs/bpf/flows"),
            ("/a b/ü/c'\"", "/a b/ü/c'\""),
            ("/a\nb\t", "/a\\nb\\t"),
            ("/\u{1b}[2J", "/\\u{1b}[2J"),
            ("\0\u{7f}\u{9b}", "\\0\\u{7f}\\u{9b}"),
            ("/\u{202e}txt\u{2066}", "/\\u{202e}txt\\u{2066}"),
            ("", ""),
        ] {
            assert_eq!(Escaped(text).to_string(), expected);
            assert_eq!(escaped_path(Path::new(text)).to_string(), expected);
        }
        let bytes = Path::new(OsStr::from_bytes(b"/\xff\x1b"));
        assert_eq!(escaped_path(bytes).to_string(), "/\u{fffd}\\u{1b}");
    }
}
