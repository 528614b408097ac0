//! Requests a minute, read from a file.
//!
//! A trace is a CSV file `minute,requests`, one line a minute without gaps, that may be preceded by comments. A comment
//! `# start: 1995-07-01T00:00:00` says the time of day of minute 0, where the trace was taken.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use jiff::civil::DateTime;

/// A trace, not empty, with at least one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    start: Option<DateTime>,
    first_minute: u32,
    requests: Vec<u32>,
}

impl Trace {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// Names the file and the line that is wrong.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read the trace {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("read the trace {}", path.display()))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut trace = Trace { start: None, first_minute: 0, requests: Vec::new() };
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim();
            if let Some(comment) = content.strip_prefix('#') {
                if let Some(start) = comment.trim().strip_prefix("start:") {
                    let start = start.trim();
                    trace.start = Some(start.parse().with_context(|| format!("line {line}: start {start:?} is not a time like 1995-07-01T00:00:00"))?);
                }
            } else if !content.is_empty() && content != "minute,requests" {
                trace.push(content).with_context(|| format!("line {line}"))?;
            }
        }
        ensure!(trace.requests.iter().any(|count| *count > 0), "there is no request in it");
        Ok(trace)
    }

    fn push(&mut self, content: &str) -> anyhow::Result<()> {
        let Some((minute, requests)) = content.split_once(',') else { bail!("{content:?} is not minute,requests") };
        let minute: u32 = minute.trim().parse().with_context(|| format!("minute {minute:?} is not a whole number"))?;
        let requests: u32 = requests.trim().parse().with_context(|| format!("requests {requests:?} is not a whole number"))?;
        if self.requests.is_empty() {
            self.first_minute = minute;
        }
        let expected = u64::from(self.first_minute) + self.requests.len() as u64;
        ensure!(u64::from(minute) == expected, "minute {minute} follows minute {}; the minutes must be without gaps", expected.saturating_sub(1));
        self.requests.push(requests);
        Ok(())
    }

    /// How many minutes it has.
    pub fn minutes(&self) -> usize {
        self.requests.len()
    }

    /// Requests of the minute `index`, counted from its first; after its last minute it begins again.
    pub fn requests(&self, index: u64) -> u32 {
        self.requests[self.wrap(index)]
    }

    /// The time of day of the minute `index`, where the trace says when it began.
    pub fn time(&self, index: u64) -> Option<DateTime> {
        let minute = u64::from(self.first_minute) + self.wrap(index) as u64;
        let minutes = jiff::Span::new().try_minutes(i64::try_from(minute).ok()?).ok()?;
        self.start?.checked_add(minutes).ok()
    }

    fn wrap(&self, index: u64) -> usize {
        usize::try_from(index % self.requests.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_name_the_start_and_the_last_minute_is_followed_by_the_first() {
        let trace = Trace::parse("# start: 1995-07-01T00:00:00\nminute,requests\n1440,7\n1441,0\n1442,9\n").unwrap();
        assert_eq!(trace.minutes(), 3);
        assert_eq!((0..5).map(|minute| trace.requests(minute)).collect::<Vec<_>>(), [7, 0, 9, 7, 0]);
        assert_eq!(trace.time(1).unwrap().to_string(), "1995-07-02T00:01:00");
        assert_eq!(Trace::parse("0,1").unwrap().time(0), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, message) in [
            ("0,1\n2,1\n", "line 2: minute 2 follows minute 0; the minutes must be without gaps"),
            ("0,x\n", "line 1: requests \"x\" is not a whole number: invalid digit found in string"),
            ("0\n", "line 1: \"0\" is not minute,requests"),
            ("0,0\n", "there is no request in it"),
            ("", "there is no request in it"),
        ] {
            assert_eq!(format!("{:#}", Trace::parse(text).unwrap_err()), message);
        }
    }

    #[test]
    fn the_trace_of_the_example_is_complete() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/storefront/trace.csv");
        let trace = Trace::read(&path).unwrap();
        assert_eq!(trace.minutes(), 3 * 24 * 60);
        assert_eq!(trace.time(0).unwrap().to_string(), "1995-07-13T00:00:00");
    }
}
