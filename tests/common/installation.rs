//! Installations on a real broker, as an operator makes and runs them.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;
use std::process::Command;

use crate::common::{LOADLINE, PATIENCE, Running, sleepers, wait_for, waiting};
use crate::kafka::Broker;

/// What one process does that is alone.
pub(crate) const ALL: &str = "ingest,policies,admit,aggregate,decide,arbitrate,fleets,view";

/// What a process does that only decides.
pub(crate) const STAGES: &str = "admit,aggregate,decide,arbitrate";

/// Makes the topics of an installation of its own, with several partitions.
pub(crate) fn installation(broker: &Broker) -> String {
    installation_as(broker, &["--replication", "1"])
}

/// The same, with flags that say how many replicas there are, or who asks.
pub(crate) fn installation_as(broker: &Broker, flags: &[&str]) -> String {
    let prefix = Broker::prefix();
    makes_topics(broker, &prefix, 3, flags);
    prefix
}

/// Makes what is missing of the topics with this prefix; what is said of it. A machine that stands still for some seconds only makes it wait.
pub(crate) fn makes_topics(broker: &Broker, prefix: &str, partitions: u32, flags: &[&str]) -> String {
    let (partitions, wait) = (partitions.to_string(), format!("{}s", PATIENCE.as_secs()));
    let apply = ["topology", "apply", "--brokers", &broker.address, "--prefix", prefix, "--partitions", &partitions, "--wait", &wait];
    let applied = Command::new(LOADLINE).args(apply).args(flags).output().unwrap();
    assert!(applied.status.success(), "{applied:?}");
    String::from_utf8(applied.stdout).unwrap()
}

/// A command that has the configuration of an installation.
pub(crate) fn configured(command: &str, broker: &Broker, directory: &Path, prefix: &str) -> Command {
    let mut configured = Command::new(LOADLINE);
    configured.current_dir(directory).args([command, "--brokers", &broker.address, "--data", "data", "--policies", "policies", "--pane", "1s"]);
    configured.args(["--set", &format!("kafka.prefix={prefix}"), "--set", "kafka.partitions=3"]).env_remove("LOADLINE_CONFIG");
    if broker.replicas() == 1 {
        configured.args(["--set", "kafka.replication=1"]);
    }
    configured
}

/// A command that runs these roles on it.
pub(crate) fn run(broker: &Broker, directory: &Path, prefix: &str, roles: &str) -> Command {
    let mut command = configured("run", broker, directory, prefix);
    command.args(["--listen", "127.0.0.1:0", "--roles", roles]);
    command
}

/// Posts until the fleet has so many.
pub(crate) fn scales_to(running: &Running, data: &Path, waits: f64, count: usize) {
    wait_for(&format!("a fleet of {count}"), || {
        running.post(&waiting(waits));
        (sleepers(data) == count).then_some(())
    });
}
