//! How many requests a second, and when.

use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;
use jiff::civil::DateTime;

use crate::trace::Trace;

/// The shapes of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// As recorded.
    Trace,
    /// Always the lower level.
    Constant,
    /// Half a period at the lower level, half at the upper.
    Square,
    /// From the lower level to the upper and back.
    Sine,
}

/// A load: a rate that is constant over each of its slices, which all are equally long, and not 0 in all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    slice: Duration,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Trace { trace: Trace, first: u64, factor: f64 },
    Shape { shape: Shape, low: f64, high: f64 },
}

/// Slices of a period of square and sine: steps of a sixtieth are smooth enough.
const SLICES: u64 = 60;

impl Load {
    /// The load of `trace` from its minute `first` on, `speed` times faster, with `scale` requests for each of its own.
    ///
    /// # Errors
    /// A speed or scale that is not greater than 0.
    pub fn trace(trace: Trace, first: u64, speed: f64, scale: f64) -> anyhow::Result<Self> {
        ensure!(speed > 0.0 && speed <= 60_000.0, "speed {speed} is not within 0 and 60000");
        ensure!(scale > 0.0 && scale <= 1e6, "scale {scale} is not within 0 and 1000000");
        Ok(Load { slice: Duration::from_secs_f64(60.0 / speed), kind: Kind::Trace { trace, first, factor: scale * speed / 60.0 } })
    }

    /// A load between `low` and `high` requests a second.
    ///
    /// # Errors
    /// Rates that are negative, upside down or 0; a period of 0.
    pub fn shape(shape: Shape, low: f64, high: f64, period: Duration) -> anyhow::Result<Self> {
        let high = if shape == Shape::Constant { low } else { high };
        ensure!(shape != Shape::Trace, "a trace is read from a file");
        ensure!((0.0..=1e6).contains(&low) && (0.0..=1e6).contains(&high), "the rates {low} and {high} are not within 0 and 1000000");
        ensure!(low <= high, "the lower rate {low} is above the upper rate {high}");
        ensure!(high > 0.0, "a load of 0 requests a second never sends one");
        ensure!(period >= Duration::from_millis(100), "the period {period:?} is shorter than 100ms");
        Ok(Load { slice: period.div_f64(SLICES as f64), kind: Kind::Shape { shape, low, high } })
    }

    /// How long a slice is.
    pub fn slice(&self) -> Duration {
        self.slice
    }

    /// Requests a second in the slice `index`.
    pub fn rate(&self, index: u64) -> f64 {
        match &self.kind {
            Kind::Trace { trace, first, factor } => f64::from(trace.requests(first + index)) * factor,
            Kind::Shape { shape, low, high } => {
                let phase = (index % SLICES) as f64 / SLICES as f64;
                match shape {
                    Shape::Square if phase >= 0.5 => *high,
                    Shape::Sine => low + (high - low) * (0.5 - 0.5 * (phase * std::f64::consts::TAU).cos()),
                    Shape::Square | Shape::Constant | Shape::Trace => *low,
                }
            }
        }
    }

    /// The time of day that is replayed after `elapsed`, where the trace tells it.
    pub fn time(&self, elapsed: Duration) -> Option<DateTime> {
        let Kind::Trace { trace, first, .. } = &self.kind else { return None };
        let slices = elapsed.as_secs_f64() / self.slice.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are durations, so it is not negative; a cast saturates")]
        trace.time(first + slices as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_at_sixty_times_the_speed_is_a_second() {
        let trace = Trace::parse("# start: 1995-07-13T00:00:00\n0,10\n1,40\n2,0\n").unwrap();
        let load = Load::trace(trace, 1, 60.0, 0.5).unwrap();
        assert_eq!(load.slice(), Duration::from_secs(1));
        assert_eq!((0..4).map(|slice| load.rate(slice)).collect::<Vec<_>>(), [20.0, 0.0, 5.0, 20.0]);
        assert_eq!(load.time(Duration::from_millis(1500)).unwrap().to_string(), "1995-07-13T00:02:00");
    }

    #[test]
    fn shapes_stay_between_their_levels() {
        let period = Duration::from_secs(60);
        let sine = Load::shape(Shape::Sine, 2.0, 10.0, period).unwrap();
        assert!((sine.rate(0) - 2.0).abs() < 1e-9 && (sine.rate(30) - 10.0).abs() < 1e-9);
        let square = Load::shape(Shape::Square, 0.0, 10.0, period).unwrap();
        assert!(square.rate(29) < 1e-9 && (square.rate(30) - 10.0).abs() < 1e-9 && square.rate(60) < 1e-9);
        assert!((Load::shape(Shape::Constant, 3.0, 99.0, period).unwrap().rate(17) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_load_that_never_sends_is_refused() {
        let period = Duration::from_secs(60);
        assert!(Load::shape(Shape::Constant, 0.0, 5.0, period).is_err());
        assert!(Load::shape(Shape::Sine, 5.0, 1.0, period).is_err());
        let trace = Trace::parse("0,1").unwrap();
        for (speed, scale) in [(0.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (1.0, -1.0)] {
            assert!(Load::trace(trace.clone(), 0, speed, scale).is_err());
        }
    }
}
