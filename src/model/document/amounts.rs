//! Numbers with units, as people write them: amounts of a metric, percents, durations.
//!
//! An amount without a unit is in base units. Cores, bytes and counts are Kubernetes quantities
//! (`100m`, `2Gi`, `3k`); seconds take `ms`, `s`, `m`, `h`; ratios take `%`. Where a text has two readings,
//! neither is taken: the fault shows both.

use std::fmt::Write;
use std::time::Duration;

use super::{Node, Value, shorten};
use crate::model::Amount;
use crate::model::policy::Unit;

/// Why a value is not what a field wants, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A stable name of this kind of fault.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub mend: String,
}

impl Fault {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Fault { code, message: message.into(), mend: mend.into() }
    }

    pub(crate) fn wrong_type(node: &Node, mend: impl Into<String>) -> Self {
        Fault::new("type", format!("{} does not fit here", node.describe()), mend)
    }
}

/// The suffixes of Kubernetes quantities with their factors as (numerator, denominator)
/// (`apimachinery/pkg/api/resource/suffix.go`).
const QUANTITY_SUFFIXES: [(&str, i128, i128); 16] = [
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("", 1, 1),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
];

/// The suffixes of times, in milliseconds, the largest first.
const TIME_SUFFIXES: [(&str, i128); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The largest amount, in base units: as of a sample.
const LARGEST: Amount = Amount::from_units(1_000_000_000_000_000_000);

/// The name of a unit, as the field `unit` has it.
pub(crate) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Cores => "cores",
        Unit::Ratio => "ratio",
        Unit::Count => "count",
    }
}

/// Reads an amount of `unit`; `None` where the unit was neither written nor known, and a plain count is taken.
///
/// # Errors
/// [`Fault`]: no amount, another unit's, two readings, negative, or more than 10¹⁸.
pub fn amount(node: &Node, unit: Option<Unit>) -> Result<Amount, Fault> {
    let read = match &node.value {
        Value::Number(text) => text.parse().map_err(|e| Fault::new("amount", format!("{} is {e}", shorten(text)), "write a smaller number"))?,
        Value::Text(text) => amount_of(text.trim(), unit)?,
        _ => return Err(Fault::wrong_type(node, "write an amount, as in `100`, `250m`, `2Gi` or `300ms`")),
    };
    if read < Amount::ZERO {
        return Err(Fault::new("amount", format!("{read} is negative"), "write an amount of 0 or more"));
    }
    if read > LARGEST {
        return Err(Fault::new("amount", "more than 10^18 base units", "write a smaller amount"));
    }
    Ok(read)
}

fn amount_of(text: &str, unit: Option<Unit>) -> Result<Amount, Fault> {
    let shown = shorten(text);
    if let Some(minutes) = text.strip_suffix('m').filter(|n| is_decimal(n))
        && matches!(unit, None | Some(Unit::Seconds | Unit::Ratio))
    {
        return Err(ambiguous(minutes, unit));
    }
    let (quantity, time, percent) = (quantity(text), time(text), percent(text));
    let wrong_unit = |is: &str, mend: String| {
        let has = unit.map_or_else(|| "it has no unit (it is a count)".to_owned(), |unit| format!("this metric's unit is {}", unit_name(unit)));
        Err(Fault::new("unit", format!("`{shown}` is {is}, but {has}"), mend))
    };
    match unit {
        Some(Unit::Seconds) => {
            if let Some(millis) = time {
                return Ok(Amount::from_nanos(millis));
            }
            if quantity.is_some() || percent.is_some() {
                return wrong_unit("no time", "write a time, as in `300ms` or `0.3`".into());
            }
        }
        Some(Unit::Ratio) => {
            if let Some(ratio) = percent {
                return Ok(ratio);
            }
            if quantity.is_some() || time.is_some() {
                return wrong_unit("no ratio", "write a ratio, as in `1%` or `0.01`".into());
            }
        }
        Some(Unit::Bytes) if text.strip_suffix(['m', 'u', 'n']).is_some_and(is_decimal) => {
            let upper = text.trim_end_matches(['m', 'u', 'n']);
            return Err(Fault::new("unit", format!("`{shown}` is a fraction of a byte"), format!("write `{upper}M` (10^6 bytes) or `{upper}Mi` (2^20 bytes)")));
        }
        Some(Unit::Bytes | Unit::Cores | Unit::Count) | None => {
            if let Some(amount) = quantity {
                return Ok(amount);
            }
            if time.is_some() {
                return wrong_unit("a time", "write `unit: seconds` on this metric, or a plain number".into());
            }
            if percent.is_some() {
                return wrong_unit("a percentage", "write `unit: ratio` on this metric, or a plain number; a share of the request is `utilization`".into());
            }
        }
    }
    Err(Fault::new("amount", format!("`{shown}` is no amount"), "write a number, with a unit where it needs one: `100`, `250m`, `2Gi`, `300ms`, `1%`"))
}

fn ambiguous(number: &str, unit: Option<Unit>) -> Fault {
    let read = number.parse::<Amount>().unwrap_or_default();
    let number = shorten(number);
    let minutes = Amount::from_nanos(read.as_nanos().saturating_mul(60));
    let thousandths = Amount::from_nanos(read.as_nanos() / 1000);
    let mend = match unit {
        Some(Unit::Seconds) => format!("write `{minutes}s` for the one, `{number}ms` for the other"),
        Some(Unit::Ratio) => "write a ratio, as in `1%` or `0.01`".to_owned(),
        _ => format!("write `unit: seconds` and `{minutes}s` for the one, `{thousandths}` for the other"),
    };
    Fault::new("ambiguous-unit", format!("`{number}m` could be {number} minutes ({minutes} seconds) or {number} thousandths ({thousandths})"), mend)
}

/// Digits with at most one point and nothing else.
fn is_decimal(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    !(whole.is_empty() && fraction.is_empty()) && whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
}

/// The decimal `number` times `numerator / denominator` (numerator at most 2⁶⁰), in 10⁻⁹; what is finer is rounded up. The unit is
/// applied before anything is rounded: `0.0000000001Ei` is 115 million.
fn scaled(number: &str, numerator: i128, denominator: i128) -> Option<i128> {
    const NANO: i128 = 10_i128.pow(9);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? };
    let whole = whole.checked_mul(numerator)?.checked_mul(NANO)?;
    // As nearly all are: nothing is divided.
    if fraction.is_empty() && denominator == 1 {
        return Some(whole);
    }
    let eighteen = |from: usize| (from..from + 18).fold(0_i128, |n, at| n * 10 + fraction.as_bytes().get(at).map_or(0, |digit| i128::from(digit - b'0')));
    // The first 18 digits in 10⁻¹⁸, the next in 10⁻³⁶ with what the first leave below 10⁻⁹: neither exceeds 128 bits.
    let first = eighteen(0) * numerator;
    let next = first % NANO * 10_i128.pow(18) + eighteen(18) * numerator;
    let nanos = whole.checked_add(first / NANO + next / 10_i128.pow(27))?;
    let finer = next % 10_i128.pow(27) != 0 || fraction.bytes().skip(36).any(|digit| digit != b'0') || nanos.rem_euclid(denominator) != 0;
    Some(nanos.div_euclid(denominator) + i128::from(finer))
}

/// A Kubernetes quantity; what is finer than 10⁻⁹ is rounded up, as Kubernetes does.
fn quantity(text: &str) -> Option<Amount> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    if !is_decimal(number) {
        return None;
    }
    let amount = if let Some((_, numerator, denominator)) = QUANTITY_SUFFIXES.iter().find(|(s, ..)| *s == suffix) {
        scaled(number, *numerator, *denominator)?
    } else if suffix.starts_with(['e', 'E']) {
        unsigned.parse::<Amount>().ok()?.as_nanos()
    } else {
        return None;
    };
    Some(Amount::from_nanos(if text.starts_with('-') { -amount } else { amount }))
}

/// `1%` as a ratio.
fn percent(text: &str) -> Option<Amount> {
    let number = text.strip_suffix('%')?.trim_end();
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    let nanos = is_decimal(unsigned).then(|| scaled(unsigned, 1, 100))??;
    Some(Amount::from_nanos(if number.starts_with('-') { -nanos } else { nanos }))
}

/// A time such as `1h30m` or `1.5s`, in 10⁻⁹ seconds: each unit at most once, the larger first.
fn time(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut nanos: i128 = 0;
    let mut smallest = i128::MAX;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (suffix, tail) = tail.split_at(end);
        let (_, millis) = TIME_SUFFIXES.iter().find(|(s, _)| *s == suffix)?;
        if *millis >= smallest || !is_decimal(number) {
            return None;
        }
        nanos = scaled(number, *millis, 1000)?.checked_add(nanos)?;
        smallest = *millis;
        rest = tail;
    }
    (smallest != i128::MAX).then_some(nanos)
}

/// Reads a duration of at most `most`. Here `5m` is five minutes; a bare number is no duration, but 0 is.
///
/// # Errors
/// [`Fault`]: no duration, finer than a millisecond, or longer than `most`.
pub fn duration(node: &Node, most: Duration) -> Result<Duration, Fault> {
    const EXAMPLE: &str = "write a duration, as in `500ms`, `30s`, `5m` or `1h30m`";
    let nanos = match &node.value {
        Value::Number(text) if text.parse() == Ok(Amount::ZERO) => 0,
        Value::Number(text) => {
            let shown = shorten(text);
            return Err(Fault::new("duration", format!("{shown} has no unit"), format!("write `{shown}s` if seconds were meant")));
        }
        Value::Text(text) => time(text.trim()).ok_or_else(|| Fault::new("duration", format!("{:?} is no duration", shorten(text)), EXAMPLE))?,
        _ => return Err(Fault::wrong_type(node, EXAMPLE)),
    };
    if nanos % 1_000_000 != 0 {
        return Err(Fault::new("duration", "finer than a millisecond", "write whole milliseconds"));
    }
    let millis = u64::try_from(nanos / 1_000_000).unwrap_or(u64::MAX);
    let read = Duration::from_millis(millis);
    if read > most {
        return Err(Fault::new(
            "limit",
            format!("{} is longer than {}", show_duration(read), show_duration(most)),
            format!("write at most `{}`", show_duration(most)),
        ));
    }
    Ok(read)
}

/// Reads a ratio from `70%` or `0.7`.
pub(crate) fn ratio(node: &Node) -> Result<f64, Fault> {
    amount(node, Some(Unit::Ratio)).map(Amount::as_f64)
}

/// Reads whole percent of at least 1, from `70%` only: `70` and `0.7` could both be meant by a bare number.
pub(crate) fn whole_percent(node: &Node) -> Result<u32, Fault> {
    let text = match &node.value {
        Value::Text(text) => text.trim(),
        Value::Number(text) => {
            let read = text.parse::<Amount>().unwrap_or_default();
            let hundredfold = Amount::from_nanos(read.as_nanos().saturating_mul(100));
            let whole: Vec<String> = [read, hundredfold].iter().filter(|a| a.as_nanos() % 1_000_000_000 == 0).map(|a| format!("`{a}%`")).collect();
            let mend = if whole.is_empty() { "write whole percent, as in `70%`".to_owned() } else { format!("write {}", whole.join(" or ")) };
            return Err(Fault::new("ambiguous-unit", format!("{} could be {read} percent or {hundredfold} percent", shorten(text)), mend));
        }
        _ => return Err(Fault::wrong_type(node, "write whole percent, as in `70%`")),
    };
    let number = text.strip_suffix('%').map(str::trim_end).and_then(|n| n.parse::<u32>().ok());
    match number {
        Some(percent) if (1..=1_000_000).contains(&percent) => Ok(percent),
        _ => Err(Fault::new("percent", format!("{:?} is not whole percent from 1% on", shorten(text)), "write whole percent, as in `70%`")),
    }
}

/// A duration as a person would write it; reading it again gives the same.
pub fn show_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (suffix, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if millis >= size {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}{suffix}", millis / size);
            millis %= size;
        }
    }
    out
}

/// An amount as a person would write it; reading it again under `unit` gives the same.
pub fn show_amount(amount: Amount, unit: Unit) -> String {
    let nanos = amount.as_nanos();
    match unit {
        Unit::Seconds if nanos % 1_000_000 == 0 => match u64::try_from(nanos / 1_000_000) {
            Ok(millis) if millis < 1000 || millis % 1000 != 0 => format!("{millis}ms"),
            Ok(millis) => format!("{}s", millis / 1000),
            Err(_) => amount.to_string(),
        },
        Unit::Ratio => format!("{}%", Amount::from_nanos(nanos * 100)),
        Unit::Bytes if nanos % 1_000_000_000 == 0 => {
            let bytes = nanos / 1_000_000_000;
            let found = [("Gi", 1_i128 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)].into_iter().find(|(_, size)| bytes != 0 && bytes % size == 0);
            found.map_or_else(|| amount.to_string(), |(suffix, size)| format!("{}{suffix}", bytes / size))
        }
        Unit::Cores if nanos % 1_000_000 == 0 && nanos < 1_000_000_000 && nanos != 0 => format!("{}m", nanos / 1_000_000),
        _ => amount.to_string(),
    }
}

/// A ratio as percent; reading it again gives the same.
pub(crate) fn show_ratio(ratio: f64) -> String {
    Amount::from_f64(ratio).map_or_else(|_| ratio.to_string(), |a| show_amount(a, Unit::Ratio))
}

#[cfg(test)]
mod tests;
