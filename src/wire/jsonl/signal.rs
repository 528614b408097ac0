//! Signals as lines, both ways: what `replay` reads and `export` writes.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::shapes::{FleetShape, GrantShape, MarkShape, OutcomeShape, PartShape, SourceErrorShape, TickShape};
use super::{LineError, line};
use crate::model::json;
use crate::model::{CarriedState, Order, PolicyAnnouncement, Signal, TargetId, Tick, Timestamp};

/// A signal's line. Exactly one of the kinds is there.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignalLine {
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TargetId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    policy: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<Order>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<PartShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<MarkShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tick: Option<TickShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fleet: Option<FleetShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<GrantShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_error: Option<SourceErrorShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    carried: Option<CarriedShape>,
    #[serde(rename = "override", default, skip_serializing)]
    override_: Option<serde::de::IgnoredAny>,
    #[serde(default, skip_serializing)]
    forecast: Option<serde::de::IgnoredAny>,
}

/// What was migrated of a target.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarriedShape {
    migration: String,
    version: i64,
    state: Box<RawValue>,
}

/// A key that is there is `Some`, even where its value is `null`: a policy that is removed.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    <Box<RawValue>>::deserialize(deserializer).map(Some)
}

/// A signal as a line. `partition` is written where the signal concerns a whole partition, and where it is another one than the first: the signals of a target
/// are folded with those that concern its partition.
pub fn signal_to_line(at: Timestamp, partition: u32, signal: &Signal) -> String {
    let mut shape = SignalLine { at, ..SignalLine::default() };
    shape.target = signal.target().cloned();
    shape.partition = (partition > 0 || shape.target.is_none()).then_some(partition);
    match signal {
        Signal::Part(part) => shape.part = Some(part.into()),
        Signal::Mark(mark) => shape.mark = Some(mark.into()),
        Signal::Tick(Tick {}) => shape.tick = Some(TickShape {}),
        Signal::Fleet(fleet) => shape.fleet = Some(fleet.into()),
        Signal::Policy(policy) => {
            shape.policy = Some(policy.spec.as_deref().map_or_else(|| RawValue::NULL.to_owned(), json_to_raw));
            shape.order = Some(policy.order.clone());
        }
        Signal::Outcome(outcome) => shape.outcome = Some(outcome.into()),
        Signal::Grant(grant) => shape.grant = Some(grant.into()),
        Signal::SourceError(failed) => shape.source_error = Some(failed.into()),
        Signal::Carried(carried) => {
            shape.carried = Some(CarriedShape { migration: carried.migration.clone(), version: carried.version, state: json_to_raw(&carried.state) });
        }
    }
    line(&shape)
}

/// A text of JSON on one line: line breaks are white space in JSON, so blanks take their
/// place. A text that is no JSON is written as a string, which no reader takes for a policy or a state.
fn json_to_raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.trim().replace(['\n', '\r'], " "))
        .or_else(|_| serde_json::value::to_raw_value(text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A line as a signal, with its partition where the line names it.
///
/// # Errors
/// [`LineError`], which names the key and the mend.
pub fn line_to_signal(text: &str) -> Result<(Timestamp, Option<u32>, Signal), LineError> {
    let shape: SignalLine = json::read(text)?;
    if shape.override_.is_some() {
        return Err(LineError::NotInThisVersion { kind: "override" });
    }
    if shape.forecast.is_some() {
        return Err(LineError::NotInThisVersion { kind: "forecast" });
    }
    let kinds = [
        ("part", shape.part.is_some()),
        ("mark", shape.mark.is_some()),
        ("tick", shape.tick.is_some()),
        ("fleet", shape.fleet.is_some()),
        ("policy", shape.policy.is_some()),
        ("outcome", shape.outcome.is_some()),
        ("grant", shape.grant.is_some()),
        ("sourceError", shape.source_error.is_some()),
        ("carried", shape.carried.is_some()),
    ];
    let found: Vec<&str> = kinds.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    if found.len() > 1 {
        return Err(LineError::contradiction(format!("a line says one thing, this one has \"{}\": write a line for each", found.join("\" and \""))));
    }
    if shape.order.is_some() && shape.policy.is_none() {
        return Err(LineError::contradiction("\"order\" belongs to \"policy\": leave it out, or add the policy (null removes it)"));
    }
    let (at, partition) = (shape.at, shape.partition);
    let target_of =
        |kind: &str| shape.target.clone().ok_or_else(|| LineError::missing("target", format!("a \"{kind}\" line needs \"target\":\"namespace/Kind/name\"")));
    let signal = if let Some(mark) = shape.mark {
        wide("mark", shape.target.as_ref())?;
        Signal::Mark(mark.into())
    } else if shape.tick.is_some() {
        wide("tick", shape.target.as_ref())?;
        Signal::Tick(Tick {})
    } else if let Some(part) = shape.part {
        Signal::Part(part.into_model(target_of("part")?)?)
    } else if let Some(fleet) = shape.fleet {
        Signal::Fleet(fleet.into_model(target_of("fleet")?))
    } else if let Some(spec) = shape.policy {
        let order = shape.order.ok_or_else(|| LineError::missing("order", "a \"policy\" line needs \"order\":{\"source\":\"…\",\"generation\":1}"))?;
        let spec = (spec.get() != "null").then(|| spec.get().to_owned());
        Signal::Policy(PolicyAnnouncement { target: target_of("policy")?, spec, order })
    } else if let Some(outcome) = shape.outcome {
        Signal::Outcome(outcome.into_model(target_of("outcome")?))
    } else if let Some(grant) = shape.grant {
        Signal::Grant(grant.into_model(target_of("grant")?))
    } else if let Some(failed) = shape.source_error {
        Signal::SourceError(failed.into_model(target_of("sourceError")?))
    } else if let Some(CarriedShape { migration, version, state }) = shape.carried {
        Signal::Carried(CarriedState { key: target_of("carried")?, migration, version, state: state.get().to_owned() })
    } else {
        return Err(LineError::missing("part", "a line needs one of part, mark, tick, fleet, policy, outcome, grant, sourceError, carried"));
    };
    Ok((at, partition, signal))
}

/// Refuses a target on a line that concerns a whole partition.
fn wide(kind: &str, target: Option<&TargetId>) -> Result<(), LineError> {
    match target {
        None => Ok(()),
        Some(target) => Err(LineError::contradiction(format!("a \"{kind}\" concerns all targets of its partition: leave \"target\":\"{target}\" out"))),
    }
}
