//! The compact notation of series, as `promtool test rules` has it, with units.
//!
//! | written | values |
//! |---|---|
//! | `5` | one |
//! | `5x3` | 5 5 5 5: it, and three more |
//! | `5+2x3`, `5-2x2` | 5 7 9 11; 5 3 1: each step so much more, or less |
//! | `_`, `_x3` | nothing is sent: once; three times |
//! | `stale` | nothing is sent (Loadline has no marker that ends a series; values grow old) |
//! | `error` | the source fails, and says so |
//! | `idle` | a Histogram is sent, and nothing was observed |
//! | `NaN`, `Inf`, `-Inf` | sent, and refused |
//!
//! Values are in the unit of the metric, as a policy has them: `200ms+50msx10`, `1Gi x 3` without the blanks.

use crate::model::document::amounts::{self, Fault};
use crate::model::document::{Node, Value, shorten};
use crate::model::policy::Unit;
use crate::model::{Amount, Kind};

/// The most values of a series.
const MOST: usize = 20_000;

/// One value of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Point {
    /// A value.
    Value(Amount),
    /// What is no number.
    NonFinite(f64),
    /// Nothing is sent.
    Nothing,
    /// The source fails.
    Fails,
    /// Sent, with nothing observed.
    Idle,
}

/// What is wrong with a text, at which of its characters, and how many of them it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The first character, from 0.
    pub(super) at: usize,
    /// How many characters.
    pub(super) length: usize,
    /// What is wrong.
    pub(super) fault: Fault,
}

/// Reads the values of a metric with this unit and kind.
pub(super) fn read(text: &str, unit: Unit, kind: Kind) -> Result<Vec<Point>, Wrong> {
    let mut points = Vec::new();
    let mut at = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let token = word.trim_end();
        let length = token.chars().count();
        if length > 0 {
            let wrong = |fault| Wrong { at, length, fault };
            points.extend(one(token, unit, kind).map_err(wrong)?);
            if points.len() > MOST {
                let fault = Fault::new("limit", format!("more than {MOST} values"), "write fewer, or a longer `every`");
                return Err(wrong(fault));
            }
        }
        at += word.chars().count();
    }
    if points.is_empty() {
        return Err(Wrong { at: 0, length: 1, fault: Fault::new("empty", "there is no value", "write some, as in `100x10 200+20x5`") });
    }
    Ok(points)
}

fn one(token: &str, unit: Unit, kind: Kind) -> Result<Vec<Point>, Fault> {
    if token.starts_with("{{") {
        let mend = "write what is observed, as in `values: 200msx10`, with `kind: Histogram`";
        return Err(Fault::new("notation", "native histograms are not taken", mend));
    }
    // A count of repetitions stands behind the last `x`.
    let (value, times) = match token.rsplit_once('x') {
        Some((value, times)) => {
            let times = times.parse::<usize>().ok().filter(|times| *times <= MOST);
            let mend = || format!("write how often after the x, at most {MOST}, as in `5x10`");
            (value, Some(times.ok_or_else(|| Fault::new("notation", format!("{:?} is no value", shorten(token)), mend()))?))
        }
        None => (token, None),
    };
    let repeated = |point: Point| vec![point; times.map_or(1, |times| times + 1)];
    match value {
        // As in promtool: a gap is as long as it says, a value is there once more.
        "_" | "stale" => return Ok(vec![Point::Nothing; times.unwrap_or(1)]),
        "error" => return Ok(vec![Point::Fails; times.unwrap_or(1)]),
        "idle" if matches!(kind, Kind::Histogram) => return Ok(vec![Point::Idle; times.unwrap_or(1)]),
        "idle" => {
            let mend = "write `_` where nothing is sent; only a Histogram can say that nothing was observed";
            return Err(Fault::new("notation", "`idle` is a value of a Histogram", mend));
        }
        "NaN" => return Ok(repeated(Point::NonFinite(f64::NAN))),
        "Inf" | "+Inf" => return Ok(repeated(Point::NonFinite(f64::INFINITY))),
        "-Inf" => return Ok(repeated(Point::NonFinite(f64::NEG_INFINITY))),
        _ => {}
    }
    let Some((first, step, times)) = times.and_then(|times| step_of(value).map(|(first, step)| (first, step, times))) else {
        return if times.is_none() && step_of(value).is_some() {
            Err(Fault::new("notation", format!("{:?} does not say how often", shorten(token)), format!("write `{token}x10` for ten steps")))
        } else {
            Ok(repeated(Point::Value(amount(value, unit)?)))
        };
    };
    let (first, step) = (amount(first, unit)?.as_nanos(), amount(step, unit)?.as_nanos());
    let nth = |n: usize| i128::try_from(n).ok().and_then(|n| step.checked_mul(n)).and_then(|more| first.checked_add(more));
    let value = |n: usize| nth(n).map(|nanos| Point::Value(Amount::from_nanos(nanos)));
    (0..=times).map(value).collect::<Option<_>>().ok_or_else(|| Fault::new("range", format!("{:?} grows too large", shorten(token)), "write smaller numbers"))
}

/// `5+2` as `5` and `+2`: at the first sign that does not begin the text or an exponent.
fn step_of(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let is_step = |i: &usize| matches!(bytes[*i], b'+' | b'-') && !(matches!(bytes[i - 1], b'e' | b'E') && *i >= 2 && bytes[i - 2].is_ascii_digit());
    (1..bytes.len()).find(is_step).map(|i| text.split_at(i))
}

/// An amount with its sign.
fn amount(text: &str, unit: Unit) -> Result<Amount, Fault> {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_number = magnitude.parse::<Amount>().is_ok();
    let value = if is_number { Value::Number(magnitude.to_owned()) } else { Value::Text(magnitude.to_owned()) };
    let read = amounts::amount(&Node::bare(value), Some(unit)).map_err(|fault| match fault.code {
        "amount" => {
            let mend = "write values as in `100`, `100x10`, `100+20x5`, `300ms`, `_`, `stale` or `error`, with blanks between them";
            Fault::new("notation", format!("{:?} is no value", shorten(text)), mend)
        }
        _ => fault,
    })?;
    Ok(if negative { -read } else { read })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str, unit: Unit) -> String {
        let show = |point: &Point| match point {
            Point::Value(amount) => amount.to_string(),
            other => format!("{other:?}"),
        };
        read(text, unit, Kind::Histogram).unwrap().iter().map(show).collect::<Vec<_>>().join(" ")
    }

    /// The rows of promtool's own documentation, and ours.
    #[test]
    fn series_are_read_as_promtool_reads_them() {
        for (text, unit, expected) in [
            ("0", Unit::Count, "0"),
            ("-2+4x3", Unit::Count, "-2 2 6 10"),
            (" 1-2x4", Unit::Count, "1 -1 -3 -5 -7"),
            ("1x4", Unit::Count, "1 1 1 1 1"),
            ("1 _x3 stale", Unit::Count, "1 Nothing Nothing Nothing Nothing"),
            ("1 _ 5.5", Unit::Count, "1 Nothing 5.5"),
            ("1e3+1e1x1 2E-1x0", Unit::Count, "1000 1010 0.2"),
            ("200ms+50msx2", Unit::Seconds, "0.2 0.25 0.3"),
            ("1Ki+1Kix1", Unit::Bytes, "1024 2048"),
            ("70%x1", Unit::Ratio, "0.7 0.7"),
            ("error idle", Unit::Count, "Fails Idle"),
            ("NaN -Inf", Unit::Count, "NonFinite(NaN) NonFinite(-inf)"),
        ] {
            assert_eq!(values(text, unit), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_name_their_place() {
        for (text, kind, at, length, says) in [
            ("1 2 abc", Kind::Gauge, 4, 3, "\"abc\" is no value"),
            ("1+2", Kind::Gauge, 0, 3, "does not say how often"),
            ("1 5x", Kind::Gauge, 2, 2, "is no value"),
            ("1 {{schema:1}}", Kind::Gauge, 2, 12, "native histograms"),
            ("1x99999999", Kind::Gauge, 0, 10, "is no value"),
            ("1x15000 1x15000", Kind::Gauge, 8, 7, "more than 20000 values"),
            ("idle", Kind::Gauge, 0, 4, "a value of a Histogram"),
            ("1 300ms", Kind::Gauge, 2, 5, "a time"),
            ("", Kind::Gauge, 0, 1, "no value"),
        ] {
            let wrong = read(text, Unit::Count, kind).unwrap_err();
            assert_eq!((wrong.at, wrong.length), (at, length), "{text}: {wrong:?}");
            assert!(wrong.fault.message.contains(says), "{text}: {}", wrong.fault.message);
        }
    }

    proptest! {
        /// Whatever is written: values, or a place within the text.
        #[test]
        fn no_text_panics_and_a_mistake_has_its_place(text in "[-+0-9xe._ %a-zA-Zµ{}\t]{0,40}") {
            for unit in [Unit::Count, Unit::Seconds, Unit::Bytes, Unit::Ratio] {
                if let Err(wrong) = read(&text, unit, Kind::Gauge) {
                    prop_assert!(wrong.length >= 1 && wrong.at + wrong.length <= text.chars().count().max(1), "{:?} {:?}", text, wrong);
                    prop_assert!(!wrong.fault.message.is_empty() && !wrong.fault.mend.is_empty());
                }
            }
        }
    }
}
