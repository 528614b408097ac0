//! Amounts with their units, as a person reads them.

use crate::model::Amount;
use crate::model::policy::Unit;

/// 10⁻⁹ base units in one.
const ONE: u128 = 1_000_000_000;

/// An amount in its unit: "84 %", "320 ms", "512 MiB", "0.84 cores", "1,240".
///
/// At most three digits stand behind the point (two for percentages), rounded half away from zero;
/// what is not zero never reads as zero.
pub fn amount(value: Amount, unit: Unit) -> String {
    match unit {
        Unit::Ratio => format!("{} %", decimal(value.as_nanos().saturating_mul(100), 2)),
        Unit::Seconds if value.as_nanos().unsigned_abs() < ONE && value != Amount::ZERO => {
            format!("{} ms", decimal(value.as_nanos().saturating_mul(1000), 3))
        }
        Unit::Seconds => format!("{} s", decimal(value.as_nanos(), 3)),
        Unit::Bytes => bytes(value),
        Unit::Cores if value == Amount::from_units(1) => "1 core".to_owned(),
        Unit::Cores => format!("{} cores", decimal(value.as_nanos(), 3)),
        Unit::Count => decimal(value.as_nanos(), 3),
    }
}

fn bytes(value: Amount) -> String {
    let mut scale = 1_i128;
    let mut name = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        let larger = scale * 1024;
        if value.as_nanos().unsigned_abs() < ONE * larger.unsigned_abs() {
            break;
        }
        (scale, name) = (larger, next);
    }
    format!("{} {name}", decimal(value.as_nanos() / scale, 2))
}

/// `nanos` 10⁻⁹ units with at most `places` digits behind the point and commas between thousands.
fn decimal(nanos: i128, places: u32) -> String {
    let unit = 10_u128.pow(9 - places);
    let magnitude = nanos.unsigned_abs();
    let rounded = (magnitude + unit / 2) / unit;
    let sign = if nanos < 0 { "-" } else { "" };
    if rounded == 0 && magnitude > 0 {
        return format!("{sign}{:.1e}", magnitude as f64 / 1e9);
    }
    let one = 10_u128.pow(places);
    let fraction = format!("{:0width$}", rounded % one, width = places as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}", with_commas(rounded / one))
}

fn with_commas(whole: u128) -> String {
    let digits = whole.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_say_them() {
        let rows = [
            ("0.84", Unit::Ratio, "84 %"),
            ("0.7004", Unit::Ratio, "70.04 %"),
            ("12.5", Unit::Ratio, "1,250 %"),
            ("0", Unit::Ratio, "0 %"),
            ("0.32", Unit::Seconds, "320 ms"),
            ("0", Unit::Seconds, "0 s"),
            ("1.25", Unit::Seconds, "1.25 s"),
            ("536870912", Unit::Bytes, "512 MiB"),
            ("1023", Unit::Bytes, "1,023 B"),
            ("1610612736", Unit::Bytes, "1.5 GiB"),
            ("0.84", Unit::Cores, "0.84 cores"),
            ("1", Unit::Cores, "1 core"),
            ("1240", Unit::Count, "1,240"),
            ("-1234567.8915", Unit::Count, "-1,234,567.892"),
            ("0.000000001", Unit::Count, "1.0e-9"),
        ];
        for (value, unit, words) in rows {
            assert_eq!(amount(value.parse().unwrap(), unit), words, "{value} {unit:?}");
        }
        assert!(amount(Amount::from_nanos(i128::MIN), Unit::Ratio).starts_with('-'));
    }
}
