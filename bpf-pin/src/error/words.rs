//! Errors in words, for a person to read.

use std::fmt;

use super::escaped::escaped_path;
use super::{Cause, Error, Operation};

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, cause) = (self.operation(), self.cause());
        if let Some((around, path)) = &self.0.during {
            let (verb, _) = around.words();
            write!(f, "{verb} {}: ", escaped_path(path))?;
            // PerCpu is the remedy for a view only.
            if *around == Operation::Migrate
                && matches!(cause, Some(Cause::PerCpu { is_per_cpu: true }))
            {
                return f.write_str("a map has a value for each CPU: use Migrate::bytes");
            }
        }
        self.0.subject.write(operation, f)?;
        match self.0.elements_done {
            0 => {}
            1 => f.write_str(" after 1 element")?,
            done => write!(f, " after {done} elements")?,
        }
        if operation == Operation::Freeze && matches!(cause, Some(Cause::Frozen)) {
            return f.write_str(": the map is frozen already");
        }
        write!(f, ": {}", self.0.reason)?;
        match (operation, cause) {
            (Operation::MountBpffs | Operation::AttachBpffs, Some(Cause::Missing { .. })) => {
                f.write_str(": create the directory first")?;
            }
            // The commands that take one.
            (Operation::CreateMap | Operation::LoadProg, Some(Cause::UserNamespace)) => {
                f.write_str("; from Linux 6.9 a token allows it: Token::create")?;
            }
            _ => {}
        }
        match self.log() {
            Some(log) => write!(f, "; the verifier's log ends:\n{}", last_lines(log, 24)),
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
