//! The amounts that people write in a document: `500ms`, `5s`; `0.5`, `500m`, `64Mi`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::model::Amount;

/// A duration, written with its unit: `250ms`, `5s`, `2m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// An amount of cores or bytes, written as a Kubernetes quantity: `2`, `0.5`, `500m`, `64Mi`, `1G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity(pub(crate) Amount);

/// Reads a duration with its unit.
fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let mend = || format!("duration \"{text}\" is not a whole number with a unit, as in 250ms, 5s, 2m or 1h");
    let number: u64 = number.parse().map_err(|_| mend())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(mend()),
    };
    // A year is beyond anything that is meant here, and keeps all sums of durations small.
    number
        .checked_mul(unit_ms)
        .filter(|ms| *ms <= 366 * 24 * 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("duration \"{text}\" is longer than a year"))
}

/// Reads a Kubernetes quantity that is not negative.
fn parse_quantity(text: &str) -> Result<Amount, String> {
    let mend = || format!("quantity \"{text}\" is not a number, alone or with one of m, k, M, G, T, Ki, Mi, Gi, Ti, as in 0.5, 500m or 64Mi");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: Amount = number.parse().map_err(|_| mend())?;
    let nanos = number.as_nanos();
    let scaled = match suffix {
        "" => Some(nanos),
        "m" => Some(nanos / 1000),
        "k" => nanos.checked_mul(1000),
        "M" => nanos.checked_mul(1_000_000),
        "G" => nanos.checked_mul(1_000_000_000),
        "T" => nanos.checked_mul(1_000_000_000_000),
        "Ki" => nanos.checked_mul(1 << 10),
        "Mi" => nanos.checked_mul(1 << 20),
        "Gi" => nanos.checked_mul(1 << 30),
        "Ti" => nanos.checked_mul(1 << 40),
        _ => return Err(mend()),
    };
    scaled
        .map(Amount::from_nanos)
        .filter(|amount| *amount <= Amount::from_units(1_000_000_000_000_000_000))
        .ok_or_else(|| format!("quantity \"{text}\" is larger than 10^18"))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map(Span).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity, as in 0.5, 500m or 64Mi")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
                parse_quantity(text).map(Quantity).map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_their_unit() {
        for (text, ms) in [("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["5", "", "s", "1.5s", "-1s", "5 s", "5d", "99999999999999h"] {
            assert!(parse_span(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, nanos) in [
            ("0.5", 500_000_000),
            ("500m", 500_000_000),
            ("2", 2_000_000_000),
            ("1k", 1_000 * 1_000_000_000),
            ("64Mi", 64 * 1024 * 1024 * 1_000_000_000),
            ("1.5Gi", 3 * 512 * 1024 * 1024 * 1_000_000_000),
        ] {
            assert_eq!(parse_quantity(text), Ok(Amount::from_nanos(nanos)), "{text}");
        }
        for text in ["", "m", "-1", "1 Gi", "1Mb", "x", "1000000000000T", "."] {
            assert!(parse_quantity(text).is_err(), "{text}");
        }
    }
}
