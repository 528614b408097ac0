//! What a metric's name says of it, where neither its unit nor its kind does: that it is a time, or counts errors.
//!
//! Only the end of a name is believed, word by word: `cpu_seconds_total` is work, `errors_budget` is a budget.

/// What may follow the name of a thing: how it is counted.
const COUNTED: [&str; 7] = ["total", "rate", "ratio", "count", "percent", "per", "second"];
const ERRORS: [&str; 5] = ["error", "errors", "failure", "failures", "5xx"];
/// What may follow the name of a time: which of many it is.
const STATISTICS: [&str; 9] = ["p50", "p75", "p90", "p95", "p99", "p999", "avg", "mean", "max"];
const TIMES: [&str; 10] = ["latency", "duration", "seconds", "ms", "millis", "milliseconds", "responsetime", "requesttime", "ttfb", "rtt"];
/// Whose seconds are work done, which more replicas share.
const WORK: [&str; 5] = ["cpu", "busy", "work", "user", "system"];

/// Whether a name is that of errors or failures: `errors`, `http_5xx`, `error_ratio`, `request_failures_total`.
pub(super) fn is_of_errors(name: &str) -> bool {
    let words = words(name);
    let thing = without(&words, &COUNTED);
    // A bare `error` is something else, as how far a controller is off: `error_rate` is one of errors.
    thing.last().is_some_and(|last| ERRORS.contains(last) && (*last != "error" || thing.len() < words.len()))
}

/// Whether a name is that of a time: `latency`, `request_duration_seconds`, `response_time`, `p99`, `latency_p95`, `responseTimeMs`.
pub(super) fn is_of_time(name: &str) -> bool {
    let name = parted(name);
    let words = words(&name);
    if words.iter().any(|word| WORK.contains(word)) {
        return false;
    }
    match without(&words, &STATISTICS) {
        [] => words.iter().any(|word| word.starts_with('p')),
        [.., "response" | "request", "time"] => true,
        [.., last] => TIMES.contains(last),
    }
}

/// `responseTimeMs` as `response_time_ms`.
fn parted(name: &str) -> String {
    let mut parted = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_uppercase() && parted.ends_with(|before: char| before.is_lowercase()) {
            parted.push('_');
        }
        // The case of what comes before is looked at, so it is lowered at the end.
        parted.push(c);
    }
    parted.to_lowercase()
}

fn words(name: &str) -> Vec<&str> {
    name.split(['_', '-', '.', ':', '/']).filter(|word| !word.is_empty()).collect()
}

/// The words before those at the end that are among `endings`.
fn without<'a, 'b>(words: &'b [&'a str], endings: &[&str]) -> &'b [&'a str] {
    let end = words.iter().rposition(|word| !endings.contains(word)).map_or(0, |last| last + 1);
    &words[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_tells() {
        for name in [
            "errors",
            "error_rate",
            "error_ratio",
            "http_errors_total",
            "http_5xx",
            "5xx_rate",
            "http.5xx.ratio",
            "failures",
            "request_failures_per_second",
            "failure-rate",
        ] {
            assert!(is_of_errors(name), "{name}");
        }
        for name in ["errors_budget", "error_budget", "error", "tracking_error", "failures_handled", "terrors", "rps", "rate", "per_second", "total"] {
            assert!(!is_of_errors(name), "{name}");
        }
        for name in [
            "latency",
            "http_latency",
            "request_duration",
            "http_request_duration_seconds",
            "response_time",
            "api.response_time",
            "upstream_ms",
            "responseTimeMs",
            "RTT",
            "ttfb",
            "rtt_p99",
            "latency_p99",
            "p95_latency",
            "p50",
            "p99",
            "response_time_p95",
            "latency_ms_avg",
            "queue_age_seconds",
        ] {
            assert!(is_of_time(name), "{name}");
        }
        for name in [
            "cpu_seconds",
            "process_cpu_seconds_total",
            "busy_seconds",
            "http_request_duration_seconds_count",
            "queue_depth_p95",
            "rps",
            "requests_per_second",
            "time",
            "max",
            "items",
            "latency_budget",
            "rps_max",
            "durations",
        ] {
            assert!(!is_of_time(name), "{name}");
        }
    }
}
