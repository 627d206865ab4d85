//! Errors in words, for a person to read.

use std::fmt;

use crate::cause::Cause;
use crate::operation::MountOperation;
use crate::shown::Shown;

use super::Error;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, .. } => write!(f, "open {}", Shown(path.display())),
            Self::Pin { path, .. } => write!(f, "pin {}", Shown(path.display())),
            Self::Unpin { path, .. } => write!(f, "unpin {}", Shown(path.display())),
            Self::Directory {
                operation,
                path,
                to,
                ..
            } => operation.write(f, path, to.as_deref()),
            Self::Statfs { path, .. } => write!(f, "statfs {}", Shown(path.display())),
            Self::Fstatfs { .. } => f.write_str("fstatfs"),
            Self::Descriptor {
                expected: Some(kind),
                ..
            } => write!(f, "take a descriptor for a {kind}"),
            Self::Descriptor { expected: None, .. } => {
                f.write_str("take a descriptor for an object")
            }
            Self::ById { kind, id, .. } => write!(f, "open {kind} {id}"),
            Self::Clone { kind, .. } => write!(f, "clone the descriptor of a {kind}"),
            Self::Info { kind, .. } => write!(f, "read the info of a {kind}"),
            Self::CreateMap { map_type, name, .. } => named(f, "create", map_type, "map", name),
            Self::LoadProg {
                prog_type, name, ..
            } => named(f, "load", prog_type, "program", name),
            Self::CreateLink {
                attach_type,
                ifindex,
                ..
            } => {
                write!(f, "attach a program to {attach_type}")?;
                match ifindex {
                    0 => Ok(()),
                    _ => write!(f, " of device {ifindex}"),
                }
            }
            Self::ReplaceFunction {
                prog_id, btf_id, ..
            } => write!(f, "replace function {btf_id} of program {prog_id}"),
            Self::UpdateLink { id, .. } => numbered(f, "update", *id),
            Self::DetachLink { id, .. } => numbered(f, "detach", *id),
            Self::Elements { .. } => f.write_str("reach the elements of a map"),
            Self::Lookup { .. } => f.write_str("look up an element"),
            Self::Update { .. } => f.write_str("update an element"),
            Self::Delete { .. } => f.write_str("delete an element"),
            Self::NextKey { .. } => f.write_str("find the next key"),
            Self::LookupAndDelete { .. } => f.write_str("take an element out"),
            Self::Batch { command, done, .. } => write!(f, "{command} after {done} elements"),
            Self::Freeze { reason } if reason.cause() == Some(&Cause::Frozen) => {
                return f.write_str("freeze a map: it is frozen already");
            }
            Self::Freeze { .. } => f.write_str("freeze a map"),
            Self::Mmap { .. } => f.write_str("map the values of a map into memory"),
            Self::RunProg { .. } => f.write_str("run a program"),
            Self::NextId { kind, .. } => write!(f, "find the next {kind}"),
            Self::CreateIter { .. } => f.write_str("start an iterator"),
            Self::BindMap { .. } => f.write_str("bind a map to a program"),
            Self::LoadBtf { .. } => f.write_str("load BTF"),
            Self::BtfById { id, .. } => write!(f, "open BTF {id}"),
            Self::BtfInfo { .. } => f.write_str("read the info of BTF"),
            Self::Reuse { path, .. } => write!(f, "reuse {}", Shown(path.display())),
            Self::Migrate { path, error } if is_per_cpu(error) => {
                return write!(
                    f,
                    "migrate {}: a map has a value for each CPU: use Migrate::bytes",
                    Shown(path.display())
                );
            }
            // What failed has words of its own.
            Self::Migrate { path, error } => {
                return write!(f, "migrate {}: {error}", Shown(path.display()));
            }
            Self::Attach { path, error } => {
                return write!(f, "attach by {}: {error}", Shown(path.display()));
            }
            Self::Mount {
                operation, path, ..
            } => match path.as_os_str().is_empty() {
                true => operation.fmt(f),
                false => write!(f, "{operation} {}", Shown(path.display())),
            },
            Self::Token { operation, .. } => operation.fmt(f),
        }?;
        write!(f, ": {}", self.reason())?;
        match self {
            Self::LoadProg { log, .. } | Self::LoadBtf { log, .. } if !log.is_empty() => {
                write!(f, "; the verifier's last words:\n{}", last_lines(log, 24))
            }
            Self::Mount {
                operation: MountOperation::Mount | MountOperation::Attach,
                reason,
                ..
            } if matches!(reason.cause(), Some(Cause::Missing { .. })) => {
                f.write_str("; the directory must be made first")
            }
            // The commands that take one.
            Self::CreateMap { reason, .. } | Self::LoadProg { reason, .. }
                if reason.cause() == Some(&Cause::UserNamespace) =>
            {
                f.write_str("; from Linux 6.9 on a token serves: Token::create")
            }
            _ => Ok(()),
        }
    }
}

fn named(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    of_type: &dyn fmt::Display,
    kind: &str,
    name: &str,
) -> fmt::Result {
    write!(f, "{verb} {of_type} {kind}")?;
    if !name.is_empty() {
        write!(f, " {name:?}")?;
    }
    Ok(())
}

/// Which is for a view to say "use PerCpu" of.
fn is_per_cpu(error: &Error) -> bool {
    error.cause() == Some(&Cause::PerCpu { is_per_cpu: true })
}

fn numbered(f: &mut fmt::Formatter<'_>, verb: &str, id: u32) -> fmt::Result {
    match id {
        0 => write!(f, "{verb} a link"),
        _ => write!(f, "{verb} link {id}"),
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
