//! The routes of one target.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::{Services, fleet};
use crate::edge::api::{Decisions, Problem, TargetDetail};
use crate::edge::view::{Until, gone, next_page, older};
use crate::log::{Log, LogError};
use crate::model::spelling::nearest;
use crate::model::{TargetId, Timestamp};

/// The most decisions of one answer: what memory holds of a target.
const MAX_LIMIT: usize = 200;

/// The parts of a target's name in a path.
pub(super) type Parts = Path<(String, String, String)>;

pub(super) async fn detail(State(services): State<Services>, Path((namespace, kind, name)): Parts) -> Result<Json<TargetDetail>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    fleet::detail(&services, &target).map(Json).ok_or_else(|| unknown(&services, &target))
}

/// The parameters of lists over time: up to a time, or before a place that an answer named, and how many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    pub(super) at: Option<String>,
    pub(super) before: Option<String>,
    pub(super) limit: Option<String>,
}

impl Which {
    /// Of `at` and `before` at most one.
    pub(super) fn of(query: Result<Query<Which>, QueryRejection>) -> Result<Which, Problem> {
        let Query(which) = query.map_err(|e| bad_query(&e, "the parameters are at, before and limit"))?;
        if which.at.is_some() && which.before.is_some() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "at and before exclude each other", "leave one of them out").at("query"));
        }
        Ok(which)
    }
}

pub(super) async fn decisions(
    State(services): State<Services>,
    Path((namespace, kind, name)): Parts,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Decisions>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let which = Which::of(which)?;
    let until = match (&which.at, &which.before) {
        (Some(at), _) => Some(Until::At(parse_time(at, "at")?)),
        (None, Some(before)) => Some(parse_before(before)?),
        (None, None) => None,
    };
    let limit = parse_limit(which.limit.as_deref(), 1, MAX_LIMIT)?;
    told(&services, target, limit, until).await.map(Json)
}

/// The last `limit` decisions by `until`, from memory or else from the log.
pub(super) async fn told(services: &Services, target: TargetId, limit: usize, until: Option<Until>) -> Result<Decisions, Problem> {
    if !services.view.knows(&target) {
        return Err(unknown(services, &target));
    }
    let (decisions, gone) = if let Some(decisions) = services.view.decisions(&target, limit, until) {
        (decisions, None)
    } else {
        let of = target.clone();
        let until = until.unwrap_or_else(|| Until::At(services.clock.now()));
        from_log(services, "older decisions", move |log| {
            let decisions = older(log, &of, limit, until)?;
            let gone = if decisions.len() < limit { gone(log, &of)? } else { None };
            Ok((decisions, gone))
        })
        .await?
    };
    let next = next_page(&target, decisions.first(), limit);
    let by_hand = if until.is_none() { services.view.by_hand(&target) } else { Vec::new() };
    Ok(Decisions { target, decisions, by_hand, next, gone })
}

/// Reads the log on a thread that may wait.
pub(super) async fn from_log<T: Send + 'static>(
    services: &Services,
    what: &'static str,
    read: impl FnOnce(&dyn Log) -> Result<T, LogError> + Send + 'static,
) -> Result<T, Problem> {
    let log = Arc::clone(&services.log);
    tokio::task::spawn_blocking(move || read(log.as_ref()))
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a fault in the program while reading {what}"), "report it"))?
        .map_err(|e| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{what} cannot be read: {e}"), "try again").retry_after(1))
}

pub(super) fn parse(namespace: &str, kind: &str, name: &str) -> Result<TargetId, Problem> {
    TargetId::new(namespace, kind, name).map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.to_string(), "name a target as namespace/Kind/name").at("path"))
}

pub(super) fn parse_time(text: &str, parameter: &str) -> Result<Timestamp, Problem> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(Timestamp::from_millis(ms));
    }
    text.parse::<jiff::Timestamp>().map(|t| Timestamp::from_millis(t.as_millisecond())).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, format!("\"{text}\" is no time"), "write RFC 3339, as in 2026-03-01T12:03:20Z, or Unix milliseconds")
            .at(format!("parameter {parameter}"))
    })
}

pub(super) fn parse_limit(text: Option<&str>, default: usize, most: usize) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(default) };
    text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, format!("\"{text}\" is no limit"), format!("choose a whole number from 1 to {most}")).at("parameter limit")
    })
}

/// The place in the decisions where a page ended, as `next` writes it: time and sequence.
pub(super) fn parse_before(text: &str) -> Result<Until, Problem> {
    Until::parse(text).ok_or_else(|| bad_place(text))
}

pub(super) fn bad_place(text: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("\"{text}\" is no place to go on from"), "take it from next of the page before").at("parameter before")
}

/// What is asked for is not understood: which parameter, where that can be told, and what may be asked for instead.
pub(super) fn bad_query(rejection: &QueryRejection, mend: &str) -> Problem {
    let said = rejection.body_text();
    // The library's text names types of the program; of it only the parameter and the value are for people.
    let quoted = |marker: &str| said.split_once(marker).and_then(|(_, rest)| rest.split_once('`')).map(|(word, _)| word.to_owned());
    let title = match (quoted("unknown field `"), quoted("unknown variant `")) {
        (Some(field), _) => format!("there is no parameter {field}"),
        (_, Some(value)) => format!("\"{value}\" is not one of the choices"),
        _ => match said.rsplit_once(": ") {
            Some((path, _)) if path.rsplit(": ").next().is_some_and(|name| !name.contains(' ')) => {
                format!("the value of {} is not understood", path.rsplit(": ").next().unwrap_or_default())
            }
            _ => "the parameters are not understood".to_owned(),
        },
    };
    Problem::new(StatusCode::BAD_REQUEST, title, mend).at("query")
}

pub(super) fn unknown(services: &Services, target: &TargetId) -> Problem {
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
