//! Protobuf's wire format, read in place: the fields of a message one after the other.
//!
//! By hand, since it is this page, and since nothing is built up: libraries read into a tree of the message's structs first, which takes sixty
//! times the memory of a body that was made for it. What is needed of OTLP is a few names and numbers of each data point.
//!
//! Invariants: never reads beyond the bytes, never recurses, allocates nothing.

/// Why bytes are no message of protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it ends within a field")]
    Short,
    #[error("a number is longer than 64 bits")]
    Varint,
    #[error("a field has the number or type of none")]
    Tag,
    #[error("field {number} of a {message} is of another type")]
    Type { message: &'static str, number: u32 },
    #[error("a text is not UTF-8")]
    Text,
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of a message, in their order.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return Err(Malformed::Varint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { Malformed::Short } else { Malformed::Varint })
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or(Malformed::Tag)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(fixed64(self.take(8)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Short)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            // Groups are of a time before OTLP.
            _ => return Err(Malformed::Tag),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn fixed64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The 64-bit numbers of a repeated field: packed, or one of those that are not.
pub(super) fn fixed64s(value: Value<'_>) -> Option<impl Iterator<Item = u64>> {
    let (packed, single) = match value {
        Value::Bytes(packed) if packed.len() % 8 == 0 => (packed, None),
        Value::Fixed64(single) => (&[][..], Some(single)),
        _ => return None,
    };
    Some(packed.chunks_exact(8).map(fixed64).chain(single))
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        Fields::of(bytes).collect()
    }

    /// The examples of protobuf's own description of its encoding.
    #[test]
    fn fields_are_read_as_protobuf_describes_them() {
        assert_eq!(all(&[0x08, 0x96, 0x01]), Ok(vec![(1, Value::Varint(150))]));
        assert_eq!(all(b"\x12\x07testing"), Ok(vec![(2, Value::Bytes(b"testing"))]));
        assert_eq!(all(&[0x19, 1, 0, 0, 0, 0, 0, 0, 0x80]), Ok(vec![(3, Value::Fixed64(0x8000_0000_0000_0001))]));
        assert_eq!(all(&[0x25, 1, 2, 3, 4, 0x08, 0]), Ok(vec![(4, Value::Fixed32), (1, Value::Varint(0))]));
        let largest = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(all(&largest), Ok(vec![(1, Value::Varint(u64::MAX))]));
    }

    #[test]
    fn what_is_no_message_is_said_to_be_none() {
        for (bytes, reason) in [
            (&b"\x12\x08testing"[..], Malformed::Short),
            (&[0x19, 1, 2], Malformed::Short),
            (&[0x25, 1], Malformed::Short),
            (&[0x08], Malformed::Short),
            (&[0x08, 0x80], Malformed::Short),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Malformed::Varint),
            (&[0xff; 11], Malformed::Varint),
            (&[0x00, 0x01], Malformed::Tag),
            (&[0x0b], Malformed::Tag),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Malformed::Short),
        ] {
            assert_eq!(all(bytes), Err(reason), "{bytes:x?}");
        }
    }
}
