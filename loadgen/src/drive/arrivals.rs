//! When requests arrive: a Poisson process whose rate follows a load.
//!
//! The time between two arrivals is an exponential number, measured not in seconds but in expected requests (time change of a
//! unit-rate process; Çinlar 1975). The rate is constant over each slice of the load, so this is exact, and the same seed gives
//! the same arrivals on every machine.

use std::time::Duration;

use super::load::Load;
use crate::random::Random;

/// The times of arrival.
#[derive(Debug, Clone)]
pub struct Arrivals {
    load: Load,
    random: Random,
    slice: u64,
    /// Seconds of the slice that are over.
    offset: f64,
}

impl Arrivals {
    /// Those of `load` with `seed`.
    pub fn new(load: Load, seed: u64) -> Self {
        Arrivals { load, random: Random::new(seed), slice: 0, offset: 0.0 }
    }

    /// The load.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// The next one, after the start.
    pub fn next_arrival(&mut self) -> Duration {
        let length = self.load.slice().as_secs_f64();
        let mut need = self.random.exponential();
        // Ends: a load is above 0 in some slice, and its slices come again.
        loop {
            let rate = self.load.rate(self.slice);
            let left = rate * (length - self.offset);
            if left >= need && rate > 0.0 {
                self.offset += need / rate;
                return self.load.slice().mul_f64(self.slice as f64) + Duration::from_secs_f64(self.offset);
            }
            need -= left;
            self.slice += 1;
            self.offset = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Shape;
    use super::*;
    use crate::trace::Trace;

    fn first(arrivals: &mut Arrivals, many: usize) -> Vec<Duration> {
        (0..many).map(|_| arrivals.next_arrival()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals() {
        let load = Load::shape(Shape::Sine, 1.0, 50.0, Duration::from_secs(10)).unwrap();
        let one = first(&mut Arrivals::new(load.clone(), 5), 1_000);
        assert_eq!(one, first(&mut Arrivals::new(load.clone(), 5), 1_000));
        assert_ne!(one, first(&mut Arrivals::new(load, 6), 1_000));
        assert!(one.is_sorted());
    }

    #[test]
    fn as_many_arrive_in_each_minute_as_the_trace_says() {
        let trace = Trace::parse("0,4000\n1,0\n2,1000\n").unwrap();
        let mut arrivals = Arrivals::new(Load::trace(trace, 0, 60.0, 1.0).unwrap(), 3);
        let mut counts = [0_u32; 3];
        loop {
            let minute = arrivals.next_arrival().as_secs();
            if minute > 2 {
                break;
            }
            counts[usize::try_from(minute).unwrap()] += 1;
        }
        // Four standard deviations.
        assert!(counts[0].abs_diff(4_000) < 253 && counts[2].abs_diff(1_000) < 127, "{counts:?}");
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn the_gaps_of_a_constant_load_are_those_of_a_poisson_process() {
        let load = Load::shape(Shape::Constant, 10.0, 0.0, Duration::from_secs(60)).unwrap();
        let times = first(&mut Arrivals::new(load, 9), 20_000);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1].as_secs_f64() - pair[0].as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Mean and standard deviation of exponential gaps are equal.
        assert!((mean - 0.1).abs() < 0.004 && (variance.sqrt() - 0.1).abs() < 0.006, "{mean} {variance}");
    }
}
