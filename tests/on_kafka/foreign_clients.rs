//! Clients that are not ours, on a real broker: what `docs/producers.md` shows is run as it stands there, with Python and with what comes with Kafka.
//!
//! A `python` block whose first line is `# NAME.py` is a file; a `sh` block is run, unless a comment before it says that it is not.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::common::{LOADLINE, PATIENCE, Running, instances_of, wait_for};
use crate::installation::makes_topics;
use crate::kafka::{Broker, answered, broker, free_port, installed, tool_at};
use crate::page::Page;
use crate::registry::Registry;
use crate::tail::Tail;
use loadline::log::kafka::{Options, declaration};
use loadline::log::{Log, Partitions, Topic};
use loadline::model::{AlertState, Amount, DeadLetter, Message, Part, Signal};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

const TARGET: &str = "local/ProcessFleet/workers";

/// A folder with the page's files beside the schemas, in which its lines run.
struct Desk {
    home: tempfile::TempDir,
    /// With the page's `python`, and Kafka's tools.
    path: String,
    page: Page,
    kafka: String,
    registry: String,
}

impl Desk {
    fn new(kafka: &str, registry: &str) -> Desk {
        let home = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::os::unix::fs::symlink(root.join("schemas"), home.path().join("schemas")).unwrap();
        let page = Page::read("docs/producers.md");
        for block in page.blocks.iter().filter(|block| block.info == "python") {
            let name = block.text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_else(|| panic!("line {}: no name", block.line));
            std::fs::write(home.path().join(name), &block.text).unwrap();
        }
        let python = installed("python.sh");
        let tools = home.path().join("bin");
        std::fs::create_dir(&tools).unwrap();
        tool_at(&tools.join("kafka-console-producer.sh"), "org.apache.kafka.tools.ConsoleProducer");
        tool_at(&tools.join("kafka-transactions.sh"), "org.apache.kafka.tools.TransactionsCommand");
        let folders = [tools.display().to_string(), PathBuf::from(python).parent().unwrap().display().to_string(), std::env::var("PATH").unwrap()];
        Desk { home, path: folders.join(":"), page, kafka: kafka.to_owned(), registry: registry.to_owned() }
    }

    fn command(&self, program: &str, argument: &[&str]) -> Command {
        let mut command = Command::new("env");
        command.arg(program).args(argument).current_dir(self.home.path()).env("PATH", &self.path).env("KAFKA", &self.kafka).env("REGISTRY", &self.registry);
        command
    }

    fn run(&self, program: &str, argument: &[&str]) -> String {
        let output = self.command(program, argument).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{argument:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    }

    /// Runs a file of the page.
    fn python(&self, file: &str) {
        self.run("python", &[file]);
    }

    /// Runs the page's command with Kafka's own producer.
    fn console_producer(&self) {
        self.run("sh", &["-c", &self.page.block("sh").text]);
    }
}

/// What a consumer of the page prints, line by line. Dropping it ends it.
struct Follower {
    child: Child,
    lines: Receiver<String>,
    events: Vec<Value>,
}

impl Follower {
    fn start(desk: &Desk) -> Follower {
        let mut child = desk.command("python", &["follow.py"]).stdout(Stdio::piped()).spawn().unwrap();
        let (say, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        Follower { child, lines, events: Vec::new() }
    }

    /// Waits for an event of this type that is as wanted.
    fn event(&mut self, of: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(of, || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended; see above");
            self.events.extend(self.lines.try_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap()));
            self.events.iter().find(|event| event["ce_type"] == of && wanted(&event["data"])).cloned()
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a part has a pane of the queue in which each sample was this one.
fn measured(message: &Message, value: i64) -> Option<()> {
    let Message::Signal(Signal::Part(Part { target, panes, .. })) = message else { return None };
    let mut readings = panes.iter().filter(|pane| pane.metric.as_str() == "queue_depth").flat_map(|pane| pane.instances.values());
    (target.as_str() == TARGET && readings.any(|reading| reading.max == Amount::from_units(value) && reading.sum == Amount::from_units(value * reading.count)))
        .then_some(())
}

/// So many of each topic that has several.
fn partitions_of(count: u32) -> Partitions {
    let declared = declaration::partitions().unwrap();
    let several = Topic::ALL.into_iter().filter(|topic| declared.of(*topic) > 1);
    several.fold(declared, |partitions, topic| partitions.with(topic, count))
}

fn dead_letter(message: &Message) -> Option<DeadLetter> {
    if let Message::DeadLetter(letter) = message { Some(letter.clone()) } else { None }
}

/// Sends a record as it is to a partition of `metrics`.
fn send(kafka: &str, content_type: Option<&str>, value: &[u8]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to("loadline.metrics").partition(1).payload(value);
    record.headers = content_type.map(|named| OwnedHeaders::new().insert(Header { key: "Content-Type", value: Some(named) }));
    producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
    producer.flush(PATIENCE).unwrap();
}

#[test]
fn what_the_page_shows_works_with_clients_that_are_not_ours() {
    let kafka = broker().address.clone();
    makes_topics(broker(), "loadline.", 3, &["--replication", "1"]);
    let home = tempfile::tempdir().unwrap();
    let policies = home.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("fleet.yaml"), crate::common::fleet_yaml(1).replace(&*crate::common::FLEET, "workers")).unwrap();
    std::fs::write(policies.join("broken.yaml"), "kind: ScalingPolicy\n").unwrap();
    let mut command = Command::new(LOADLINE);
    command.current_dir(home.path()).args(["run", "--brokers", &kafka, "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0"]);
    command.args(["--pane", "1s", "--set", "kafka.partitions=3", "--set", "kafka.replication=1", "--stop-fleets-on-exit"]).env_remove("LOADLINE_CONFIG");
    let registry = Registry::start(free_port());
    command.args(["--set", &format!("kafka.registry.url={}", registry.url)]);
    let loadline = Running::spawn(command);
    let desk = Desk::new(&kafka, &registry.url);
    let log = Broker::open(&Options { partitions: Some(partitions_of(3)), ..broker().options("loadline.") });
    let mut follower = Follower::start(&desk);
    let (mut signals, mut letters) = (Tail::new(&log, Topic::Signals), Tail::new(&log, Topic::DeadLetters));

    // A policy, by somebody else than the files.
    desk.python("announce.py");
    let announced = follower.event("dev.loadline.PolicyAnnouncement", |data| data["target"] == TARGET);
    assert_eq!(announced["data"]["order"]["source"], "deploys/workers.json", "named by its source and its place there");

    // Each way to send a sample: it is measured, and decided on.
    let data = home.path().join("data");
    let ways: [(&str, i64, &dyn Fn()); 5] = [
        ("JSON", 30, &|| desk.python("send_json.py")),
        ("Kafka's own producer", 40, &|| desk.console_producer()),
        ("Avro", 50, &|| desk.python("send_avro.py")),
        ("OTLP", 20, &|| desk.python("send_otlp.py")),
        ("Confluent's serializer", 60, &|| desk.python("send_registered.py")),
    ];
    for (what, value, send) in ways {
        let count = usize::try_from(value / 10).unwrap();
        wait_for(&format!("a fleet of {count} by {what}"), || {
            send();
            (instances_of(&data, "workers") == count).then_some(())
        });
        signals.find(&format!("a pane of {value}"), |message| measured(message, value));
        let decision = follower.event("dev.loadline.Decision", |data| data["target"] == TARGET && data["desired"] == count);
        let said = [("ce_specversion", "1.0"), ("ce_source", "/loadline.audit"), ("ce_subject", TARGET), ("content-type", "application/avro")];
        said.iter().for_each(|(header, value)| assert_eq!(decision[header], *value, "{decision}"));
        assert!(decision["ce_time"].as_str().unwrap().ends_with('Z') && decision["ce_id"].as_str().unwrap().len() == 32, "{decision}");
    }

    // The file that cannot be used is an alert.
    let alert = follower.event("dev.loadline.Alert", |data| data["name"] == "PolicyInvalid");
    let said = [("ce_specversion", "1.0"), ("ce_source", "/loadline.alerts"), ("content-type", "application/avro")];
    said.iter().for_each(|(header, value)| assert_eq!(alert[header], *value, "{alert}"));
    assert!(alert["data"]["message"].as_str().unwrap().contains("broken.yaml"), "{alert}");
    let ids: BTreeSet<&str> = follower.events.iter().map(|event| event["ce_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), follower.events.len(), "each event has an id of its own");

    // Without a key, records stand in several partitions.
    wait_for("records in several partitions", || {
        desk.python("send_json.py");
        let used = (0..3).filter(|partition| !answered(|| log.range(Topic::Metrics, *partition)).is_empty()).count();
        (used > 1).then_some(())
    });

    // What cannot be used is put aside with its reason, and costs nothing else.
    let good = format!("{{\"target\":\"{TARGET}\",\"metric\":\"other\",\"value\":7}}");
    for (content_type, value, reason) in [
        (Some("text/plain"), good.clone(), "samples of type \"text/plain\" cannot be read"),
        (None, "queue_depth 3".to_owned(), "it begins neither as JSON nor as Avro does"),
        (Some("application/json"), format!("{good}\n{{\"target\":\"workers\",\"metric\":\"other\",\"value\":1}}"), "1 of 2 samples cannot be used: line 2: "),
    ] {
        send(&kafka, content_type, value.as_bytes());
        let letter = letters.find(reason, |message| dead_letter(message).filter(|letter| letter.reason.contains(reason)));
        assert_eq!((letter.topic.as_str(), letter.partition, letter.record), ("metrics", 1, value.into_bytes()));
        let line = format!("metrics 1 {}: {}", letter.offset, letter.reason);
        let printed = desk.run("python", &["letters.py"]);
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    signals.find("the good sample beside a broken one", |message| {
        let Message::Signal(Signal::Part(part)) = message else { return None };
        part.panes.iter().any(|pane| pane.metric.as_str() == "other").then_some(())
    });
    signals.find("it to be counted", |message| if let Message::Signal(Signal::Mark(mark)) = message { (mark.rejected == 1).then_some(()) } else { None });
    assert_eq!(loadline.stop(), 0);
}

/// A transaction that somebody leaves open on `metrics` hides what others send into its partition, and into no other one; no pane of it is taken for complete meanwhile. An alert
/// and `status` name it, and once it is ended as the page says all that stood behind it is measured, in time, and none of the transaction.
#[test]
fn a_transaction_of_others_that_is_left_open_is_named_and_what_it_hides_is_waited_for() {
    let broker = broker();
    let prefix = Broker::prefix();
    makes_topics(broker, &prefix, 2, &["--replication", "1"]);
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(LOADLINE);
    command.current_dir(home.path()).args(["run", "--brokers", &broker.address, "--roles", "ingest,aggregate,view", "--listen", "127.0.0.1:0", "--pane", "1s"]);
    command.args(["--set", &format!("kafka.prefix={prefix}"), "--set", "kafka.partitions=2", "--set", "kafka.replication=1"]).env_remove("LOADLINE_CONFIG");
    let loadline = Running::spawn(command);
    let shape = partitions_of(2);
    let log = Broker::open(&Options { partitions: Some(shape), ..broker.options(&prefix) });
    let [mut signals, mut alerts] = [Topic::Signals, Topic::Alerts].map(|topic| Tail::new(&log, topic));
    let metrics = format!("{prefix}metrics");
    let sample = |value: i64| format!("{{\"target\":\"{TARGET}\",\"metric\":\"queue_depth\",\"value\":{value}}}");
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &broker.address).create().unwrap();
    let sends = |partition: i32, value: i64| {
        let text = sample(value);
        let record: BaseRecord<'_, str, str> = BaseRecord::to(&metrics).partition(partition).payload(&text);
        producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
        producer.flush(PATIENCE).unwrap();
    };
    sends(0, 1);
    signals.find("a pane of 1", |message| measured(message, 1));
    let theirs = broker.leaves_open("theirs", &metrics, &sample(2));
    sends(0, 3);
    sends(1, 4);
    signals.find("a pane of 4", |message| measured(message, 4));
    let status = || {
        let output = Command::new(LOADLINE).args(["status", "--server", &loadline.url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let named = "! a producer's transaction is open at 1 of metrics/0 for ";
    let said = wait_for("it to be named", || Some(status()).filter(|said| said.contains(named)));
    assert!(said.contains(" s: aggregate reads nothing of the 2 offsets from there on") && !said.contains("metrics/1 for"), "{said}");
    let held = |state: AlertState| {
        move |message: &Message| {
            let Message::Alert(alert) = message else { return None };
            (alert.name == "PartitionHeld" && alert.subject == "metrics/0" && alert.state == state).then(|| alert.message.clone())
        }
    };
    let told = alerts.find("the alert", held(AlertState::Firing));
    assert!(told.contains("for want of the end of a producer's transaction: it is open at offset 1,"), "{told}");
    signals.look();
    let is_seen = |signals: &Tail, value: i64| signals.seen.iter().any(|message| measured(message, value).is_some());
    assert!(!is_seen(&signals, 2) && !is_seen(&signals, 3));

    let desk = Desk::new(&broker.address, "");
    let page = Page::read("docs/producers.md");
    let commands: Vec<String> = page.block("console").text.lines().map(|line| line.replace("loadline.metrics", &metrics)).collect();
    let [describe, abort] = &commands[..] else { panic!("{commands:?}") };
    let described = desk.run("sh", &["-c", describe]);
    let open_at = described.lines().find_map(|line| line.split_whitespace().last()?.parse::<i64>().ok().filter(|at| *at >= 0));
    assert_eq!(open_at, Some(1), "{described}");
    desk.run("sh", &["-c", &abort.replace("--start-offset 17", "--start-offset 1")]);
    signals.find("a pane of 3", |message| measured(message, 3));
    let is_late = |message: &Message| matches!(message, Message::Signal(Signal::Mark(mark)) if mark.late > 0);
    assert!(!signals.seen.iter().any(is_late), "it was waited for");
    alerts.find("the alert's end", held(AlertState::Resolved));
    assert!(!is_seen(&signals, 2), "none of what was aborted");
    wait_for("it to be forgotten", || (!status().contains("transaction")).then_some(()));
    assert_eq!(loadline.stop(), 0);
    drop(theirs);
}
