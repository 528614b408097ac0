//! Numbers with units.
//!
//! The first byte chooses the unit of the metric, the rest is what was written. What is read is held against a reading that is
//! simple enough to be right by itself: the number as a double, times its unit.

use std::time::Duration;

use loadline::model::document::amounts::{self, Fault, show_amount, show_duration};
use loadline::model::document::{Node, Value};
use loadline::model::policy::Unit;
use loadline::model::{Amount, AmountError};

const UNITS: [Option<Unit>; 6] = [Some(Unit::Seconds), Some(Unit::Bytes), Some(Unit::Cores), Some(Unit::Ratio), Some(Unit::Count), None];

/// The suffixes of amounts with their factors, for each unit.
const QUANTITIES: [(&str, f64); 16] = [
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("", 1.0),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];
const TIMES: [(&str, f64); 5] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)];
const RATIOS: [(&str, f64); 2] = [("%", 0.01), ("", 1.0)];

/// Every reader of a number.
pub fn check(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    plain(text);
    with_unit(text, UNITS[usize::from(*first) % UNITS.len()]);
    duration(text);
}

/// A plain decimal: exact to its ninth place, or an error; what is shown reads the same.
fn plain(text: &str) {
    let read = text.parse::<Amount>();
    match read {
        Ok(amount) => {
            assert_eq!(amount.to_string().parse(), Ok(amount), "{text}");
            assert_eq!(Some(amount.as_nanos()), in_nanos(text), "{text}");
        }
        Err(AmountError::OutOfRange) => assert_eq!(in_nanos(text), None, "{text} fits"),
        Err(error) => super::said(&error.to_string()),
    }
    if let Ok(of_json) = serde_json::from_str::<Amount>(text) {
        assert_eq!(Ok(of_json), text.trim().parse());
    }
    if let Ok(double) = text.parse::<f64>()
        && let Ok(amount) = Amount::from_f64(double)
    {
        assert!((amount.as_f64() - double).abs() <= 1e-9 + double.abs() * 1e-15, "{double} became {amount}");
    }
}

/// A decimal in nanos, digits beyond cut off, by shifting its digits; `None` where it does not fit or is no decimal.
fn in_nanos(text: &str) -> Option<i128> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, digits) = match mantissa.as_bytes().first()? {
        b'-' => (-1, &mantissa[1..]),
        b'+' => (1, &mantissa[1..]),
        _ => (1, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let point = whole.len() as i64 + exponent.parse::<i64>().ok()? + 9;
    // Where the point stands now, seen from the first digit that is not 0.
    let zeros = all.len() - all.trim_start_matches('0').len();
    let (all, point) = (&all[zeros..], point - zeros as i64);
    if all.is_empty() || point <= 0 {
        return Some(0);
    }
    let kept = &all[..all.len().min(usize::try_from(point).ok()?)];
    let missing = usize::try_from(point).ok()? - kept.len();
    if kept.len() + missing > 40 {
        return None;
    }
    let shifted = format!("{kept}{}", "0".repeat(missing));
    shifted.parse::<i128>().ok().map(|nanos| nanos * sign)
}

/// An amount of a policy: as it is written to the resolution of 10⁻⁹, or a fault; what is shown reads the same.
fn with_unit(text: &str, unit: Option<Unit>) {
    let read = match amounts::amount(&quoted(text), unit) {
        Ok(read) => read,
        Err(fault) => return told(&fault),
    };
    assert!(read >= Amount::ZERO);
    let units: &[(&str, f64)] = match unit {
        Some(Unit::Seconds) => &TIMES,
        Some(Unit::Ratio) => &RATIOS,
        _ => &QUANTITIES,
    };
    if let Some(expected) = units.iter().find_map(|(suffix, factor)| Some(number(text.trim().strip_suffix(suffix)?.trim_end())? * factor)) {
        assert!((read.as_f64() - expected).abs() <= 2e-9 + expected.abs() * 1e-12, "{text:?} of {unit:?} became {read}, not {expected}");
    }
    let shown = show_amount(read, unit.unwrap_or_default());
    assert_eq!(amounts::amount(&bare(&shown), unit), Ok(read), "{text:?} of {unit:?} is shown as {shown:?}");
}

/// A duration: as it is written, in whole milliseconds, or a fault; what is shown reads the same.
fn duration(text: &str) {
    const MOST: Duration = Duration::from_secs(86_400);
    let read = match amounts::duration(&quoted(text), MOST) {
        Ok(read) => read,
        Err(fault) => return told(&fault),
    };
    assert!(read <= MOST);
    if let Some(expected) = TIMES[..4].iter().find_map(|(suffix, factor)| Some(number(text.trim().strip_suffix(suffix)?)? * factor)) {
        assert!((read.as_secs_f64() - expected).abs() <= 1e-9, "{text:?} became {read:?}");
    }
    let shown = show_duration(read);
    assert_eq!(amounts::duration(&bare(&shown), MOST), Ok(read), "{text:?} is shown as {shown:?}");
}

fn told(fault: &Fault) {
    super::said(&fault.message);
    super::said(&fault.mend);
}

/// Digits with at most one point, and a sign.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.bytes().all(|b| b.is_ascii_digit() || b == b'.').then(|| text.parse().ok())?
}

fn quoted(text: &str) -> Node {
    Node::bare(Value::Text(text.to_owned()))
}

/// A scalar as YAML reads it without quotes.
fn bare(text: &str) -> Node {
    let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    Node::bare(if number { Value::Number(text.to_owned()) } else { Value::Text(text.to_owned()) })
}
