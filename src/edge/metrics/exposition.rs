//! Writes metrics as text: OpenMetrics 1.0, and the Prometheus text format 0.0.4.
//!
//! One writer for both, since they differ in a few words only: where `_total` and `_info` belong, `# UNIT`, `# EOF`.
//! Nothing else is needed of a metrics library: all values are read at the scrape from what is known then, and a value
//! that is not known is left out, which registries of counters and gauges do not do.

use std::fmt::Write;

/// A format that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
}

impl Format {
    /// The format that an `Accept` header wants: of those that are written here the one with the larger weight, and the
    /// Prometheus text format for who says nothing (curl, a browser).
    pub fn accepted(header: &str) -> Format {
        let weight = |media: &str| {
            let weights = header.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next()?.eq_ignore_ascii_case(media);
                let mut weight = 1.0;
                for parameter in parts {
                    match parameter.split_once('=') {
                        Some((key, value)) if key.eq_ignore_ascii_case("q") => weight = value.parse().unwrap_or(0.0),
                        // A version of OpenMetrics that is not written here.
                        Some((key, value)) if key.eq_ignore_ascii_case("version") && media.starts_with("application/") && value != "1.0.0" => return None,
                        _ => {}
                    }
                }
                named.then_some(weight)
            });
            weights.fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// What `Content-Type` says of it.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a family measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A level.
    Gauge,
    /// A total that only grows; its samples end in `_total`.
    Counter,
    /// Counts in buckets.
    Histogram,
    /// Facts as labels; its samples end in `_info`.
    Info,
}

/// A family of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name, without the end that its kind adds.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Its unit, with which its name ends; empty where it has none.
    pub unit: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
}

impl Family {
    /// The name that its samples bear in queries (of a histogram: before `_bucket`, `_sum`, `_count`).
    pub fn sample(&self) -> String {
        format!("{}{}", self.name, self.end())
    }

    fn end(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }
}

/// A page of metrics under way.
#[derive(Debug)]
pub struct Page {
    format: Format,
    text: String,
}

/// Labels with their values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// An empty one.
    pub fn new(format: Format) -> Self {
        Page { format, text: String::with_capacity(64 * 1024) }
    }

    /// Begins a family: all of its samples follow, before the next one begins.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, unit, help } = family;
        let (name, kind) = match (self.format, kind) {
            (Format::OpenMetrics, kind) => ((*name).to_owned(), kind_of(*kind)),
            (Format::Prometheus, Kind::Info) => (family.sample(), "gauge"),
            (Format::Prometheus, kind) => (family.sample(), kind_of(*kind)),
        };
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        Samples { page: self, family }
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

fn kind_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    }
}

/// The samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    page: &'a mut Page,
    family: &'static Family,
}

impl Samples<'_> {
    /// A sample with a number; one that is not finite is not known, and left out.
    pub fn put(&mut self, labels: Labels<'_>, value: f64) {
        if value.is_finite() {
            self.line(self.family.end(), labels, None, &value.to_string());
        }
    }

    /// A sample with a whole number.
    pub fn count(&mut self, labels: Labels<'_>, value: u64) {
        self.line(self.family.end(), labels, None, &value.to_string());
    }

    /// A sample where it is known.
    pub fn known(&mut self, labels: Labels<'_>, value: Option<f64>) {
        value.into_iter().for_each(|value| self.put(labels, value));
    }

    /// A histogram: how many were at most each bound, how many in all, and their sum.
    pub fn histogram(&mut self, labels: Labels<'_>, buckets: impl IntoIterator<Item = (&'static str, u64)>, all: u64, sum: f64) {
        for (bound, count) in buckets {
            self.line("_bucket", labels, Some(("le", bound)), &count.to_string());
        }
        self.line("_bucket", labels, Some(("le", "+Inf")), &all.to_string());
        self.line("_sum", labels, None, &sum.to_string());
        self.line("_count", labels, None, &all.to_string());
    }

    fn line(&mut self, end: &str, labels: Labels<'_>, more: Option<(&str, &str)>, value: &str) {
        let text = &mut self.page.text;
        text.push_str(self.family.name);
        text.push_str(end);
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(more) {
            text.push(before);
            text.push_str(name);
            text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    c => text.push(c),
                }
            }
            text.push('"');
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        text.push(' ');
        text.push_str(value);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LEVEL: Family = Family { name: "loadline_age_seconds", kind: Kind::Gauge, unit: "seconds", help: "An age." };
    static COUNT: Family = Family { name: "loadline_things", kind: Kind::Counter, unit: "", help: "Things." };
    static FACTS: Family = Family { name: "loadline_build", kind: Kind::Info, unit: "", help: "The build." };
    static TIMES: Family = Family { name: "loadline_took_seconds", kind: Kind::Histogram, unit: "seconds", help: "Times." };

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        let mut ages = page.family(&LEVEL);
        ages.put(&[("target", "a/B/\"c\\\n")], 0.25);
        ages.put(&[("target", "unknown")], f64::NAN);
        ages.known(&[("target", "unknown")], None);
        page.family(&COUNT).count(&[], 3);
        page.family(&FACTS).count(&[("version", "1")], 1);
        page.family(&TIMES).histogram(&[], [("0.5", 1), ("1.0", 2)], 3, 4.5);
        page.finish()
    }

    #[test]
    fn open_metrics() {
        assert_eq!(
            page(Format::OpenMetrics),
            "# HELP loadline_age_seconds An age.\n# TYPE loadline_age_seconds gauge\n# UNIT loadline_age_seconds seconds\n\
             loadline_age_seconds{target=\"a/B/\\\"c\\\\\\n\"} 0.25\n\
             # HELP loadline_things Things.\n# TYPE loadline_things counter\nloadline_things_total 3\n\
             # HELP loadline_build The build.\n# TYPE loadline_build info\nloadline_build_info{version=\"1\"} 1\n\
             # HELP loadline_took_seconds Times.\n# TYPE loadline_took_seconds histogram\n# UNIT loadline_took_seconds seconds\n\
             loadline_took_seconds_bucket{le=\"0.5\"} 1\nloadline_took_seconds_bucket{le=\"1.0\"} 2\nloadline_took_seconds_bucket{le=\"+Inf\"} 3\n\
             loadline_took_seconds_sum 4.5\nloadline_took_seconds_count 3\n# EOF\n"
        );
    }

    #[test]
    fn the_text_format_names_families_by_their_samples() {
        let page = page(Format::Prometheus);
        assert!(page.contains("# TYPE loadline_things_total counter\nloadline_things_total 3\n"), "{page}");
        assert!(page.contains("# TYPE loadline_build_info gauge\n"), "{page}");
        assert!(!page.contains("# UNIT") && !page.contains("# EOF"), "{page}");
    }

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (header, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.9", Format::Prometheus),
            ("application/openmetrics-text;version=2.0.0", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(header), format, "{header}");
        }
    }
}
