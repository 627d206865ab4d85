//! Counts in words.

/// "once", or "N times".
pub fn times(count: u64) -> String {
    match count {
        1 => "once".into(),
        _ => format!("{count} times"),
    }
}
