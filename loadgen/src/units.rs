//! Durations and sizes as people write them on a command line.

use std::time::Duration;

/// Reads `250ms`, `1.5s`, `2m` or `1h`.
///
/// # Errors
/// Says what was written and what is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let unit_ms = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return Err(format!("{text:?} is not a duration; write for example 250ms, 2s, 5m or 1h")),
    };
    match number.parse::<f64>() {
        Ok(value) if (0.0..1e9).contains(&value) => Ok(Duration::from_secs_f64(value * unit_ms / 1_000.0)),
        _ => Err(format!("{text:?} is not a duration; write for example 250ms, 2s, 5m or 1h")),
    }
}

/// Reads `65536`, `64KiB`, `1MiB` or `1GiB` as bytes.
///
/// # Errors
/// Says what was written and what is expected.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("{text:?} is not a size; write for example 65536, 64KiB or 1MiB")),
    };
    match number.parse::<usize>() {
        Ok(value) if value < 1 << 32 => Ok(value << shift),
        _ => Err(format!("{text:?} is not a size; write for example 65536, 64KiB or 1MiB")),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("100"), Ok(100));
        for wrong in ["", "5", "ms", "-1s", "1d", "1..2s"] {
            assert!(duration(wrong).is_err_and(|message| message.contains("write for example")), "{wrong}");
        }
        for wrong in ["", "MiB", "1.5MiB", "1MB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
