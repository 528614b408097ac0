//! The metrics that are known by their name, and what else people call them.

use crate::model::MetricName;
use crate::model::spelling::{is_slip_of, nearest, same_letters};

use super::Unit;

/// A metric that is known by its name.
struct Known {
    name: &'static str,
    unit: Unit,
    /// What else it is called.
    others: &'static [&'static str],
}

const KNOWN: [Known; 7] = [
    Known {
        name: "cpu",
        unit: Unit::Cores,
        others: &["cpus", "cpu_usage", "cpu_used", "cpu_utilization", "cpu_utilisation", "cpu_percent", "cpu_cores", "processor"],
    },
    Known {
        name: "memory",
        unit: Unit::Bytes,
        others: &[
            "mem",
            "ram",
            "mem_usage",
            "mem_used",
            "mem_bytes",
            "memory_usage",
            "memory_used",
            "memory_bytes",
            "memory_utilization",
            "memory_utilisation",
        ],
    },
    Known {
        name: "response_time",
        unit: Unit::Seconds,
        others: &[
            "latency",
            "latencies",
            "response",
            "resp",
            "resp_time",
            "rt",
            "response_latency",
            "response_duration",
            "request_latency",
            "request_time",
            "request_duration",
        ],
    },
    Known { name: "connections", unit: Unit::Count, others: &["conn", "conns", "connection_count", "open_connections", "active_connections"] },
    Known { name: "queue_depth", unit: Unit::Count, others: &["queue", "queued", "queue_len", "queue_length", "queue_size", "backlog"] },
    Known { name: "rps", unit: Unit::Count, others: &["qps", "reqs", "req_rate", "request_rate", "requests_per_second"] },
    Known { name: "error_rate", unit: Unit::Ratio, others: &["err_rate", "error_ratio", "error_percent", "failure_rate"] },
];

/// The unit of a metric that is known by its name, whether a policy names it or not.
pub fn known_unit(name: &MetricName) -> Option<Unit> {
    KNOWN.iter().find(|known| known.name == name.as_str()).map(|known| known.unit)
}

/// What a name that is not known was probably meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// It is nearly this one.
    Slip(&'static str),
    /// It is another word for this one, whose unit is known.
    Word(&'static str, Unit),
}

/// Which known metric was probably meant by `name`.
pub(super) fn meant(name: &str) -> Option<Meant> {
    if KNOWN.iter().any(|known| known.name == name) {
        return None;
    }
    let word = called(name).map(|known| Meant::Word(known.name, known.unit));
    word.or_else(|| KNOWN.iter().find(|known| is_slip_of(name, known.name)).map(|known| Meant::Slip(known.name)))
}

/// The metric among `names` that was probably meant by `name`: the nearest, or one that is called so.
pub fn nearest_metric<'a>(name: &str, names: impl IntoIterator<Item = &'a str, IntoIter: Clone>) -> Option<&'a str> {
    let mut names = names.into_iter();
    nearest(name, names.clone()).or_else(|| {
        let of =
            |name: &str| called(name).map(|known| known.name).or_else(|| KNOWN.iter().find(|known| same_letters(known.name, name)).map(|known| known.name));
        let meant = of(name)?;
        names.find(|other| of(other) == Some(meant))
    })
}

/// The known metric that is called so.
fn called(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.others.iter().any(|other| same_letters(other, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What people type for a metric that is known; what is far from all of them means none.
    #[test]
    fn a_known_metric_is_understood_by_what_people_call_it() {
        for (name, expected) in [
            ("cpuu", Some("cpu")),
            ("ccpu", Some("cpu")),
            ("pcu", Some("cpu")),
            ("CPU", Some("cpu")),
            ("cpuUsage", Some("cpu")),
            ("rsp", Some("rps")),
            ("rpss", Some("rps")),
            ("qps", Some("rps")),
            ("mem", Some("memory")),
            ("RAM", Some("memory")),
            ("memroy", Some("memory")),
            ("latency", Some("response_time")),
            ("resp-time", Some("response_time")),
            ("response_tme", Some("response_time")),
            ("conns", Some("connections")),
            ("queue_length", Some("queue_depth")),
            ("err_rate", Some("error_rate")),
            ("gpu", None),
            ("ops", None),
            ("cpu2", None),
            ("men", None),
            ("rows", None),
            ("memory_rss", None),
            ("latency_p99", None),
            ("jobs_waiting", None),
            ("temperature", None),
            ("", None),
        ] {
            let found = meant(name).map(|meant| match meant {
                Meant::Slip(known) | Meant::Word(known, _) => known,
            });
            assert_eq!(found, expected, "{name}");
        }
    }

    /// No word stands for two metrics, and none for what is known by that name.
    #[test]
    fn each_word_means_one_metric() {
        for known in &KNOWN {
            assert_eq!(meant(known.name), None);
            for other in known.others {
                let all: Vec<&str> =
                    KNOWN.iter().filter(|k| same_letters(k.name, other) || k.others.iter().any(|o| same_letters(o, other))).map(|k| k.name).collect();
                assert_eq!(all, [known.name], "{other}");
            }
        }
    }

    #[test]
    fn among_the_metrics_of_a_policy_the_one_that_is_called_so_is_found() {
        let names = ["cpu", "response_time", "queue_depth"];
        for (name, expected) in [
            ("cpuu", Some("cpu")),
            ("latency", Some("response_time")),
            ("queue_dpeth", Some("queue_depth")),
            ("backlog", Some("queue_depth")),
            ("mem", None),
            ("temperature", None),
        ] {
            assert_eq!(nearest_metric(name, names), expected, "{name}");
        }
        assert_eq!(nearest_metric("response_time", ["mem", "latency"]), Some("latency"), "also the other way round");
    }
}
