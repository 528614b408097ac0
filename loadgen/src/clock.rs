//! The one place where this crate reads the time of day. Waits and deadlines use tokio's clock.

/// Now, in Unix milliseconds.
pub fn unix_millis() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
