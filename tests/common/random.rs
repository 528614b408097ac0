//! Random choices that can be made again: from a seed that a failing test shows.

use loadline::runtime::clock::{Clock, SystemClock};

/// Numbers from a seed (Steele, Lea and Flood: `SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// From [`seed`].
    pub(crate) fn from_environment() -> Random {
        Random(seed())
    }

    /// From a seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, of_a_hundred: u64) -> bool {
        self.below(100) < of_a_hundred
    }
}

/// `LOADLINE_SEED` where that is set, else another one each time. It is printed, and shown where the test fails.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("LOADLINE_SEED").ok().map(|seed| seed.parse().expect("LOADLINE_SEED is a number"));
    let seed = given.unwrap_or_else(|| SystemClock.now().as_millis().unsigned_abs() ^ u64::from(std::process::id()) << 44);
    println!("LOADLINE_SEED={seed}");
    seed
}

/// How often a test repeats what chance decides: `usual` times in every `make test`, `soak` times in `make soak`.
pub(crate) fn rounds(usual: usize, soak: usize) -> usize {
    if std::env::var_os("LOADLINE_SOAK").is_some_and(|value| value == "1") { soak } else { usual }
}
