//! What two documents say of one target, held against each other: a policy and the fleet that it scales.
//!
//! A policy with errors is held against its fleet as far as it is sound: each warning hangs on the fields that it names and on
//! nothing else, so that it does not come as one more round once the errors are mended.

use std::collections::{BTreeMap, BTreeSet};

use crate::edge::processes::{FleetDocument, KIND, MAX_REPLICAS, fleet_of};
use crate::model::TargetId;
use crate::model::document::{Problem, Severity};
use crate::model::policy::{Origin, is_sound};
use crate::model::spelling::nearest;
use crate::wire::document::{ParsedPolicy, PolicyFile};

/// Warns where a policy asks for what its fleet cannot give, or looks for its fleet in another namespace.
pub(super) fn advise(files: &mut [PolicyFile]) {
    let fleets: BTreeMap<TargetId, FleetDocument> = files
        .iter()
        .flat_map(|file| &file.others)
        .filter(|other| other.kind == KIND)
        .filter_map(|other| fleet_of(&other.node).0)
        .map(|fleet| (fleet.target.clone(), fleet))
        .collect();
    let scaled: BTreeSet<TargetId> = files.iter().flat_map(|file| &file.documents).filter_map(|document| document.target.clone()).collect();
    // What cannot be read may be the very fleet that is looked for.
    let all_read = files.iter().all(|file| file.unread == 0);
    for document in files.iter_mut().flat_map(|file| &mut file.documents) {
        let Some(target) = document.target.clone().filter(|target| target.kind() == KIND) else { continue };
        match fleets.get(&target) {
            Some(fleet) => advise_one(fleet, document),
            None if !all_read => {}
            None if fleets.keys().any(|fleet| fleet.name() == target.name()) => {
                elsewhere(&target, fleets.keys().filter(|fleet| fleet.name() == target.name()), document);
            }
            // A fleet that has a policy of its own is not meant.
            None => misspelt(&target, fleets.keys().filter(|fleet| !scaled.contains(*fleet) && fleet.namespace() == target.namespace()), document),
        }
    }
}

fn advise_one(fleet: &FleetDocument, document: &mut ParsedPolicy) {
    let ports = fleet.spec.ports.as_ref().map(|ports| u32::from(*ports.end() - *ports.start()) + 1);
    let most = ports.unwrap_or(MAX_REPLICAS).min(MAX_REPLICAS);
    let max = written(document, "spec.replicas.max").and_then(|max| max.parse::<u32>().ok());
    if let Some(max) = max.filter(|max| *max > most) {
        let (message, mend) = match ports {
            Some(ports) => {
                (format!("`max` is {max}, and the fleet has {ports} ports, one for each instance"), "write a smaller `max`, or widen the range of `ports`")
            }
            None => (format!("`max` is {max}, and a ProcessFleet has at most {MAX_REPLICAS} instances"), "write a smaller `max`"),
        };
        warn(document, "spec.replicas.max", "max-beyond-fleet", message, mend.to_owned());
    }
    for path in utilizations(document) {
        let Some(name) = metric_of(&path).and_then(|metric| written(document, &format!("{metric}.name"))) else { continue };
        if !fleet.spec.requests.contains_key(&name) {
            let message = format!("it wants a utilization of `{name}`, and the fleet's instances request none: the metric will have an error");
            let example = if name == "memory" { "64Mi" } else { "500m" };
            let mend = format!("write `requests: {{ {name}: {example} }}` in the ProcessFleet");
            warn(document, &path, "nothing-requested", message, mend);
        }
    }
}

/// Warns where the only fleets of its name are of other namespaces.
fn elsewhere<'a>(target: &TargetId, named: impl Iterator<Item = &'a TargetId>, document: &mut ParsedPolicy) {
    let Some(other) = named.map(TargetId::namespace).next() else { return };
    let own = target.namespace();
    let message = format!("the fleet `{}` is in the namespace `{other}`, and this policy is for one in `{own}`", target.name());
    let mend = format!("write `namespace: {other}` in the policy's metadata, or `namespace: {own}` in the fleet's");
    warn(document, "spec.target.name", "other-namespace", message, mend);
}

/// Warns where there is a fleet of nearly the same name.
fn misspelt<'a>(target: &TargetId, fleets: impl Iterator<Item = &'a TargetId>, document: &mut ParsedPolicy) {
    let Some(near) = nearest(target.name(), fleets.map(TargetId::name)) else { return };
    let message = format!("there is no fleet `{}` in these files", target.name());
    let mend = format!("did you mean `{near}`, a fleet without a policy?");
    warn(document, "spec.target.name", "no-such-fleet", message, mend);
}

/// The value of a field that is written and sound.
fn written(document: &ParsedPolicy, path: &str) -> Option<String> {
    let setting = document.settings.iter().find(|setting| setting.path == path && setting.origin == Origin::Written)?;
    is_sound(path, &document.problems).then(|| setting.value.trim_matches('"').to_owned())
}

/// The paths of the utilizations that are tracked: those of metrics of which nothing else is in doubt that each asks for.
fn utilizations(document: &ParsedPolicy) -> Vec<String> {
    let is_certain = |metric: &str| ["track", "threshold"].iter().all(|rule| is_sound(&format!("{metric}.{rule}"), &document.problems));
    let paths = document.settings.iter().map(|setting| &setting.path);
    paths.filter(|path| metric_of(path).is_some_and(is_certain)).cloned().collect()
}

/// The path of the metric, where this one is that of its utilization.
fn metric_of(path: &str) -> Option<&str> {
    path.strip_suffix(".track.utilization")
}

fn warn(document: &mut ParsedPolicy, path: &str, code: &'static str, message: String, mend: String) {
    let span = document.places.get(path).copied();
    document.problems.push(Problem { path: path.to_owned(), span, severity: Severity::Warning, message, mend: Some(mend), code });
}
