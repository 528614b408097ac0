//! What a fleet looks like now, for people.

use std::collections::BTreeMap;

use serde::Serialize;

use super::instance::{Instance, Life, Trouble};
use crate::model::{InstanceName, TargetId, Timestamp};

/// A fleet, as its supervisor last saw it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// The target.
    pub target: TargetId,
    /// Its incarnation, once that is known.
    pub uid: Option<String>,
    /// The count that is asked for; `None` while it cannot be read.
    pub replicas: Option<u32>,
    /// The version of its record.
    pub revision: Option<i64>,
    /// Who changed the count last.
    pub changed_by: Option<String>,
    /// When.
    pub changed_at: Option<Timestamp>,
    /// The instances, by name.
    pub instances: Vec<InstanceStatus>,
    /// The named states that hold (the names of their alerts), each with its words.
    pub conditions: BTreeMap<String, String>,
}

/// One instance, as its supervisor last saw it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Its name.
    pub name: InstanceName,
    /// Its process, where it has one.
    pub pid: Option<i32>,
    /// Its port, where it was given one.
    pub port: Option<u16>,
    /// Whether it can serve.
    pub ready: bool,
    /// Whether it is being removed.
    pub leaving: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// What ended it last, or keeps it from starting, in words.
    pub trouble: Option<String>,
}

impl FleetStatus {
    /// Of a fleet that was not looked at yet.
    pub(crate) fn unknown(target: TargetId) -> Self {
        FleetStatus {
            target,
            uid: None,
            replicas: None,
            revision: None,
            changed_by: None,
            changed_at: None,
            instances: Vec::new(),
            conditions: BTreeMap::new(),
        }
    }
}

impl InstanceStatus {
    pub(crate) fn of(instance: &Instance) -> Self {
        InstanceStatus {
            name: instance.name.clone(),
            pid: match &instance.life {
                Life::Running(running) => Some(running.id.pid),
                Life::Waiting { .. } => None,
            },
            port: instance.port,
            ready: instance.ready,
            leaving: instance.leaving.is_some(),
            restarts: instance.restarts,
            trouble: instance.trouble.as_ref().map(|trouble| Trouble::words(trouble).to_owned()),
        }
    }
}
