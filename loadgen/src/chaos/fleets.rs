//! The fleets and their policies, and what their supervisor's files say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, ensure};

/// A target's name.
pub(super) fn target(name: &str) -> String {
    format!("local/ProcessFleet/{name}")
}

/// The fleet of a target: processes that sleep.
pub(super) fn fleet_of(name: &str) -> String {
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ProcessFleet
metadata: {{ namespace: local, name: {name} }}
spec: {{ command: sleep, args: [\"3600\"], replicas: 1, drain: {{ grace: 2s }} }}
"
    )
}

/// The policy of a target: those called active are scaled, the others only advised. The window of the queue is one in which a partition may change its owner; the
/// metric `fresh` has no sample until the faults are over.
pub(super) fn policy_of(name: &str) -> String {
    let mode = if name.starts_with("active") { "Active" } else { "Advise" };
    format!(
        "apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: {{ namespace: local, name: {name} }}
spec:
  target: {{ kind: ProcessFleet, name: {name} }}
  mode: {mode}
  replicas: {{ min: 1, max: 6 }}
  metrics:
    - {{ name: queue_depth, track: {{ perReplica: 10 }}, window: 10s, staleAfter: 30s }}
    - {{ name: latency, kind: Distribution, measure: {{ quantile: 95% }}, window: 1s, unit: seconds, track: {{ value: 300ms }} }}
    - {{ name: stamp, kind: Delta }}
    - {{ name: fresh }}
  behavior: {{ scaleIn: {{ stabilization: 0s, cooldown: 0s, policies: [{{ percent: 100, period: 1s }}] }}, scaleOut: {{ policies: [{{ replicas: 10, period: 1s }}] }} }}
"
    )
}

/// What the supervisor wrote down of a fleet; `None` before it did.
fn record(data: &Path, fleet: &str) -> anyhow::Result<Option<serde_json::Value>> {
    let path = data.join("fleets/local").join(fleet).join("state.json");
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| format!("read {}", path.display())),
    }
}

/// The processes of a fleet that run under this directory's Loadline, by the identity in their environment.
pub(super) fn instances_of(data: &Path, fleet: &str) -> anyhow::Result<BTreeSet<i32>> {
    let Some(record) = record(data, fleet)? else { return Ok(BTreeSet::new()) };
    let mark = format!("LOADLINE_FLEET_UID={}", record["uid"].as_str().context("a fleet's record has no uid")?);
    let bears_it = |environment: Vec<u8>| environment.split(|b| *b == 0).any(|v| v == mark.as_bytes());
    let processes = std::fs::read_dir("/proc").context("read /proc")?.flatten().map(|entry| entry.path());
    let marked = processes.filter(|process| std::fs::read(process.join("environ")).is_ok_and(bears_it));
    Ok(marked.filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect())
}

/// How often a fleet's record was changed, each time by one command of those that were issued (with the revision that it is said to have made):
/// its revision counts the changes.
pub(super) fn changes_by_command(data: &Path, fleet: &str, issued: &BTreeMap<String, Option<i64>>) -> anyhow::Result<i64> {
    let record = record(data, fleet)?.with_context(|| format!("{fleet} has no record in {}", data.display()))?;
    let changes = record["revision"].as_i64().context("a fleet's record has no revision")? - 1;
    let prefix = format!("{}#", target(fleet));
    let of_target: Vec<Option<i64>> = issued.iter().filter(|(id, _)| id.starts_with(&prefix)).map(|(_, revision)| *revision).collect();
    let applied: Vec<i64> = of_target.iter().flatten().copied().collect();
    let distinct: BTreeSet<i64> = applied.iter().copied().collect();
    ensure!(distinct.len() == applied.len(), "no command took effect twice: two commands for one change of {fleet}: {applied:?}");
    ensure!(
        applied.iter().all(|revision| (2..=changes + 1).contains(revision)),
        "what is said to be applied took effect: {applied:?} of {changes} changes of {fleet}"
    );
    ensure!(usize::try_from(changes)? <= of_target.len(), "no command took effect twice: {changes} changes of {fleet} by {} commands", of_target.len());
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is judged of a fleet whose record says so many changes, and whose commands are said to have made these revisions.
    fn judged(changes: i64, revisions: &[Option<i64>]) -> Result<i64, String> {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("fleets/local/f");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("state.json"), format!("{{\"uid\":\"u\",\"revision\":{}}}", changes + 1)).unwrap();
        let issued = revisions.iter().enumerate().map(|(number, revision)| (format!("local/ProcessFleet/f#{number}"), *revision)).collect();
        changes_by_command(data.path(), "f", &issued).map_err(|error| error.to_string())
    }

    #[test]
    fn each_change_of_a_fleet_is_the_work_of_one_command() {
        assert_eq!(judged(2, &[Some(2), Some(3)]), Ok(2));
        assert_eq!(judged(2, &[Some(2), None]), Ok(2), "one that was killed before it told");
        assert!(judged(2, &[Some(2)]).unwrap_err().contains("2 changes of f by 1 commands"));
        assert!(judged(2, &[Some(2), Some(2)]).unwrap_err().contains("two commands for one change"));
        assert!(judged(1, &[Some(3)]).unwrap_err().contains("what is said to be applied took effect"));
    }
}
