//! The declaration is whole, valid, and says what the program does; the page shows it; settings are read and secrets kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::cli::config::{ConfigArgs, Role as ProcessRole};
use crate::log::kafka::declaration::{Declared, TEXT, declared};
use crate::log::kafka::topics::{Cluster, Found, There, Wanted};
use crate::runtime::retention::Limits;
use crate::stages::Stage;
use crate::stages::admit::Admit;
use crate::stages::aggregate::Aggregate;
use crate::stages::arbitrate::Arbitrate;
use crate::stages::decide::Decide;
use crate::wire::schemas::{self, RecordType};
use crate::wire::{self, WireError};

fn document() -> Value {
    serde_saphyr::from_str(TEXT).unwrap()
}

fn of(topic: Topic) -> &'static Declared {
    declared().unwrap().iter().find(|declared| declared.role == Role::Flow(topic)).unwrap()
}

#[test]
fn the_prefix_of_names_is_the_declared_one() {
    assert!(TEXT.contains(&format!("    prefix:\n      default: {PREFIX}\n")), "parameters.prefix.default is not {PREFIX}");
}

/// Every topic of the pipeline and the state of every stage that keeps one are declared, and nothing else.
#[test]
fn the_declaration_has_every_topic_and_nothing_else() {
    let names: Vec<&str> = declared().unwrap().iter().map(|topic| topic.name.as_str()).collect();
    let mut expected: Vec<String> = Topic::ALL.iter().map(ToString::to_string).collect();
    let stages = [(Aggregate::NAME, Aggregate::INPUT), (Admit::NAME, Admit::INPUT), (Decide::NAME, Decide::INPUT), (Arbitrate::NAME, Arbitrate::INPUT)];
    expected.extend(stages.iter().map(|(stage, _)| format!("{stage}-state")));
    assert_eq!(names, expected);
    for (stage, input) in stages {
        let state = declared().unwrap().iter().find(|topic| topic.name == format!("{stage}-state")).unwrap();
        assert_eq!(state.role, Role::State { stage: stage.to_owned(), input });
        assert_eq!((state.partitions, state.replicas), (of(input).partitions, of(input).replicas), "{stage}");
        assert_eq!((&state.writers[..], &state.readers[..]), (&[stage.to_owned()][..], &[stage.to_owned()][..]));
        assert!(of(input).readers.iter().any(|reader| reader == stage), "{stage} reads {input}");
    }
    let roles: BTreeSet<String> = ProcessRole::all().iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    let parts = declared().unwrap().iter().flat_map(|topic| topic.writers.iter().chain(&topic.readers)).cloned().collect();
    let roles: BTreeSet<String> = roles.into_iter().chain([super::acls::MIGRATE.to_owned()]).collect();
    assert_eq!(roles, parts, "each role, and `migrate`, reads or writes something, and nobody else does");
}

/// It is AsyncAPI by AsyncAPI's own schema, the Kafka bindings too.
#[test]
fn the_declaration_is_asyncapi() {
    let schema = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vendor/asyncapi/asyncapi-3.0.0.json"));
    let (mut compiler, mut schemas) = (boon::Compiler::new(), boon::Schemas::new());
    compiler.add_resource("asyncapi.json", serde_json::from_str(schema).unwrap()).unwrap();
    let index = compiler.compile("asyncapi.json", &mut schemas).unwrap();
    let mut document = document();
    schemas.validate(&document, index).unwrap_or_else(|error| panic!("{error:#}"));
    document["channels"]["signals"]["bindings"]["kafka"]["partitions"] = 0.into();
    assert!(schemas.validate(&document, index).is_err(), "the schema checks nothing");
}

/// Every reference leads somewhere; every schema that is named exists, and every schema that exists is named.
#[test]
fn every_reference_of_the_declaration_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match (name.as_str(), value) {
                ("$ref", Value::String(to)) => found.push(to),
                (_, value) => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    let (here, elsewhere): (Vec<&str>, Vec<&str>) = found.iter().partition(|to| to.starts_with('#'));
    assert!(here.len() > 100, "{}", here.len());
    for to in here {
        assert!(document.pointer(&to[1..]).is_some(), "{to}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topology");
    for to in &elsewhere {
        assert!(folder.join(to).is_file(), "{to}");
    }
    let named: BTreeSet<String> = elsewhere.iter().map(|to| Path::new(to).file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(named, RecordType::ALL.iter().map(|record| record.name().to_owned()).collect());
    for operation in document["operations"].as_object().unwrap().values() {
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        for message in operation["messages"].as_array().into_iter().flatten() {
            assert!(message["$ref"].as_str().unwrap().starts_with(&format!("{channel}/messages/")), "{operation}");
        }
    }
}

/// The messages that are declared for a topic are those that its readers take there.
#[test]
fn the_declared_messages_are_those_that_readers_take() {
    for topic in Topic::ALL {
        let taken = |record: &&RecordType| {
            let fingerprint = schemas::held().unwrap().fingerprint_of(**record).to_le_bytes();
            let bytes = [&[0xC3, 0x01][..], &fingerprint, b"no body of any"].concat();
            !matches!(wire::decode(topic, &bytes), Err(WireError::WrongTopic { .. }))
        };
        let taken: BTreeSet<&str> = RecordType::ALL.iter().filter(taken).map(|record| record.name()).collect();
        assert_eq!(of(topic).messages.iter().map(String::as_str).collect::<BTreeSet<_>>(), taken, "{topic}");
    }
}

/// What promises rest on is the same for all topics, and records are kept as long as on the embedded log.
#[test]
fn the_declared_settings_are_those_that_promises_rest_on() {
    for topic in declared().unwrap() {
        let setting = |name: &str| topic.settings.get(name).map(String::as_str);
        assert_eq!(setting("message.timestamp.type"), Some("LogAppendTime"), "{}", topic.name);
        assert_eq!(setting("unclean.leader.election.enable"), Some("false"), "{}", topic.name);
        assert_eq!(setting("max.message.bytes"), Some(crate::log::kafka::LARGEST_MESSAGE.to_string().as_str()), "{}", topic.name);
        assert_eq!((topic.replicas, setting("min.insync.replicas")), (3, Some("2")), "{}", topic.name);
        let is_state = matches!(topic.role, Role::State { .. });
        let of_keys = is_state || topic.role == Role::Flow(Topic::Schemas);
        assert_eq!(setting("cleanup.policy"), Some(if of_keys { "compact" } else { "delete" }), "{}", topic.name);
        assert_eq!(setting("retention.ms").is_some(), !of_keys, "{}", topic.name);
        assert!(!matches!(topic.other_partitions, Weight::Missing | Weight::Unknown | Weight::Stops), "{}", topic.name);
    }
    let ages = Limits::default().ages;
    let days = |days: u64| std::time::Duration::from_secs(days * 86_400);
    for (topic, age) in [
        (Topic::Metrics, ages.metrics),
        (Topic::Control, days(61)),
        (Topic::Signals, ages.signals),
        (Topic::Requests, ages.requests),
        (Topic::Commands, ages.commands),
        (Topic::Audit, ages.audit),
        (Topic::Alerts, ages.alerts),
        (Topic::DeadLetters, ages.dead_letters),
    ] {
        assert_eq!(of(topic).settings["retention.ms"], age.as_millis().to_string(), "{topic}");
    }
}

/// The table of the page is what the declaration says.
#[test]
fn the_page_shows_the_declared_topics() {
    let mut table = "| topic | partitions | cleanup | kept | key | written by | read by |\n|---|---|---|---|---|---|---|\n".to_owned();
    for topic in declared().unwrap() {
        let kept = topic.settings.get("retention.ms").map_or_else(|| "–".to_owned(), |ms| declaration::age(ms));
        let partitions = match &topic.role {
            Role::Flow(_) if topic.fixed => format!("{}, always", topic.partitions),
            Role::Flow(_) => topic.partitions.to_string(),
            Role::State { input, .. } => format!("as `{input}`"),
        };
        let (cleanup, key) = (&topic.settings["cleanup.policy"], &topic.key);
        let writers = if topic.writers.is_empty() { "`topology apply`, and who may".to_owned() } else { topic.writers.join(", ") };
        writeln!(table, "| `{}` | {partitions} | {cleanup} | {kept} | {key} | {writers} | {} |", topic.name, topic.readers.join(", ")).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kafka.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- topics: of topology/asyncapi.yaml -->\n").unwrap();
    let (shown, after) = rest.split_once("<!-- end of topics -->").unwrap();
    if std::env::var_os("DOCS").is_some_and(|v| v == "write") {
        std::fs::write(&path, format!("{before}<!-- topics: of topology/asyncapi.yaml -->\n{table}<!-- end of topics -->{after}")).unwrap();
    } else {
        assert_eq!(shown, table, "DOCS=write cargo test -p loadline --lib the_page_shows_the_declared_topics writes it");
    }
}

/// What `check` prints is what the page shows.
#[test]
fn the_page_shows_what_check_prints() {
    let wanted = topics::wanted(&Options::new("kafka-1:9092")).unwrap();
    let there = |topic: &Wanted| {
        Found::There(There { partitions: topic.partitions, replicas: topic.replicas, unled: Vec::new(), settings: Some(topic.settings.clone()) })
    };
    let mut cluster = Cluster { brokers: Vec::new(), topics: wanted.iter().map(|topic| (topic.name.clone(), there(topic))).collect() };
    for (topic, change) in [("loadline.signals", ("retention.ms", "3600000")), ("loadline.decide-state", ("partitions", "8"))] {
        let Some(Found::There(there)) = cluster.topics.get_mut(topic) else { panic!("{topic}") };
        match change {
            ("partitions", count) => there.partitions = count.parse().unwrap(),
            (setting, value) => drop(there.settings.as_mut().unwrap().insert(setting.to_owned(), value.to_owned())),
        }
    }
    let found = topics::compare("kafka-1:9092", &wanted, &cluster);
    let mut out = Vec::new();
    differences(&mut out, &found, Paint::PLAIN).unwrap();
    let printed = String::from_utf8(out).unwrap();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kafka.md")).unwrap();
    assert!(page.contains(&printed), "{printed}");
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: TopologyArgs,
}

fn ran(line: &[&str]) -> Result<String, String> {
    let mut out = Vec::new();
    let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
    match run(&line.args, &mut out) {
        Ok(FITS) => Ok(String::from_utf8(out).unwrap()),
        Ok(code) => Err(format!("exit code {code}")),
        Err(error) => {
            assert_eq!(crate::cli::exit_code(&error), 2, "{error}");
            Err(error.to_string())
        }
    }
}

/// The topics of an installation of one's own: with its prefix, partitions and replicas.
#[test]
fn topics_are_shown_as_an_installation_has_them() {
    let text = ran(&["show"]).unwrap();
    assert!(text.lines().any(|line| line.split_whitespace().take(4).eq(["loadline.signals", "12", "3", "delete"])), "{text}");
    assert!(text.ends_with("All of them:\n  max.message.bytes=589824\n  message.timestamp.type=LogAppendTime\n  min.insync.replicas=2\n  unclean.leader.election.enable=false\n"), "{text}");
    let text =
        ran(&["show", "--prefix", "prod.", "--partitions", "metrics=48,requests=2", "--partitions", "24", "--replication", "1", "--output", "json"]).unwrap();
    let topics: Vec<Value> = serde_json::from_str(&text).unwrap();
    let partitions: BTreeMap<&str, u64> = topics.iter().map(|topic| (topic["topic"].as_str().unwrap(), topic["partitions"].as_u64().unwrap())).collect();
    let expected = [
        ("prod.metrics", 48),
        ("prod.control", 1),
        ("prod.signals", 24),
        ("prod.requests", 2),
        ("prod.commands", 24),
        ("prod.audit", 24),
        ("prod.alerts", 1),
        ("prod.dead-letters", 1),
        ("prod.schemas", 1),
        ("prod.aggregate-state", 48),
        ("prod.admit-state", 1),
        ("prod.decide-state", 24),
        ("prod.arbitrate-state", 2),
    ];
    assert_eq!(partitions, expected.into_iter().collect());
    let signals = &topics[2];
    assert_eq!(
        (&signals["replicas"], &signals["settings"]["min.insync.replicas"], &signals["readBy"]),
        (&1.into(), &"1".into(), &serde_json::json!(["decide", "migrate", "view"]))
    );
    let in_sync = |replicas: &str| -> Value {
        let text = ran(&["show", "--replication", replicas, "--output", "json"]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0]["settings"]["min.insync.replicas"].clone()
    };
    assert_eq!([in_sync("2"), in_sync("3"), in_sync("5")], ["1", "2", "2"], "one replica may be away, where there is another");
}

#[test]
fn what_cannot_be_is_named_with_the_way_out() {
    for (line, message) in [
        (&["--partitions", "0"][..], "--partitions 0: not a number from 1 to 10000"),
        (&["--partitions", "signals=x"], "--partitions x: not a number from 1 to 10000"),
        (&["--partitions", "signals=5,loadline.signals=6"], "--partitions signals=5,loadline.signals=6: the partitions of signals have two numbers; write one"),
        (&["--partitions", "5,6"], "--partitions 5,6: all topics together have two numbers; write one"),
        (&["--partitions", "decide-state=3"], "--partitions decide-state=3: it has as many as signals, so say signals=3"),
        (
            &["--partitions", "signal=3"],
            "--partitions signal=3: there is no topic signal; they are metrics, control, signals, requests, commands, audit, alerts, dead-letters, schemas",
        ),
        (
            &["--prefix", "a/b"],
            "--prefix a/b: names of topics are of letters, digits, dots, underscores and hyphens, at most 249 together, so the prefix has at most 234",
        ),
        (&["--prefix", ""], "--prefix \"\": it is empty; name one, as in loadline., or leave it out"),
    ] {
        assert_eq!(ran(&[&["show"], line].concat()).unwrap_err(), message);
    }
    let exactly = ran(&["show", "--partitions", "control=2"]).unwrap_err();
    assert!(exactly.starts_with("--partitions control=2: it has 1 in every installation. Two sources"), "{exactly}");
}

/// What stands in a configuration is named as it stands there.
#[test]
fn what_cannot_be_in_a_configuration_is_named_with_its_place() {
    let told = |text: &str| {
        let none = ConfigArgs::default();
        let loaded = Config::from_parts(Some((Path::new("loadline.yaml"), text)), [], &none).unwrap();
        options_of(&loaded.config).unwrap_err().to_string()
    };
    for (text, message) in [
        ("kafka: { brokers: a:1, partitions: 0 }", "loadline.yaml:1:36: kafka.partitions: 0: not a number from 1 to 10000"),
        ("kafka:\n  brokers: http://a:1", "loadline.yaml:2:12: kafka.brokers: http://a:1: not HOST:PORT, as in kafka-1:9092"),
        ("kafka:\n  brokers: a:1\n  config: /gone", "loadline.yaml:3:11: kafka.config: /gone: No such file or directory (os error 2)"),
    ] {
        assert_eq!(told(text), message);
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("kafka.properties");
    std::fs::write(&settings, "socket.timeout.ms=60000\n").unwrap();
    let said = told(&format!("kafka: {{ brokers: a:1, config: {} }}", settings.display()));
    assert!(said.contains("`socket.timeout.ms` must be set <= `transaction.timeout.ms`"), "{said}");
    let none = ConfigArgs::default();
    let appends = format!("kafka: {{ brokers: a:1, config: {} }}\nroles: [ingest, policies, lag, view]", settings.display());
    options_of(&Config::from_parts(Some((Path::new("loadline.yaml"), &appends)), [], &none).unwrap().config).unwrap();
    assert!(told("kafka: { brokers: a:1, prefix: a/b }").starts_with("loadline.yaml:1:32: kafka.prefix: a/b: names of topics are of letters"));
}

/// librdkafka takes anything for a host, and says no more of it than that nobody answers.
#[test]
fn brokers_are_hosts_with_ports() {
    let told = |brokers: &str| ran(&["check", "--brokers", brokers, "--kafka-set", "no.such=setting"]).unwrap_err();
    for brokers in ["a", "a:9092", "a:9092, b:9093", "SASL_SSL://a:9092", "[::1]:9092", "[::1]"] {
        assert!(told(brokers).starts_with("--kafka-set no.such"), "{brokers}");
    }
    for (brokers, wrong) in [
        ("http://a:8080", "not HOST:PORT"),
        ("a:9092,kafka:x", "kafka:x is not HOST:PORT"),
        ("a:0", "not HOST:PORT"),
        ("a:99999", "not HOST:PORT"),
        ("a:9092/topic", "not HOST:PORT"),
        ("user@a:9092", "not HOST:PORT"),
        ("a:9092 b:9092", "not HOST:PORT"),
        ("a:9092,", "a broker is empty"),
        ("kafka:9092:1", "not HOST:PORT"),
    ] {
        assert!(ran(&["check", "--brokers", brokers]).unwrap_err().starts_with(&format!("--brokers {brokers}: {wrong}")), "{brokers}: {}", told(brokers));
    }
}

/// What is printed is run in a shell.
#[test]
fn rights_are_printed_for_names_that_topics_have() {
    let told = |flags: &[&str]| ran(&[&["acls", "--role", "lag", "--principal", "User:lag"], flags].concat());
    assert!(told(&["--prefix", "a b;rm -rf /"]).unwrap_err().starts_with("--prefix a b;rm -rf /: names of topics are of letters"));
    assert!(told(&["--prefix", ""]).unwrap_err().contains("it is empty"));
    assert!(told(&["--brokers", "foo bar"]).unwrap_err().starts_with("--brokers foo bar: not HOST:PORT"));
    told(&["--prefix", "shop.", "--brokers", "[::1]:9092,kafka-2:9092"]).unwrap();
}

/// Settings come from a file and from flags; what is wrong is named with its place, and no secret is told or taken from a command line.
#[test]
fn secrets_are_for_files_and_never_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kafka.properties");
    let with = |text: &str, flags: &[&str]| {
        std::fs::write(&file, text).unwrap();
        ran(&[&["check", "--kafka-config", file.to_str().unwrap()], flags].concat()).unwrap_err()
    };
    let at = |line: u32| format!("{}:{line}: ", file.display());
    let needs = "no brokers are named: say --brokers HOST:PORT, or bootstrap.servers in the file of --kafka-config";
    assert_eq!(with("# a comment\n\n! another\nsasl.mechanism = PLAIN\nsasl.password=hush\n", &[]), needs);
    let unknown = with("sasl.pasword=hush\n", &[]);
    assert_eq!(unknown, at(1) + "sasl.pasword: No such configuration property: \"sasl.pasword\"; see librdkafka's CONFIGURATION.md for its settings");
    assert_eq!(with("sasl.mechanism=PLAIN\npassword hush", &[]), at(2) + "not NAME=VALUE, as in security.protocol=SASL_SSL");
    assert_eq!(with("sasl.password=hush\nsasl.password=hush", &[]), at(2) + "sasl.password stands there twice");
    let ours = with("isolation.level=read_uncommitted", &[]);
    assert_eq!(ours, at(1) + "isolation.level cannot be chosen: Loadline sets it, as its promises rest on it; remove it");
    let value = with("", &["--kafka-set", "socket.timeout.ms=soon"]);
    assert!(value.starts_with("--kafka-set socket.timeout.ms = \"soon\": Invalid value"), "{value}");
    let secret = with("", &["--kafka-set", "sasl.password=hush"]);
    assert_eq!(secret, "--kafka-set sasl.password: everybody on this machine can read a command line; write it into a file, for --kafka-config");
    let jaas = with("sasl.jaas.config=org.apache.Plain username=\"a\" password=\"hush\";", &[]);
    for message in [unknown, secret, jaas] {
        assert!(!message.contains("hush"), "{message}");
    }
    assert!(ran(&["check", "--brokers", "b:1", "--kafka-config", "/nowhere/x"]).unwrap_err().starts_with("--kafka-config /nowhere/x: No such file"));
    let mut options = Options::new("b:1");
    options.settings.insert("sasl.password".to_owned(), "hush".to_owned());
    assert!(!format!("{options:?}").contains("hush"));
}
