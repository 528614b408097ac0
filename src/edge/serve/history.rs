//! What was, of one target: its evaluations over time, and the signals that they were made of.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Services;
use super::targets::{Parts, Which, bad_place, bad_query, from_log, parse, parse_limit, parse_time, unknown};
use crate::edge::api::{Problem, Series, Signals, target_path};
use crate::edge::view::{SignalsFound, SignalsFrom, signals_before};
use crate::log::{Topic, partition_of};
use crate::model::TargetId;
use crate::wire::jsonl::signal_to_line;

/// The most signals of one answer.
pub(super) const MAX_SIGNALS: usize = 200;

/// Spans that a series may have. Memory holds an hour at 5 s and a day at 5 min.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(super) enum Range {
    /// A quarter of an hour.
    #[serde(rename = "15m")]
    Quarter,
    /// An hour.
    #[default]
    #[serde(rename = "1h")]
    Hour,
    /// A day.
    #[serde(rename = "24h")]
    Day,
}

impl Range {
    pub(super) const ALL: [Range; 3] = [Range::Quarter, Range::Hour, Range::Day];

    /// As in a query.
    pub(super) fn word(self) -> &'static str {
        match self {
            Range::Quarter => "15m",
            Range::Hour => "1h",
            Range::Day => "24h",
        }
    }

    pub(super) fn span(self) -> Duration {
        Duration::from_secs(match self {
            Range::Quarter => 900,
            Range::Hour => 3_600,
            Range::Day => 86_400,
        })
    }
}

/// The parameters of `series`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    #[serde(default)]
    range: Range,
}

pub(super) async fn series(
    State(services): State<Services>,
    Path((namespace, kind, name)): Parts,
    span: Result<Query<Span>, QueryRejection>,
) -> Result<Json<Series>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let Query(Span { range }) = span.map_err(|e| bad_query(&e, "the parameter is range: 15m, 1h or 24h"))?;
    let now = services.clock.now();
    services.view.series(&target, now - range.span(), now).map(Json).ok_or_else(|| unknown(&services, &target))
}

pub(super) async fn signals(
    State(services): State<Services>,
    Path((namespace, kind, name)): Parts,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Signals>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let which = Which::of(which)?;
    let from = match (&which.at, &which.before) {
        (Some(at), _) => SignalsFrom::At(parse_time(at, "at")?),
        (None, Some(before)) => SignalsFrom::Before(before.parse().map_err(|_| bad_place(before))?),
        (None, None) => SignalsFrom::Before(u64::MAX),
    };
    let limit = parse_limit(which.limit.as_deref(), 50, MAX_SIGNALS)?;
    let SignalsFound { signals, before } = seen(&services, &target, limit, from).await?;
    let partition = partition_of(target.as_str(), services.log.partitions(Topic::Signals));
    let line = |signal| RawValue::from_string(signal).map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string(), "report it"));
    let signals = signals.iter().map(|(_, at, signal)| line(signal_to_line(*at, partition, signal))).collect::<Result<_, _>>()?;
    let next = before.map(|before| format!("{}/signals?limit={limit}&before={before}", target_path(&target)));
    Ok(Json(Signals { target, signals, next }))
}

/// The last `limit` signals of a target.
pub(super) async fn seen(services: &Services, target: &TargetId, limit: usize, from: SignalsFrom) -> Result<SignalsFound, Problem> {
    if !services.view.knows(target) {
        return Err(unknown(services, target));
    }
    let of = target.clone();
    from_log(services, "signals", move |log| signals_before(log, &of, limit, from)).await
}
