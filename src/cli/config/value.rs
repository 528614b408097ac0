//! Single values of the configuration: read with their unit, shown as they would be written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Units of time, the longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads the name of a host, without a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
    let port = text.rsplit_once(':').is_some_and(|(name, _)| !name.contains(':') && !name.is_empty());
    if text.is_empty() || !text.chars().all(plain) || port {
        return Err(format!("\"{text}\" is not the name of a host; write it without a port, as in loadline.example.com"));
    }
    Ok(text.to_ascii_lowercase())
}

/// Reads a duration such as `5s`, `250ms`, `1m` or `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("\"{text}\" is not a time; write a number with a unit (ms, s, m, h, d), as in 5s or 250ms");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("\"{text}\" has no unit; write {text}s or {text}ms"));
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let number: u64 = number.parse().map_err(|_| bad())?;
        total = number.checked_mul(*ms).and_then(|ms| total.checked_add(ms)).ok_or_else(bad)?;
        rest = next;
    }
    Ok(Duration::from_millis(total))
}

/// A duration within limits.
pub(super) fn duration_within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let value = duration(text)?;
    if value < least || value > most {
        return Err(format!("{text} is out of range; choose from {} to {}", show_duration(least), show_duration(most)));
    }
    Ok(value)
}

/// A duration as it is written.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut parts = Vec::new();
    for (unit, ms) in UNITS {
        if rest >= ms {
            parts.push(format!("{}{unit}", rest / ms));
            rest %= ms;
        }
    }
    parts.concat()
}

/// Reads whole percent, 0 to 100, with its sign.
pub(super) fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').ok_or_else(|| format!("\"{text}\" has no unit; write {text}%"))?;
    number.trim().parse().ok().filter(|n| *n <= 100).ok_or_else(|| format!("\"{text}\" is not a whole percentage from 0% to 100%"))
}

/// Reads a whole number within limits.
pub(super) fn whole(text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| format!("\"{text}\" is not a whole number from {least} to {most}"))
}

/// Units of size, the largest first.
const SIZES: [(&str, u64); 3] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)];

/// Reads a size such as `4GiB`, within limits.
pub(super) fn size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = SIZES.iter().find(|(name, _)| *name == unit.trim()).map(|(_, bytes)| *bytes);
    let size = unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    let size = size.ok_or_else(|| format!("\"{text}\" is not a size; write a whole number with a unit (MiB, GiB, TiB), as in 4GiB"))?;
    if size < least || size > most {
        return Err(format!("{text} is out of range; choose from {} to {}", show_size(least), show_size(most)));
    }
    Ok(size)
}

/// A size as it is written.
pub(super) fn show_size(size: u64) -> String {
    let (unit, bytes) = SIZES.into_iter().find(|(_, bytes)| size.is_multiple_of(*bytes)).unwrap_or(("B", 1));
    format!("{}{unit}", size / bytes)
}

/// Reads true or false.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

/// Reads an address; a port alone is one of loopback.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(SocketAddr::new(loopback, port));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok()) {
        return Ok(SocketAddr::new(loopback, port));
    }
    text.parse().map_err(|_| format!("\"{text}\" is not an address; write IP:PORT, as in 127.0.0.1:8080"))
}

/// Reads one of several words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, String> {
    words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        format!("\"{text}\" is none of {}", names.join(", "))
    })
}
