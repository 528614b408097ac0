//! Exact amounts: what sums of measurements are made of.
//!
//! A measurement arrives as a double and becomes a whole number of 10⁻⁹ base units in 128 bits.
//! Sums of those are exact, so no split, order or repetition of parts changes a digit.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::{self, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A number of base units (cores, bytes, seconds, a plain count), exact to 10⁻⁹.
///
/// JSON: a number with all its digits. Avro: `bytes`, big-endian two's complement, scale 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(i128);

/// 10⁻⁹ base units in one base unit.
const NANO: i128 = 1_000_000_000;

/// Why a number cannot be an [`Amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// NaN or infinite.
    #[error("not a finite number")]
    NonFinite,
    /// Beyond ±10¹⁸ base units.
    #[error("beyond ±10^18 base units")]
    OutOfRange,
    /// Not a decimal number.
    #[error("not a decimal number")]
    NotANumber,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// `nanos` 10⁻⁹ base units.
    pub const fn from_nanos(nanos: i128) -> Self {
        Amount(nanos)
    }

    /// In 10⁻⁹ base units.
    pub const fn as_nanos(self) -> i128 {
        self.0
    }

    /// `n` whole base units.
    pub const fn from_units(n: i64) -> Self {
        Amount(n as i128 * NANO)
    }

    /// `n` thousandths of a base unit.
    pub const fn from_millis(n: i64) -> Self {
        Amount(n as i128 * (NANO / 1000))
    }

    /// The amount nearest to `value`, to 10⁻⁹.
    ///
    /// # Errors
    /// [`AmountError::NonFinite`], or [`AmountError::OutOfRange`] beyond ±10¹⁸.
    pub fn from_f64(value: f64) -> Result<Self, AmountError> {
        if !value.is_finite() {
            return Err(AmountError::NonFinite);
        }
        if value.abs() > 1e18 {
            return Err(AmountError::OutOfRange);
        }
        // Whole units and fraction apart: each product is then exact or rounded once.
        let whole = value.trunc();
        #[expect(clippy::cast_possible_truncation, reason = "both are within ±10^18")]
        let nanos = whole as i128 * NANO + ((value - whole) * 1e9).round() as i128;
        Ok(Amount(nanos))
    }

    /// The double nearest to it.
    pub fn as_f64(self) -> f64 {
        // Apart again, so that small amounts keep their digits.
        let (whole, rest) = (self.0 / NANO, self.0 % NANO);
        whole as f64 + rest as f64 / 1e9
    }

    /// In thousandths, rounded up, as Kubernetes' `Quantity.MilliValue` does; saturating.
    pub fn milli_ceil(self) -> i64 {
        let milli = NANO / 1000;
        let down = floor(self.0, milli);
        let up = down + i128::from(down * milli != self.0);
        i64::try_from(up).unwrap_or(if up > 0 { i64::MAX } else { i64::MIN })
    }

    /// The mean of `count` measurements that add up to this, rounded towards minus infinity at 10⁻⁹.
    /// `None` for no measurements.
    pub fn mean(self, count: u64) -> Option<Amount> {
        (count > 0).then(|| Amount(floor(self.0, i128::from(count))))
    }

    /// This amount per second over `elapsed_ms` (greater than 0) milliseconds.
    #[must_use]
    pub fn per_second(self, elapsed_ms: i64) -> Amount {
        Amount(self.0.saturating_mul(1000) / i128::from(elapsed_ms.max(1)))
    }
}

/// `number / by` rounded towards minus infinity, `by` above 0. A division of 128 bits takes ten times as long as one of
/// 64, which is enough for nearly every amount.
fn floor(number: i128, by: i128) -> i128 {
    match (i64::try_from(number), i64::try_from(by)) {
        (Ok(number), Ok(by)) => i128::from(number.div_euclid(by)),
        _ => number.div_euclid(by),
    }
}

impl Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }
}

impl Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }
}

impl Neg for Amount {
    type Output = Amount;
    fn neg(self) -> Amount {
        Amount(self.0.saturating_neg())
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(iter: I) -> Amount {
        iter.fold(Amount::ZERO, Add::add)
    }
}

/// All its digits, no exponent, no trailing zeros.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (self.0.unsigned_abs() / NANO.unsigned_abs(), self.0.unsigned_abs() % NANO.unsigned_abs());
        if rest == 0 {
            write!(f, "{sign}{whole}")
        } else {
            let fraction = format!("{rest:09}");
            write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
        }
    }
}

/// Reads a decimal number, with or without exponent, exactly; digits beyond 10⁻⁹ are cut off.
impl FromStr for Amount {
    type Err = AmountError;
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().map_err(|_| AmountError::NotANumber)?),
            None => (text, 0),
        };
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return Err(AmountError::NotANumber);
        }
        let mut nanos: i128 = 0;
        for (place, digit) in (0_i32..).zip(whole.bytes().chain(fraction.bytes())) {
            // The power of ten of this digit, counted in nanos.
            let power = i32::try_from(whole.len()).unwrap_or(i32::MAX).saturating_sub(1 + place).saturating_add(exponent).saturating_add(9);
            let digit = i128::from(digit - b'0');
            if digit == 0 || power < 0 {
                continue;
            }
            let unit = 10_i128.checked_pow(power.unsigned_abs()).ok_or(AmountError::OutOfRange)?;
            nanos = digit.checked_mul(unit).and_then(|d| nanos.checked_add(d)).ok_or(AmountError::OutOfRange)?;
        }
        Ok(Amount(if negative { -nanos } else { nanos }))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
        } else {
            let bytes = self.0.to_be_bytes();
            // Leading bytes that only repeat the sign are left out; one byte stays.
            let mut start = 0;
            while start < 15 && ((bytes[start] == 0 && bytes[start + 1] < 0x80) || (bytes[start] == 0xff && bytes[start + 1] >= 0x80)) {
                start += 1;
            }
            serializer.serialize_bytes(&bytes[start..])
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = <Box<RawValue>>::deserialize(deserializer)?;
            raw.get().parse().map_err(|e| de::Error::custom(format!("{e}: {}", raw.get())))
        } else {
            deserializer.deserialize_bytes(TwosComplement)
        }
    }
}

struct TwosComplement;

impl Visitor<'_> for TwosComplement {
    type Value = Amount;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal in 1 to 16 bytes of big-endian two's complement")
    }
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Amount, E> {
        if bytes.is_empty() || bytes.len() > 16 {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        let mut all = [if bytes[0] >= 0x80 { 0xff } else { 0 }; 16];
        all[16 - bytes.len()..].copy_from_slice(bytes);
        Ok(Amount(i128::from_be_bytes(all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_become_the_decimal_that_was_meant() {
        for (value, text) in [(0.7, "0.7"), (1e-9, "0.000000001"), (-2.5, "-2.5"), (1234.5678, "1234.5678"), (1e18, "1000000000000000000")] {
            assert_eq!(Amount::from_f64(value).unwrap().to_string(), text);
        }
        assert_eq!(Amount::from_f64(f64::NAN), Err(AmountError::NonFinite));
        assert_eq!(Amount::from_f64(1.1e18), Err(AmountError::OutOfRange));
    }

    #[test]
    fn thousandths_are_rounded_up_as_quantities_are() {
        for (text, milli) in [("0.0001", 1), ("0.001", 1), ("0.0011", 2), ("-0.0011", -1), ("0", 0), ("2", 2000)] {
            assert_eq!(text.parse::<Amount>().unwrap().milli_ceil(), milli, "{text}");
        }
    }

    #[test]
    fn json_numbers_are_read_without_a_double() {
        let text = "12345678901234567890.123456789";
        let amount: Amount = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&amount).unwrap(), text);
        assert_eq!(serde_json::from_str::<Amount>("2.5e3").unwrap(), Amount::from_units(2500));
        assert!(serde_json::from_str::<Amount>("\"x\"").is_err());
    }

    proptest! {
        #[test]
        fn every_amount_survives_its_text(nanos in any::<i128>().prop_map(|n| n / 4)) {
            let amount = Amount::from_nanos(nanos);
            prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        }

        #[test]
        fn sums_do_not_depend_on_the_order(mut values in prop::collection::vec(-1e12_f64..1e12, 0..40)) {
            let amounts = |v: &[f64]| v.iter().map(|x| Amount::from_f64(*x).unwrap()).sum::<Amount>();
            let forward = amounts(&values);
            values.reverse();
            prop_assert_eq!(forward, amounts(&values));
        }
    }
}
