//! What Loadline says of one target, read leniently: what is missing or of another type is not shown.

use serde_json::Value;

/// The status of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetStatus {
    /// Replicas there are to be, as the fleet has it.
    pub current: Option<u64>,
    /// Replicas that the last decision wants.
    pub desired: Option<u64>,
    /// Replicas that serve.
    pub ready: Option<u64>,
    /// The fewest.
    pub min: Option<u64>,
    /// The most.
    pub max: Option<u64>,
    /// What the last decision was.
    pub verdict: Option<String>,
    /// The step that bound it.
    pub binding: Option<String>,
    /// Its sentence.
    pub reason: Option<String>,
    /// When it was, in Unix milliseconds.
    pub at: Option<i64>,
    /// What each metric asks for, in the order of the policy.
    pub metrics: Vec<MetricStatus>,
    /// What a person should look at, of this target and of none.
    pub alerts: Vec<String>,
}

/// One metric of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricStatus {
    /// Its name.
    pub name: String,
    /// Ok, Idle, `NoData`, Stale, Error or `NonFinite`.
    pub status: Option<String>,
    /// The replicas it asks for.
    pub proposal: Option<u64>,
}

/// Reads the status of `target` from the body of an answer.
///
/// # Errors
/// It is no JSON, or knows no such target.
pub fn read(body: &[u8], target: &str) -> Result<TargetStatus, String> {
    let all: Value = serde_json::from_slice(body).map_err(|error| format!("its status is no JSON: {error}"))?;
    let targets = all.get("targets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let found = targets.iter().find(|one| one.get("target").and_then(Value::as_str) == Some(target));
    let found = found.ok_or_else(|| format!("it does not know {target} yet"))?;
    let number = |name: &str| found.get(name).and_then(Value::as_u64);
    let text = |name: &str| found.get(name).and_then(Value::as_str).map(str::to_owned);
    let metrics = found.get("metrics").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(TargetStatus {
        current: number("current"),
        desired: number("desired"),
        ready: number("ready"),
        min: number("min"),
        max: number("max"),
        verdict: text("verdict"),
        binding: text("binding"),
        reason: text("reason"),
        at: found.get("at").and_then(time),
        metrics: metrics.iter().filter_map(metric).collect(),
        alerts: [found, &all].into_iter().filter_map(|of| of.get("alerts")?.as_array()).flatten().filter_map(alert).collect(),
    })
}

fn alert(value: &Value) -> Option<String> {
    Some(format!("{}: {}", value.get("name")?.as_str()?, value.get("message")?.as_str()?))
}

fn metric(value: &Value) -> Option<MetricStatus> {
    Some(MetricStatus {
        name: value.get("name")?.as_str()?.to_owned(),
        status: value.get("status").and_then(Value::as_str).map(str::to_owned),
        proposal: value.get("proposal").and_then(Value::as_u64),
    })
}

fn time(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_missing() {
        let body = br#"{"alerts":[{"name":"PolicyInvalid","message":"a.yaml cannot be used"}],"targets":[{"target":"a/B/c"},{"target":"local/ProcessFleet/shop","current":3,"desired":5,"ready":2,"min":1,"max":9,
            "verdict":"ScaleOut","binding":"RateLimit","reason":"more load","at":1764000000000,"mode":"Active","new":{},
            "metrics":[{"name":"cpu","status":"Ok","value":0.8,"target":0.7,"proposal":5},{"name":"memory","status":"NoData"}]}]}"#;
        let status = read(body, "local/ProcessFleet/shop").unwrap();
        assert_eq!((status.current, status.desired, status.ready, status.at), (Some(3), Some(5), Some(2), Some(1_764_000_000_000)));
        assert_eq!(status.metrics[1], MetricStatus { name: "memory".into(), status: Some("NoData".into()), proposal: None });
        let alerts = vec!["PolicyInvalid: a.yaml cannot be used".to_owned()];
        assert_eq!(read(body, "a/B/c"), Ok(TargetStatus { alerts, ..TargetStatus::default() }));
        assert_eq!(read(br#"{"targets":[{"target":"a/B/c","at":"2025-11-24T16:00:00Z"}]}"#, "a/B/c").unwrap().at, Some(1_764_000_000_000));
    }

    #[test]
    fn an_unknown_target_is_not_an_empty_one() {
        assert_eq!(read(br#"{"targets":[]}"#, "a/B/c"), Err("it does not know a/B/c yet".into()));
        assert!(read(b"<html>", "a/B/c").is_err());
    }
}
