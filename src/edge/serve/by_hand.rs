//! Setting a count by hand.
//!
//! A count is refused where everything is frozen, and beyond the bounds of the target's policy unless the request says
//! that it is meant (`force`): what was decided with care is not undone by a slip of the finger. This is the one place
//! that says so; `loadline scale` only asks. What is changed is recorded with who and why.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::targets::{Parts, parse, unknown};
use super::{ScaleError, Services};
use crate::edge::api::{Problem, ScaleRequest, Scaled};
use crate::edge::log_watch;
use crate::edge::view::Allowed;
use crate::log::{Log, Topic};
use crate::model::{Audit, ManualChange, Message, TargetId};
use crate::runtime::publish;
use crate::stages::Effects;

/// `POST /api/v1/targets/…/scale`.
pub(super) async fn scale(
    State(services): State<Services>,
    Path((namespace, kind, name)): Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Scaled>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text(), ScaleRequest::EXAMPLE))?;
    let ScaleRequest { replicas: to, actor, reason, force } = ScaleRequest::read(&body)?;
    if let Some(file) = services.freeze.mark_for(target.namespace()) {
        let reason = format!("scaling is frozen by {file}");
        return Err(Problem::new(StatusCode::CONFLICT, reason, "remove that file to let changes through again").at(target.to_string()));
    }
    // It would take effect, and nobody could ever see who did it.
    if let Some(trouble) = services.log.trouble().filter(|trouble| trouble.of.is_none()) {
        let title = format!("who sets a count, and why, cannot be recorded: {}", log_watch::words(&trouble));
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, trouble.mend).at(trouble.place).retry_after(1));
    }
    let allowed = services.view.allowed(&target, services.clock.now());
    let beyond = beyond(&target, &allowed, to);
    let forced = beyond.is_some();
    if let Some(refused) = beyond.filter(|_| !force) {
        return Err(refused);
    }
    let note = note(&allowed, to);
    let (manual, log, of) = (Arc::clone(&services.manual), Arc::clone(&services.log), target.clone());
    let result = tokio::task::spawn_blocking(move || {
        let from = manual.scale(&of, to, &actor)?;
        if from != to {
            record(log.as_ref(), ManualChange { target: of, from, to, actor, reason, forced })?;
        }
        Ok(from)
    });
    match result.await {
        Ok(Ok(from)) => Ok(Json(Scaled { target, from, to, note })),
        Ok(Err(ScaleError::Unknown(target))) => Err(unknown(&services, &target)),
        Ok(Err(ScaleError::Refused(reason))) => Err(Problem::new(StatusCode::CONFLICT, reason, "see loadline status").at(target.to_string())),
        Ok(Err(ScaleError::Failed(reason))) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason, "try again").at(target.to_string()).retry_after(1)),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in the program while scaling", "report it").at(target.to_string())),
    }
}

/// The refusal of a count beyond what the policy allows; `None` within it, or where no bound is known.
fn beyond(target: &TargetId, allowed: &Allowed, to: u32) -> Option<Problem> {
    let Allowed::Within { min, max, version, .. } = allowed else { return None };
    let bound = match (to.cmp(min), to.cmp(max)) {
        (Ordering::Less, _) => format!("less than the minimum, {min},"),
        (_, Ordering::Greater) => format!("more than the maximum, {max},"),
        _ => return None,
    };
    let title = format!("{to} is {bound} of the policy of {target} ({version})");
    let range = if min == max { min.to_string() } else { format!("{min} to {max}") };
    let nothing = if to == 0 { "; at 0 it is left alone until somebody sets it above 0" } else { "" };
    let mend = format!("set {range}, or say that {to} is meant, with --force (in a request \"force\":true){nothing}");
    Some(Problem::new(StatusCode::CONFLICT, title, mend).at("replicas"))
}

/// Writes down who changed a count, and why.
fn record(log: &dyn Log, change: ManualChange) -> Result<(), ScaleError> {
    let mut effects = Effects::new();
    let key = change.target.as_str().to_owned();
    effects.to_key(Topic::Audit, key, Message::Audit(Audit::ByHand(change)));
    publish(log, effects).map_err(|error| ScaleError::Failed(format!("the count is set, but who set it could not be recorded: {error}")))
}

/// What will happen next to a count that was set by hand.
fn note(allowed: &Allowed, to: u32) -> String {
    let (min, max, mode) = match allowed {
        Allowed::NoPolicy => return "there is no policy for it, so it stays".to_owned(),
        Allowed::NotKnown => return format!("what its policy allows is not known now, so {to} was not held against its bounds; see `loadline status`"),
        Allowed::Within { min, max, mode, .. } => (min, max, mode),
    };
    match mode.as_str() {
        "Off" | "Advise" => format!("its policy's mode is {mode}, so it stays"),
        _ if to == 0 => "a target that was set to 0 by hand is left alone until it is set above 0".to_owned(),
        _ if to < *min => format!("its policy's minimum is {min}, so it goes back to that at once; set mode: Off to hold it"),
        "OutOnly" if to > *max => format!("its policy's maximum is {max}, and its mode, OutOnly, lets nothing shrink; so it stays"),
        _ if to > *max => format!("its policy's maximum is {max}, so it shrinks to that; set mode: Off to hold it"),
        _ => "its policy goes on from there; set mode: Off to hold it".to_owned(),
    }
}
