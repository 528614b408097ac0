//! `loadline topology` against a real broker: what is missing is created, what differs is told, and nothing that is there is ever changed.
//!
//! The broker creates topics for whoever asks for one that is missing (`auto.create.topics.enable`), as many clusters do: looking must not create any.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::OnceLock;

use loadline::log::kafka::topics::{Cluster, Difference, Found, Weight, look, wanted};
use loadline::log::kafka::{KafkaLog, Options};
use loadline::log::{Log, LogError, Topic};
use loadline::runtime::clock::Stopwatch;
use loadline::wire::schemas::RecordType;
use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;

use crate::common::PATIENCE;
use crate::kafka::{Broker, free_port, tool_at, wait_for};
use crate::proxy::{Api, Proxy, Side};

/// The topics that are declared.
const TOPICS: usize = 13;

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(&["auto.create.topics.enable=true"], &[]))
}

fn loadline(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadline")).arg("topology").args(args).env_remove("LOADLINE_CONFIG").output().unwrap()
}

/// Runs it on the broker, for an installation with a replica each; answers with the exit code and what it printed.
fn topology(command: &str, prefix: &str, more: &[&str]) -> (i32, String) {
    let output = loadline(&[&[command, "--brokers", &broker().address, "--prefix", prefix, "--replication", "1"], more].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn json(command: &str, prefix: &str, more: &[&str]) -> (i32, Value) {
    let (code, text) = topology(command, prefix, &[more, &["--output", "json"]].concat());
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// What the JSON says that differs: topic without its prefix, setting, what was found, how bad it is.
fn differences(answer: &Value, prefix: &str) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let said = |difference: &Value| {
        let topic = text(&difference["topic"]);
        let topic = topic.strip_prefix(prefix).unwrap_or_else(|| panic!("{topic} is not of {prefix}"));
        format!("{topic} {} {} {}", text(&difference["setting"]), text(&difference["found"]), text(&difference["weight"]))
    };
    answer["differences"].as_array().unwrap().iter().map(said).collect()
}

/// Everything that the broker says of the topics with a prefix: partitions, replicas and every setting, by a client of its own.
fn everything(prefix: &str) -> BTreeMap<String, BTreeMap<String, Option<String>>> {
    let reader: BaseConsumer = rdkafka::ClientConfig::new().set("bootstrap.servers", &broker().address).create().unwrap();
    let metadata = reader.fetch_metadata(None, PATIENCE).unwrap();
    let admin = broker().admin();
    let of_prefix = metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix));
    let described = of_prefix.map(|topic| {
        let answer = wait_for(admin.describe_configs([&ResourceSpecifier::Topic(topic.name())], &AdminOptions::new())).unwrap();
        let mut all: BTreeMap<String, Option<String>> =
            answer.into_iter().next().unwrap().unwrap().entries.into_iter().map(|entry| (entry.name, entry.value)).collect();
        let partitions = topic.partitions().iter().map(|partition| format!("{}:{:?}", partition.id(), partition.replicas())).collect::<Vec<_>>();
        all.insert("(partitions)".to_owned(), Some(partitions.join(" ")));
        (topic.name().to_owned(), all)
    });
    described.collect()
}

/// A new cluster: all is missing, and only said to be; `apply` creates it as declared; then all fits, and a second one changes nothing. Another
/// installation on the cluster has topics of its own.
#[test]
fn an_empty_cluster_gets_all_topics_once() {
    let prefix = Broker::prefix();
    let (code, answer) = json("check", &prefix, &[]);
    assert_eq!((code, &answer["fits"]), (1, &false.into()), "{answer}");
    assert_eq!(differences(&answer, &prefix).len(), TOPICS);
    assert!(differences(&answer, &prefix).contains("signals – missing Missing"), "{answer}");
    let (code, text) = topology("apply", &prefix, &["--dry-run"]);
    assert_eq!((code, text.matches("would create ").count()), (0, TOPICS), "{text}");
    assert!(text.ends_with("All 13 topics are to be created.\n"), "{text}");
    assert_eq!(everything(&prefix), BTreeMap::new(), "looking and asking created nothing, though the broker creates what is asked for");

    let (code, text) = topology("apply", &prefix, &[]);
    assert_eq!((code, text.matches("created ").count()), (0, TOPICS), "{text}");
    assert!(text.contains(&format!("created {prefix}signals (12 partitions, 1 replica)\n")), "{text}");
    let schemas = RecordType::ALL.len();
    let end = format!(
        "All 13 topics are there.\n{schemas} schemas by which this release writes were put on {prefix}schemas.\nIts processes say the same: `loadline run --set kafka.prefix={prefix} --set kafka.replication=1`, or so in their configuration.\n"
    );
    assert!(text.ends_with(&end), "{text}");
    let before = everything(&prefix);
    let setting = |topic: &str, name: &str| before[&format!("{prefix}{topic}")][name].clone().unwrap();
    assert_eq!(before.len(), TOPICS);
    assert_eq!(["metrics", "control", "audit"].map(|topic| setting(topic, "retention.ms")), ["21600000", "5270400000", "7776000000"]);
    assert_eq!(["signals", "decide-state"].map(|topic| setting(topic, "cleanup.policy")), ["delete", "compact"]);
    for topic in before.keys() {
        let name = topic.strip_prefix(&prefix).unwrap();
        assert_eq!(
            [setting(name, "message.timestamp.type"), setting(name, "min.insync.replicas"), setting(name, "max.message.bytes")],
            ["LogAppendTime", "1", "589824"]
        );
    }

    assert_eq!(topology("check", &prefix, &[]), (0, "13 topics, all as declared.\n".to_owned()));
    let again = "13 of 13 topics were there already, and are as they were; all are as declared.\n";
    assert_eq!(topology("apply", &prefix, &[]), (0, again.to_owned()));
    assert_eq!(everything(&prefix), before);
    let other = Broker::prefix();
    assert_eq!(topology("apply", &other, &["--partitions", "2"]).0, 0);
    assert_eq!(topology("check", &other, &["--partitions", "2"]).0, 0);
    assert_eq!((everything(&prefix), everything(&other).len()), (before, TOPICS), "each installation has its own");

    let log = KafkaLog::open(Options { partitions: None, ..broker().options(&prefix) }).unwrap();
    assert_eq!((log.partitions(Topic::Signals), log.partitions(Topic::Control), log.differences()), (12, 1, &[][..]));
}

/// Whoever made the topics by hand is told all that is not as it must be, and how bad that is; `apply` adds what is missing and changes none of
/// it; what would corrupt is refused; and the commands that are printed mend what they say.
#[test]
fn what_differs_is_told_and_never_changed() {
    let prefix = Broker::prefix();
    let mine = |topic: &str| format!("{prefix}{topic}");
    let as_declared = |topic: &str| -> BTreeMap<String, String> {
        let wanted = wanted(&broker().options(&prefix)).unwrap();
        wanted.into_iter().find(|wanted| wanted.name == mine(topic)).unwrap().settings
    };
    let by_hand = |topic: &str, partitions: i32, changed: &[(&str, &str)]| {
        let mut settings = as_declared(topic);
        settings.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        broker().create_topic(&mine(topic), partitions, &settings);
    };
    by_hand("metrics", 6, &[]);
    by_hand("aggregate-state", 6, &[("cleanup.policy", "delete")]);
    by_hand("signals", 12, &[("message.timestamp.type", "CreateTime"), ("retention.ms", "3600000")]);
    by_hand("decide-state", 8, &[]);
    by_hand("control", 1, &[("cleanup.policy", "compact"), ("retention.bytes", "1000000")]);
    by_hand("audit", 12, &[("retention.ms", "-1"), ("unclean.leader.election.enable", "true")]);
    by_hand("commands", 24, &[("min.insync.replicas", "2"), ("max.message.bytes", "100000")]);
    let differ: BTreeSet<String> = [
        "metrics partitions 6 Differs",
        "aggregate-state cleanup.policy delete Corrupts",
        "signals message.timestamp.type CreateTime Corrupts",
        "signals retention.ms 3600000 Loses",
        "decide-state partitions 8 Corrupts",
        "control cleanup.policy compact Corrupts",
        "control retention.bytes 1000000 Loses",
        "audit retention.ms -1 Differs",
        "audit unclean.leader.election.enable true Loses",
        "commands partitions 24 Differs",
        "commands min.insync.replicas 2 Stops",
        "commands max.message.bytes 100000 Stops",
    ]
    .map(ToOwned::to_owned)
    .into();
    let before = everything(&prefix);
    assert_eq!(before.len(), 7);

    let (code, answer) = json("check", &prefix, &[]);
    assert_eq!((code, differences(&answer, &prefix).len()), (1, differ.len() + TOPICS - 7));
    assert!(differ.is_subset(&differences(&answer, &prefix)), "{answer}");
    let (code, answer) = json("apply", &prefix, &[]);
    assert_eq!((code, answer["created"].as_array().unwrap().len()), (1, TOPICS - 7), "something would corrupt");
    assert_eq!(differences(&answer, &prefix), differ);
    let (code, text) = topology("apply", &prefix, &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("13 of 13 topics were there already, and are as they were.\n"), "{text}");
    assert!(text.contains("LOSES"), "{text}");
    assert!(text.contains("3600000 (1h)"), "{text}");
    let mut after = everything(&prefix);
    after.retain(|topic, _| before.contains_key(topic));
    assert_eq!(after, before, "nothing that was there was changed");

    let Err(LogError::Fatal { reason }) = KafkaLog::open(Options { partitions: None, ..broker().options(&prefix) }) else { panic!("it opened") };
    assert!(reason.starts_with("the topics do not fit, and Loadline does not run on them: "), "{reason}");
    assert!(reason.contains("(5 more)"), "those that merely differ are no reason: {reason}");

    // A state that has fewer partitions than its input may grow, and so may metrics, with the state of aggregate.
    let shape = ["--partitions", "commands=24"];
    for _ in 0..2 {
        let (_, answer) = json("check", &prefix, &shape);
        for difference in answer["differences"].as_array().unwrap() {
            carry_out(difference["mend"].as_str().unwrap());
        }
        until_seen(&prefix, &answer);
    }
    assert_eq!(topology("check", &prefix, &shape), (0, "13 topics, all as declared.\n".to_owned()));
}

/// Runs the last command that a mend names, with the tools of Kafka.
fn carry_out(mend: &str) {
    static TOOLS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for (tool, class) in [("kafka-configs.sh", "kafka.admin.ConfigCommand"), ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand")] {
            tool_at(&folder.path().join(tool), class);
        }
        folder
    });
    let command = mend.rsplit('`').nth(1).unwrap_or_else(|| panic!("no command: {mend}"));
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").args(["-c", command]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{command}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// Waits until the broker shows that what was told is mended: it follows its controller a moment later.
fn until_seen(prefix: &str, told: &Value) {
    let started = Stopwatch::start();
    while differences(&json("check", prefix, &["--partitions", "commands=24"]).1, prefix).intersection(&differences(told, prefix)).next().is_some() {
        assert!(started.elapsed() < PATIENCE, "it stays as it was: {told}");
    }
}

/// Two at once create everything once between them, and both are content.
#[test]
fn two_at_once_are_fine() {
    let prefix = Broker::prefix();
    let answers = std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| json("apply", &prefix, &[]))).collect();
        both.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let mut created: Vec<String> = Vec::new();
    for (code, answer) in &answers {
        assert_eq!((*code, differences(answer, &prefix)), (0, BTreeSet::new()), "{answer}");
        created.extend(answer["created"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
    }
    created.sort();
    assert_eq!(created, everything(&prefix).into_keys().collect::<Vec<_>>());
    assert_eq!(created.len(), TOPICS);
    assert_eq!(topology("check", &prefix, &[]).0, 0);
}

/// What `run` says where it does not come to run, on these topics and without policies.
fn run(prefix: &str, more: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .args([env!("CARGO_BIN_EXE_loadline"), "run", "--brokers", &broker().address, "--listen", "127.0.0.1:0", "--policies", "no-such-policies"])
        .args(["--set", &format!("kafka.prefix={prefix}"), "--set", "kafka.replication=1"])
        .args(more)
        .current_dir(folder.path())
        .env_remove("LOADLINE_CONFIG")
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// Two that disagree about the shape: what was first stays, every state fits its input, and who finds another shape than it was told says so.
#[test]
fn two_at_once_with_other_partitions_leave_states_that_fit() {
    let prefix = Broker::prefix();
    let codes: BTreeSet<i32> = std::thread::scope(|scope| {
        let (a, b) =
            (scope.spawn(|| topology("apply", &prefix, &["--partitions", "2"]).0), scope.spawn(|| topology("apply", &prefix, &["--partitions", "3"]).0));
        [a.join().unwrap(), b.join().unwrap()].into()
    });
    assert!(codes.contains(&1), "signals have one number of partitions, which one of them was not told: {codes:?}");
    let there = everything(&prefix);
    let partitions = |topic: &str| there[&format!("{prefix}{topic}")]["(partitions)"].clone();
    for (state, input) in [("aggregate-state", "metrics"), ("admit-state", "control"), ("decide-state", "signals"), ("arbitrate-state", "requests")] {
        assert_eq!(partitions(state), partitions(input), "{state}");
    }
}

/// With signals enlarged after they were created each target's signals would stand in two partitions: refused until it is said that this is how
/// the installation was made. A state that is missing is created to fit its input.
#[test]
fn another_number_of_partitions_is_refused() {
    let prefix = Broker::prefix();
    assert_eq!(topology("apply", &prefix, &["--partitions", "2"]).0, 0);
    let (code, answer) = json("check", &prefix, &[]);
    assert_eq!(code, 1);
    let expected = ["signals partitions 2 Corrupts", "metrics partitions 2 Differs", "commands partitions 2 Differs", "audit partitions 2 Loses"];
    assert_eq!(differences(&answer, &prefix), expected.map(ToOwned::to_owned).into());
    let Err(LogError::Fatal { reason }) = KafkaLog::open(Options { partitions: None, ..broker().options(&prefix) }) else { panic!("it opened") };
    assert!(reason.contains("signals: partitions is 2, declared is 12: The signals of a target would stand in two partitions"), "{reason}");
    assert!(reason.contains("--partitions signals=2"), "{reason}");
    let (code, text) = run(&prefix, &[]);
    assert!(code == 2 && text.contains(&reason), "{code}: {text}");
    // Once it is said the same topics are fine, and `run` gets as far as a folder of policies that is not there.
    let (code, text) = run(&prefix, &["--set", "kafka.partitions=2"]);
    assert!(code == 2 && text.contains("the log is on Kafka") && text.contains("no-such-policies"), "{code}: {text}");

    let other = Broker::prefix();
    broker().create_topic(&format!("{other}signals"), 3, &[]);
    assert_eq!(topology("apply", &other, &[]).0, 1);
    let options = broker().options(&other);
    let Cluster { topics, .. } = look(&options, &wanted(&options).unwrap()).unwrap();
    let Found::There(state) = &topics[&format!("{other}decide-state")] else { panic!("{topics:?}") };
    assert_eq!(state.partitions, 3);
}

/// What differs and does no harm is no reason not to run, and told.
#[test]
fn what_merely_differs_is_told_when_the_log_is_opened() {
    let prefix = Broker::prefix();
    assert_eq!(topology("apply", &prefix, &[]).0, 0);
    let log = KafkaLog::open(Options { partitions: None, replicas: None, ..broker().options(&prefix) }).unwrap();
    let told: BTreeSet<(&str, Option<&str>, Weight)> =
        log.differences().iter().map(|Difference { topic, setting, weight, .. }| (topic.as_str(), setting.as_deref(), *weight)).collect();
    let all = wanted(&broker().options(&prefix)).unwrap();
    assert_eq!(told, all.iter().map(|topic| (topic.name.as_str(), Some("replicas"), Weight::Loses)).collect());
}

/// A cluster that is too small says so, with what to say instead.
#[test]
fn more_replicas_than_brokers_are_refused() {
    let prefix = Broker::prefix();
    let output = loadline(&["apply", "--brokers", &broker().address, "--prefix", &prefix]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("loadline: the cluster does not create ")
            && text.contains("3 replicas are asked for, and it has 1 broker: start more, or say --replication 1"),
        "{text}"
    );
    assert_eq!(everything(&prefix), BTreeMap::new());
}

/// A broker that was late to be heard of is left out of its cluster for a moment, which has enough of them a moment later.
#[test]
fn topics_are_made_by_a_cluster_that_leaves_its_brokers_out_for_a_moment() {
    let ports = [free_port(), free_port()];
    let proxy = Proxy::before(ports[0]);
    let advertised = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{}", proxy.port);
    let mut broker = Broker::start_at(ports, &[&advertised], &[]);
    broker.is_seldom_heard_of(2_000, 600);
    let prefix = Broker::prefix();
    let held = proxy.hold(Side::Request, Api::CreateTopics, &[&prefix]);
    let brokers = format!("127.0.0.1:{}", proxy.port);
    let (at, of) = (brokers.clone(), prefix.clone());
    let applies = std::thread::spawn(move || loadline(&["apply", "--brokers", &at, "--prefix", &of, "--replication", "1", "--wait", "60s"]));
    held.arrives();
    let before = broker.times_left_out();
    crate::common::wait_for("it to be left out", || (broker.times_left_out() > before).then_some(()));
    held.goes_on();
    let output = applies.join().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("created ").count(), TOPICS, "{text}");
    broker.is_heard_of();
    let output = loadline(&["check", "--brokers", &brokers, "--prefix", &prefix, "--replication", "1"]);
    assert_eq!(String::from_utf8([output.stdout, output.stderr].concat()).unwrap(), "13 topics, all as declared.\n");
}

/// Where nobody answers it says where it asked, how long, what it heard, and what to look at.
#[test]
fn no_broker_there_is_told_with_what_to_check() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for command in ["check", "apply"] {
        let output = loadline(&[command, "--brokers", &format!("127.0.0.1:{port}"), "--wait", "1s"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{text}");
        assert!(text.starts_with(&format!("loadline: no broker answers at 127.0.0.1:{port} (waited 1 s): ")), "{text}");
        assert!(text.contains("Connection refused") && text.contains("check that a broker runs there"), "{text}");
        assert!(!text.contains("tried again"), "{text}");
    }
}

/// A cluster with users and rights: a wrong password is told at once and without it; what a user may not see is unknown, and neither missing nor
/// fine; a file has the settings.
#[test]
fn users_and_rights_are_told_apart_from_what_is_there() {
    let broker = Broker::with_users(&["looker"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kafka.properties");
    let run = |command: &str, user: &str, password: &str| {
        std::fs::write(&file, broker.properties(user, password)).unwrap();
        let wait = format!("{}s", PATIENCE.as_secs());
        let where_to = ["--kafka-config", file.to_str().unwrap(), "--prefix", "ready.", "--partitions", "1", "--replication", "1", "--wait", &wait];
        let output = loadline(&[&[command][..], &where_to].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains(password), "{text}");
        (output.status.code().unwrap(), text)
    };
    assert_eq!(run("check", "admin", "admins-word"), (0, "13 topics, all as declared.\n".to_owned()));
    let started = Stopwatch::start();
    let (code, text) = run("check", "admin", "a-wrong-word");
    assert_eq!(code, 2, "{text}");
    assert!(text.starts_with(&format!("loadline: {} refuses this client: ", broker.address)), "{text}");
    assert!(text.contains("Invalid username or password") && text.contains("sasl.mechanism"), "{text}");
    assert!(started.elapsed() < PATIENCE, "waiting changes nothing");

    // A user without any rights.
    let (code, text) = run("check", "looker", "lookers-word");
    assert_eq!((code, text.contains("UNKNOWN"), text.contains("MISSING")), (2, true, false), "{text}");
    assert!(text.contains("This user needs the rights Describe and DescribeConfigs on the topics with the prefix."), "{text}");
    let (code, text) = run("apply", "looker", "lookers-word");
    assert_eq!((code, text.contains("created "), text.contains("there already")), (2, false, false), "{text}");
    // One that sees the topics, and not their settings.
    broker.acls(&["--add", "--allow-principal", "User:looker", "--operation", "Describe", "--topic", "ready.", "--resource-pattern-type", "prefixed"]);
    let started = Stopwatch::start();
    let (code, text) = loop {
        let (code, text) = run("check", "looker", "lookers-word");
        if text.contains(" settings ") || started.elapsed() > PATIENCE {
            break (code, text);
        }
    };
    assert_eq!((code, text.matches("UNKNOWN").count()), (2, TOPICS + 1), "{text}");
    assert!(text.contains("The cluster does not tell its settings, so whether they fit is not known."), "{text}");
}

/// A cluster over TLS: who trusts it and has the password is let in, by SCRAM or with the password as it is; everybody else is told what is wrong, at once
/// where waiting changes nothing.
#[test]
fn a_cluster_over_tls_is_reached_or_it_is_told_what_is_wrong() {
    let broker = Broker::with_tls(&[]);
    let folder = tempfile::tempdir().unwrap();
    let [_, stranger] = Broker::certificate(&folder.path().join("stranger"));
    let file = folder.path().join("kafka.properties");
    let good = broker.properties("admin", &Broker::password("admin"));
    let waits = |wait: &str, settings: &str| {
        std::fs::write(&file, settings).unwrap();
        let where_to = ["--kafka-config", file.to_str().unwrap(), "--prefix", "ready.", "--partitions", "1", "--replication", "1", "--wait", wait];
        let output = loadline(&[&["check"][..], &where_to].concat());
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let run = |settings: &str| waits(&format!("{}s", PATIENCE.as_secs()), settings);
    assert!(good.contains("SASL_SSL") && good.contains("SCRAM-SHA-512"), "{good}");
    for way in [good.clone(), good.replace("SCRAM-SHA-512", "PLAIN")] {
        assert_eq!(run(&way), (0, "13 topics, all as declared.\n".to_owned()));
    }
    let authority = good.lines().find_map(|line| line.strip_prefix("ssl.ca.location=")).unwrap();
    let started = Stopwatch::start();
    for (what, settings, reason) in [
        ("a wrong password", good.replace(&Broker::password("admin"), "a-wrong-word"), "SASL authentication error"),
        ("an authority that is not the broker's", good.replace(authority, stranger.to_str().unwrap()), "certificate"),
        ("no authority", good.replace(&format!("ssl.ca.location={authority}\n"), ""), "certificate"),
    ] {
        let (code, text) = run(&settings);
        assert_eq!(code, 2, "{what}: {text}");
        assert!(text.starts_with(&format!("loadline: {} refuses this client: ", broker.address)) && text.contains(reason), "{what}: {text}");
        assert!(text.contains("see security.protocol, sasl.mechanism, and the user, password or certificates"), "{what}: {text}");
        assert!(!text.contains("a-wrong-word"), "{text}");
    }
    assert!(started.elapsed() < PATIENCE, "waiting changes nothing");
    // Without TLS the broker only hangs up.
    let (code, text) = waits("10s", &good.replace("SASL_SSL", "SASL_PLAINTEXT"));
    assert!(code == 2 && text.contains("where it expects TLS or a password, that the settings of the client say so (security.protocol)"), "{text}");
    // A file that is not there is told before anything is asked.
    let (code, text) = run(&good.replace(authority, "/nowhere/ca.pem"));
    assert!(code == 2 && text.contains("ssl.ca.location") && text.contains("/nowhere/ca.pem"), "{text}");
}

/// A cluster that asks for a certificate in place of a password: who has none is told so, who has one is let in.
#[test]
fn a_client_is_known_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    // The broker's own certificate is the one that it trusts, too.
    let [keys, authority] = Broker::certificate(&folder.path().join("keys"));
    let [keys, authority] = [&keys, &authority].map(|path| path.to_str().unwrap());
    let settings = [
        "listener.security.protocol.map=PLAINTEXT:SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name=PLAINTEXT",
        "ssl.client.auth=required",
        "ssl.keystore.type=PKCS12",
        "ssl.keystore.password=loadline",
        "ssl.truststore.type=PEM",
        &format!("ssl.keystore.location={keys}"),
        &format!("ssl.truststore.location={authority}"),
    ];
    let trusts = [("security.protocol", "SSL"), ("ssl.ca.location", authority)];
    let is_known = [("ssl.keystore.location", keys), ("ssl.keystore.password", "loadline")];
    let broker = Broker::start(&settings, &[trusts, is_known].concat());
    let applies = |settings: &[(&str, &str)]| {
        let file = folder.path().join("kafka.properties");
        std::fs::write(&file, settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n")).unwrap();
        let output = loadline(&["apply", "--brokers", &broker.address, "--replication", "1", "--wait", "5s", "--kafka-config", file.to_str().unwrap()]);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = applies(&trusts);
    assert!(code == Some(2) && said.contains("certificate"), "{code:?}: {said}");
    let (code, said) = applies(&[trusts, is_known].concat());
    assert_eq!(code, Some(0), "{said}");
}
