//! What two documents say of one target, held against each other: a policy and the fleet that it scales.

use std::collections::BTreeMap;

use crate::edge::processes::{FleetDocument, KIND, MAX_REPLICAS, fleet_of};
use crate::model::TargetId;
use crate::model::document::{Problem, Severity};
use crate::model::policy::{MetricRule, Policy};
use crate::wire::document::{ParsedPolicy, PolicyFile};

/// Warns where a policy asks for what its fleet cannot give.
pub(super) fn advise(files: &mut [PolicyFile]) {
    let fleets: BTreeMap<TargetId, FleetDocument> = files
        .iter()
        .flat_map(|file| &file.others)
        .filter(|other| other.kind == KIND)
        .filter_map(|other| fleet_of(&other.node).0)
        .map(|fleet| (fleet.target.clone(), fleet))
        .collect();
    for document in files.iter_mut().flat_map(|file| &mut file.documents) {
        let Some(policy) = document.policy.clone() else { continue };
        if let Some(fleet) = fleets.get(&policy.target) {
            advise_one(&policy, fleet, document);
        }
    }
}

fn advise_one(policy: &Policy, fleet: &FleetDocument, document: &mut ParsedPolicy) {
    let ports = fleet.spec.ports.as_ref().map(|ports| u32::from(*ports.end() - *ports.start()) + 1);
    let most = ports.unwrap_or(MAX_REPLICAS).min(MAX_REPLICAS);
    if policy.max > most {
        let (message, mend) = match ports {
            Some(ports) => (
                format!("`max` is {}, and the fleet has {ports} ports, one for each instance", policy.max),
                "write a smaller `max`, or widen the range of `ports`",
            ),
            None => (format!("`max` is {}, and a ProcessFleet has at most {MAX_REPLICAS} instances", policy.max), "write a smaller `max`"),
        };
        warn(document, "spec.replicas.max", "max-beyond-fleet", message, mend.to_owned());
    }
    for (i, metric) in policy.metrics.iter().enumerate() {
        let name = metric.name.as_str();
        if matches!(metric.rule, MetricRule::Utilization { .. }) && !fleet.spec.requests.contains_key(name) {
            let message = format!("it wants a utilization of `{name}`, and the fleet's instances request none: the metric will have an error");
            let example = if name == "memory" { "64Mi" } else { "500m" };
            let mend = format!("write `requests: {{ {name}: {example} }}` in the ProcessFleet");
            warn(document, &format!("spec.metrics[{i}].track.utilization"), "nothing-requested", message, mend);
        }
    }
}

fn warn(document: &mut ParsedPolicy, path: &str, code: &'static str, message: String, mend: String) {
    let span = document.places.get(path).copied();
    document.problems.push(Problem { path: path.to_owned(), span, severity: Severity::Warning, message, mend: Some(mend), code });
}
