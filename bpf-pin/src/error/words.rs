//! Errors in words, for a person to read.

use std::fmt;

use crate::cause::Cause;
use crate::shown::Shown;

use super::{Error, Operation};

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, cause) = (self.operation(), self.cause());
        if let Some((around, path)) = &self.0.during {
            let (verb, _) = around.words();
            write!(f, "{verb} {}: ", Shown(path.display()))?;
            // Which is for a view to say "use PerCpu" of.
            if *around == Operation::Migrate && cause == Some(&Cause::PerCpu { is_per_cpu: true }) {
                return f.write_str("a map has a value for each CPU: use Migrate::bytes");
            }
        }
        self.0.subject.write(operation, f)?;
        if operation.is_batch() {
            write!(f, " after {} elements", self.0.elements_done)?;
        }
        if operation == Operation::Freeze && cause == Some(&Cause::Frozen) {
            return f.write_str(": it is frozen already");
        }
        write!(f, ": {}", self.0.reason)?;
        match (operation, cause) {
            (Operation::MountBpffs | Operation::AttachBpffs, Some(Cause::Missing { .. })) => {
                f.write_str("; the directory must be made first")?;
            }
            // The commands that take one.
            (Operation::CreateMap | Operation::LoadProg, Some(Cause::UserNamespace)) => {
                f.write_str("; from Linux 6.9 on a token serves: Token::create")?;
            }
            _ => {}
        }
        match self.log() {
            Some(log) => write!(f, "; the verifier's last words:\n{}", last_lines(log, 24)),
            None => Ok(()),
        }
    }
}

/// The sentence, so that a `main` that returns the error shows it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn last_lines(text: &str, count: usize) -> &str {
    let text = text.trim_end();
    let cut = text.rmatch_indices('\n').nth(count - 1);
    cut.map_or(text, |(at, _)| &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_of_a_log() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a\nb\n", 2), "a\nb");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
