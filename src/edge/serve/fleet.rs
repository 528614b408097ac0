//! The fleet as a whole: what all targets do, and the choice of some of them.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::Services;
use super::targets::{bad_query, parse_limit};
use crate::edge::api::{Problem, Status, TargetDetail, TargetStatus, Targets, escape};
use crate::edge::log_watch;
use crate::model::{Alert, AlertState, TargetId, Timestamp};

/// How long a target without a policy is shown after it was last seen: three repetitions of an observation.
const HISTORY_TARGET: Duration = Duration::from_secs(180);

/// How long something that happened once is shown.
const HISTORY_EVENT: Duration = Duration::from_secs(3600);

/// The most targets of one page of the list.
const MAX_LIMIT: usize = 1_000;

/// What is known now of all targets.
pub(super) fn look(services: &Services) -> Status {
    let view = &services.view;
    let mut targets = view.statuses();
    let mut marks = BTreeMap::new();
    for target in &mut targets {
        let namespace = target.target.namespace().to_owned();
        let mark: &Option<String> = marks.entry(namespace).or_insert_with_key(|namespace| services.freeze.mark_for(namespace));
        target.frozen.clone_from(mark);
    }
    let at = services.clock.now();
    // What has no policy and is seen by nobody any more is history; so is an event after an hour.
    targets.retain(|t| t.mode.is_some() || !t.alerts.is_empty() || t.seen_at.is_none_or(|seen| at.since(seen) < HISTORY_TARGET));
    let mut alerts = view.general_alerts();
    // What cannot be written cannot be in the log: it is told from here.
    alerts.extend(services.log.trouble().map(|trouble| log_watch::firing(&trouble)));
    alerts.extend(view.lag_unknown());
    alerts.extend(view.panes_differ());
    for alerts in targets.iter_mut().map(|t| &mut t.alerts).chain([&mut alerts]) {
        alerts.retain(|alert| is_news(alert, at));
    }
    Status { started_at: services.started_at, at, targets, lag: view.lag(), log: services.room.usage(), alerts }
}

/// What is known now of one target.
pub(super) fn detail(services: &Services, target: &TargetId) -> Option<TargetDetail> {
    let mut detail = services.view.detail(target)?;
    let at = services.clock.now();
    detail.status.frozen = services.freeze.mark_for(target.namespace());
    detail.status.alerts.retain(|alert| is_news(alert, at));
    Some(detail)
}

/// Whether an alert still fires, or happened a short time ago.
fn is_news(alert: &Alert, now: Timestamp) -> bool {
    alert.state != AlertState::Event || now.since(alert.at) < HISTORY_EVENT
}

/// Which targets to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Show {
    /// All.
    #[default]
    All,
    /// Those that a person should look at.
    Attention,
    /// Those whose count is on its way to another one.
    Scaling,
}

impl Show {
    pub(super) const ALL: [Show; 3] = [Show::All, Show::Attention, Show::Scaling];

    /// As in a query.
    pub(super) fn word(self) -> &'static str {
        match self {
            Show::All => "all",
            Show::Attention => "attention",
            Show::Scaling => "scaling",
        }
    }

    pub(super) fn holds(self, target: &TargetStatus) -> bool {
        match self {
            Show::All => true,
            Show::Attention => target.needs_attention(),
            Show::Scaling => target.is_scaling(),
        }
    }
}

/// Whether a target's name holds what was asked for, whatever the case.
pub(super) fn is_named(target: &TargetId, filter: &str) -> bool {
    filter.is_empty() || target.as_str().to_lowercase().contains(&filter.to_lowercase())
}

/// The parameters of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    filter: String,
    #[serde(default)]
    show: Show,
    after: Option<String>,
    limit: Option<String>,
}

pub(super) async fn list(State(services): State<Services>, which: Result<Query<Which>, QueryRejection>) -> Result<Json<Targets>, Problem> {
    let Query(which) = which.map_err(|e| bad_query(&e, "the parameters are filter, show (all, attention or scaling), after and limit"))?;
    let limit = parse_limit(which.limit.as_deref(), 100, MAX_LIMIT)?;
    let after: Option<TargetId> = which
        .after
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "after names no target", "take it from next of the page before").at("parameter after"))?;
    let mut status = look(&services);
    status.targets.retain(|target| which.show.holds(target) && is_named(&target.target, &which.filter));
    let matching = status.targets.len();
    let mut targets: Vec<TargetStatus> = status.targets.into_iter().filter(|t| after.as_ref().is_none_or(|after| t.target > *after)).collect();
    let more = targets.len() > limit;
    targets.truncate(limit);
    let next = targets.last().filter(|_| more).map(|last| {
        let (filter, show) = (escape(&which.filter), which.show.word());
        format!("/api/v1/targets?filter={filter}&show={show}&limit={limit}&after={}", escape(last.target.as_str()))
    });
    Ok(Json(Targets { at: status.at, matching, targets, next }))
}
