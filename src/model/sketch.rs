//! A sketch of a distribution for quantiles, with a relative error of at most 1 %.
//!
//! This is `DDSketch` (Masson, Rim, Lee: "`DDSketch`: A fast and fully-mergeable quantile sketch with
//! relative-error guarantees", VLDB 2019) with logarithmic bins and no collapsing: amounts lie in
//! 10⁻⁹..10¹⁸, so at most 3,110 bins can ever be needed. Merging adds counts, so its result does not
//! depend on order or split; the bins are the format, readable by anyone.

use serde::{Deserialize, Serialize};

/// Counts in logarithmic bins: bin `i` holds values in (γ^(i−1), γ^i], γ = 1.01/0.99.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sketch {
    /// (bin, count), ascending by bin, counts above 0.
    bins: Vec<Bin>,
    /// Observations of (nearly) nothing: below 10⁻⁹.
    zero: i64,
}

/// One bin: JSON `[index, count]`, Avro a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bin {
    index: i32,
    count: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "SketchBin")]
struct BinRecord {
    #[serde(with = "super::as_long")]
    index: i32,
    count: i64,
}

impl Serialize for Bin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            (self.index, self.count).serialize(serializer)
        } else {
            BinRecord { index: self.index, count: self.count }.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Bin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let (index, count) = Deserialize::deserialize(deserializer)?;
            Ok(Bin { index, count })
        } else {
            let BinRecord { index, count } = Deserialize::deserialize(deserializer)?;
            Ok(Bin { index, count })
        }
    }
}

/// The relative error of a quantile.
const ALPHA: f64 = 0.01;
/// Below this a value counts as zero: the resolution of an amount.
const SMALLEST: f64 = 1e-9;

fn gamma_ln() -> f64 {
    ((1.0 + ALPHA) / (1.0 - ALPHA)).ln()
}

impl Sketch {
    /// Adds one observation; negative ones count as zero.
    pub fn add(&mut self, value: f64) {
        if value < SMALLEST {
            self.zero += 1;
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "|index| is below 3,110 for amounts")]
        let index = (value.ln() / gamma_ln()).ceil() as i32;
        self.add_to_bin(Bin { index, count: 1 });
    }

    fn add_to_bin(&mut self, bin: Bin) {
        match self.bins.binary_search_by_key(&bin.index, |b| b.index) {
            Ok(at) => self.bins[at].count = self.bins[at].count.saturating_add(bin.count),
            Err(at) => self.bins.insert(at, bin),
        }
    }

    /// Adds all of another sketch's observations.
    pub fn merge(&mut self, other: &Sketch) {
        self.zero = self.zero.saturating_add(other.zero);
        for bin in &other.bins {
            self.add_to_bin(*bin);
        }
    }

    /// Takes another sketch's observations out again, all of which it holds.
    pub fn take_out(&mut self, other: &Sketch) {
        self.zero = self.zero.saturating_sub(other.zero);
        for bin in &other.bins {
            if let Ok(at) = self.bins.binary_search_by_key(&bin.index, |b| b.index) {
                self.bins[at].count = self.bins[at].count.saturating_sub(bin.count);
            }
        }
        self.bins.retain(|bin| bin.count > 0);
    }

    /// How many observations it holds.
    pub fn count(&self) -> i64 {
        self.bins.iter().fold(self.zero, |n, b| n.saturating_add(b.count))
    }

    /// The value at `quantile` (0..=1), within 1 %; `None` without observations.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count <= 0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a rank is a count")]
        let rank = (quantile * (count - 1) as f64).floor() as i64;
        let mut seen = self.zero;
        if rank < seen {
            return Some(0.0);
        }
        for bin in &self.bins {
            seen = seen.saturating_add(bin.count);
            if rank < seen {
                // The middle of the bin in the relative sense: its upper bound × (1 − α)… × 2/(1+γ).
                let gamma = (1.0 + ALPHA) / (1.0 - ALPHA);
                return Some((f64::from(bin.index) * gamma_ln()).exp() * 2.0 / (1.0 + gamma));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch(values: &[f64]) -> Sketch {
        let mut s = Sketch::default();
        values.iter().for_each(|v| s.add(*v));
        s
    }

    #[test]
    fn nothing_observed_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
    }

    #[test]
    fn its_json_is_bins_and_zeros() {
        assert_eq!(serde_json::to_string(&sketch(&[0.0, 1.0, 1.0])).unwrap(), r#"{"bins":[[0,2]],"zero":1}"#);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_one_percent(mut values in prop::collection::vec(1e-6_f64..1e6, 1..200), q in 0.0_f64..=1.0) {
            let got = sketch(&values).quantile(q).unwrap();
            values.sort_by(f64::total_cmp);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small index")]
            let want = values[(q * (values.len() - 1) as f64).floor() as usize];
            prop_assert!((got - want).abs() <= want * 0.010_001, "{} for {}", got, want);
        }

        #[test]
        fn merging_is_the_same_in_any_order(a in prop::collection::vec(0.0_f64..1e6, 0..50), b in prop::collection::vec(0.0_f64..1e6, 0..50)) {
            let (mut ab, mut ba) = (sketch(&a), sketch(&b));
            ab.merge(&sketch(&b));
            ba.merge(&sketch(&a));
            prop_assert_eq!(&ab, &ba);
            let mut a_again = ab.clone();
            a_again.take_out(&sketch(&b));
            prop_assert_eq!(a_again, sketch(&a));
            prop_assert_eq!(ab, sketch(&[a, b].concat()));
        }
    }
}
