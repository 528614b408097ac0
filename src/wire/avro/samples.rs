//! Samples by this release's own schema, read in one pass: of all messages they alone come by the hundred thousand a second.
//!
//! The library goes through serde, finds each field by its name and copies each text twice. What is not as this reader expects it (a histogram, a name that
//! is none, a byte too many) it leaves to the library, which takes it or says what is wrong.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::str::FromStr;

use crate::model::{InstanceName, Kind, MetricName, Sample, SampleBatch, TargetId, Timestamp};

/// The fewest bytes that a sample takes: a list and a text without anything in them, a name, a time, a kind, a value, and no histogram.
const LEAST_SAMPLE: usize = 15;

/// In the order of the schema.
const KINDS: [Kind; 5] = [Kind::Gauge, Kind::Counter, Kind::Delta, Kind::Distribution, Kind::Histogram];

/// Reads a body; `None` where it is the library's to read.
pub(super) fn read(body: &[u8]) -> Option<SampleBatch> {
    let mut left = Left(body);
    let producer = if left.is_there()? { Some(left.text()?.to_owned()) } else { None };
    let sequence = if left.is_there()? { Some(left.long()?) } else { None };
    let part = left.long()?;
    let samples = KNOWN.with_borrow_mut(|known| left.list(LEAST_SAMPLE, |left| sample(left, known)))?;
    left.0.is_empty().then_some(SampleBatch { producer, sequence, part, samples, unread: 0 })
}

fn sample(left: &mut Left<'_>, known: &mut Known) -> Option<Sample> {
    Some(Sample {
        targets: left.list(1, |left| known.targets.name(left.bytes()?))?,
        metric: known.metrics.name(left.bytes()?)?,
        instance: known.instances.name(left.bytes()?)?,
        time: Timestamp::from_millis(left.long()?),
        kind: *KINDS.get(usize::try_from(left.long()?).ok()?)?,
        value: left.double()?,
        histogram: if left.is_there()? { return None } else { None },
    })
}

/// How many names of a kind are remembered.
const REMEMBERED: usize = 4_096;

/// The names that were read last. They come again with every sample, and to make one anew is to check, to allocate and to free it.
struct Known {
    targets: Names<TargetId>,
    metrics: Names<MetricName>,
    instances: Names<InstanceName>,
}

thread_local! {
    static KNOWN: RefCell<Known> = const { RefCell::new(Known { targets: Names(Vec::new()), metrics: Names(Vec::new()), instances: Names(Vec::new()) }) };
}

/// Each name in a place that its bytes give; another one with that place takes it.
struct Names<N>(Vec<Option<N>>);

impl<N: FromStr + Borrow<str> + Clone> Names<N> {
    /// The name that these bytes are; `None` where they are none.
    fn name(&mut self, bytes: &[u8]) -> Option<N> {
        if self.0.is_empty() {
            self.0.resize(REMEMBERED, None);
        }
        let place = self.0.get_mut(place(bytes))?;
        if let Some(known) = place
            && (*known).borrow().as_bytes() == bytes
        {
            return Some(known.clone());
        }
        let name: N = std::str::from_utf8(bytes).ok()?.parse().ok()?;
        *place = Some(name.clone());
        Some(name)
    }
}

fn place(bytes: &[u8]) -> usize {
    let mut mixed = bytes.len() as u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    let rest = rest.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    for part in chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).chain([rest]) {
        mixed = (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 32;
    }
    usize::try_from(mixed % REMEMBERED as u64).unwrap_or(0)
}

/// What is left of a body.
struct Left<'a>(&'a [u8]);

impl<'a> Left<'a> {
    /// A number in zigzag and groups of 7 bits, the lowest first.
    fn long(&mut self) -> Option<i64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        None
    }

    fn double(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Whether what may be null is not.
    fn is_there(&mut self) -> Option<bool> {
        match self.long()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// A list, in blocks: of each how many follow, or that many below zero and its size. An item takes at least `least` bytes.
    fn list<T>(&mut self, least: usize, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        loop {
            let count = self.long()?;
            if count == 0 {
                return Some(items);
            }
            if count < 0 {
                self.long()?;
            }
            let count = usize::try_from(count.unsigned_abs()).ok().filter(|count| *count <= self.0.len() / least)?;
            items.reserve_exact(count);
            for _ in 0..count {
                items.push(item(self)?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Message;
    use crate::wire::arbitrary::batch;
    use crate::wire::avro::{HEADER_BYTES, read as by_the_library};
    use crate::wire::encode;
    use crate::wire::schemas::{self, RecordType};

    /// As text: a number that is none is not equal to itself.
    fn told(batch: &SampleBatch) -> String {
        format!("{batch:?}")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

        /// What the library reads this reads too, but for histograms.
        #[test]
        fn a_batch_is_read_as_it_was_written(batch in batch()) {
            let bytes = encode(&Message::Samples(batch.clone()));
            let expected = batch.samples.iter().all(|sample| sample.histogram.is_none()).then(|| told(&batch));
            prop_assert_eq!(read(&bytes[HEADER_BYTES..]).as_ref().map(told), expected);
        }

        /// Whatever the bytes are: what this takes, the library reads as the same.
        #[test]
        fn nothing_is_read_otherwise_than_by_the_library(batch in batch(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let schemas = schemas::held().unwrap();
            let known = schemas.find(schemas.fingerprint_of(RecordType::SampleBatch)).unwrap();
            let mut body = encode(&Message::Samples(batch)).split_off(HEADER_BYTES);
            let at = at.index(body.len());
            body[at] = to;
            for body in [&body[..], &body[..cut.index(body.len())]] {
                if let Some(batch) = read(body) {
                    prop_assert_eq!(told(&batch), told(&by_the_library::<SampleBatch>(known, body).unwrap()));
                }
            }
        }
    }

    /// More names than are remembered, each of them twice, and texts that are none.
    #[test]
    fn a_name_that_is_remembered_is_the_one_that_was_read() {
        let mut names = Names::<TargetId>(Vec::new());
        for number in (0..3 * REMEMBERED).chain(0..3 * REMEMBERED) {
            let name = format!("prod/Deployment/api-{number}");
            assert_eq!((names.name(name.as_bytes()).unwrap().as_str(), names.name(name.as_bytes()).unwrap().as_str()), (name.as_str(), name.as_str()));
        }
        for none in [&b"prod/Deployment"[..], b"prod/Deployment/a b", b"prod/Deployment/\xff", b""] {
            assert_eq!(names.name(none), None, "{none:?}");
        }
        let mut names = Names::<InstanceName>(Vec::new());
        assert!([names.name(b""), names.name(b"")].iter().all(|name| name.as_ref().is_some_and(InstanceName::is_none)));
    }

    /// As writers of Java make lists: a block with its size.
    #[test]
    fn a_block_may_say_its_size() {
        let target = b"\x18local/Bots/a";
        let sample: Vec<u8> = [b"\x02", &target[..], b"\x00\x06cpu\x00\x02\x00\0\0\0\0\0\0\xe0\x3f\x00"].concat();
        let size = u8::try_from(sample.len() * 2).unwrap();
        let plain = [b"\x00\x00\x00\x02", &sample[..], b"\x00"].concat();
        let sized = [b"\x00\x00\x00\x01", &[size][..], &sample[..], b"\x00"].concat();
        let read = read(&plain).unwrap();
        assert_eq!((read.samples.len(), read.samples[0].value, read.samples[0].targets[0].as_str()), (1, 0.5, "local/Bots/a"));
        assert_eq!(super::read(&sized), Some(read));
    }
}
