//! The routes of one target.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::{ScaleError, Services};
use crate::edge::api::{Decisions, Problem, ScaleRequest, Scaled, TargetDetail, TargetStatus};
use crate::edge::view::{gone, older};
use crate::log::{Log, LogError, Topic};
use crate::model::spelling::nearest;
use crate::model::{Audit, ManualChange, Message, TargetId, Timestamp};
use crate::runtime::publish;
use crate::stages::Effects;

/// The most decisions of one answer: what memory holds of a target.
const MAX_LIMIT: usize = 200;

/// The parts of a target's name in a path.
pub(super) type Parts = Path<(String, String, String)>;

pub(super) async fn detail(State(services): State<Services>, Path((namespace, kind, name)): Parts) -> Result<Json<TargetDetail>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    services.view.detail(&target).map(Json).ok_or_else(|| unknown(&services, &target))
}

/// The parameters of `decisions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    at: Option<String>,
    limit: Option<String>,
}

pub(super) async fn decisions(
    State(services): State<Services>,
    Path((namespace, kind, name)): Parts,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Decisions>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let Query(which) = which.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.body_text(), "the parameters are at and limit").at("query"))?;
    let until = which.at.as_deref().map(parse_time).transpose()?;
    let limit = match which.limit.as_deref() {
        None => 1,
        Some(text) => text.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n)).ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST, format!("\"{text}\" is no limit"), format!("choose a whole number from 1 to {MAX_LIMIT}"))
                .at("parameter limit")
        })?,
    };
    if !services.view.knows(&target) {
        return Err(unknown(&services, &target));
    }
    let (decisions, gone) = if let Some(decisions) = services.view.decisions(&target, limit, until) {
        (decisions, None)
    } else {
        let (log, of) = (Arc::clone(&services.log), target.clone());
        let until = until.unwrap_or_else(|| services.clock.now());
        let read = move || {
            let decisions = older(log.as_ref(), &of, limit, until)?;
            let gone = if decisions.len() < limit { gone(log.as_ref(), &of)? } else { None };
            Ok::<_, LogError>((decisions, gone))
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in the program while reading older decisions", "report it"))?
            .map_err(|e| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("older decisions cannot be read: {e}"), "try again").retry_after(1))?
    };
    let by_hand = if until.is_none() { services.view.by_hand(&target) } else { Vec::new() };
    Ok(Json(Decisions { target, decisions, by_hand, gone }))
}

pub(super) async fn scale(
    State(services): State<Services>,
    Path((namespace, kind, name)): Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Scaled>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text(), ScaleRequest::EXAMPLE))?;
    let request = ScaleRequest::read(&body)?;
    if let Some(file) = services.freeze.mark_for(target.namespace()) {
        let reason = format!("scaling is frozen by {file}");
        return Err(Problem::new(StatusCode::CONFLICT, reason, "remove that file to let changes through again").at(target.to_string()));
    }
    let note = note(services.view.detail(&target).map(|d| d.status).as_ref(), request.replicas);
    let (manual, log, of) = (Arc::clone(&services.manual), Arc::clone(&services.log), target.clone());
    let ScaleRequest { replicas: to, actor, reason } = request;
    let result = tokio::task::spawn_blocking(move || {
        let from = manual.scale(&of, to, &actor)?;
        if from != to {
            record(log.as_ref(), ManualChange { target: of, from, to, actor, reason })?;
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

/// Writes down who changed a count, and why.
fn record(log: &dyn Log, change: ManualChange) -> Result<(), ScaleError> {
    let mut effects = Effects::new();
    let key = change.target.as_str().to_owned();
    effects.to_key(Topic::Audit, key, Message::Audit(Audit::ByHand(change)));
    publish(log, effects).map_err(|error| ScaleError::Failed(format!("the count is set, but who set it could not be recorded: {error}")))
}

/// What will happen next to a count that was set by hand.
fn note(status: Option<&TargetStatus>, to: u32) -> String {
    let Some(status) = status else { return "Loadline has no policy for it".to_owned() };
    match (status.mode.as_deref(), status.min, status.max) {
        (None, ..) => "there is no policy for it, so it stays".to_owned(),
        (Some("Off" | "Advise"), ..) => format!("its policy's mode is {}, so it stays", status.mode.as_deref().unwrap_or_default()),
        _ if to == 0 => "a target that was set to 0 by hand is left alone until it is set above 0".to_owned(),
        (_, Some(min), _) if to < min => format!("its policy's minimum is {min}, so it goes back to that at once; set mode: Off to hold it"),
        (_, _, Some(max)) if to > max => format!("its policy's maximum is {max}, so it shrinks to that; set mode: Off to hold it"),
        _ => "its policy goes on from there; set mode: Off to hold it".to_owned(),
    }
}

fn parse(namespace: &str, kind: &str, name: &str) -> Result<TargetId, Problem> {
    TargetId::new(namespace, kind, name).map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.to_string(), "name a target as namespace/Kind/name").at("path"))
}

fn parse_time(text: &str) -> Result<Timestamp, Problem> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(Timestamp::from_millis(ms));
    }
    text.parse::<jiff::Timestamp>().map(|t| Timestamp::from_millis(t.as_millisecond())).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, format!("\"{text}\" is no time"), "write RFC 3339, as in 2026-03-01T12:03:20Z, or Unix milliseconds")
            .at("parameter at")
    })
}

fn unknown(services: &Services, target: &TargetId) -> Problem {
    let names = services.view.names();
    let near = nearest(target.name(), names.iter().map(TargetId::name)).and_then(|name| names.iter().find(|id| id.name() == name));
    let mend = match near {
        Some(near) if near == target => "a policy names it, but no fleet of this name is kept here: see its document and its state.json".to_owned(),
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "no target is known yet: is there a policy?".to_owned(),
        None => {
            let some: Vec<&str> = names.iter().take(10).map(TargetId::as_str).collect();
            let rest = names.len().saturating_sub(some.len());
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            format!("there are: {}{more}", some.join(", "))
        }
    };
    Problem::new(StatusCode::NOT_FOUND, format!("there is no target {target}"), mend).at(target.to_string())
}
