use super::*;

fn load(text: &str, environment: &[(&str, &str)], args: &ConfigArgs) -> Result<Loaded, ConfigError> {
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Config::from_parts(Some((Path::new("loadline.yaml"), text)), environment, args)
}

fn problems(text: &str) -> Vec<String> {
    load(text, &[], &ConfigArgs::default()).unwrap_err().problems
}

#[test]
fn the_later_place_wins_and_each_value_says_where_it_comes_from() {
    let flag = ConfigArgs { pane: Some("2s".to_owned()), ..ConfigArgs::default() };
    let set = ConfigArgs { set: vec!["pane=3s".to_owned()], ..ConfigArgs::default() };
    let none = ConfigArgs::default();
    for (text, environment, args, pane, source) in [
        ("", None, &none, "5s", "default"),
        ("pane: 10s", None, &none, "10s", "loadline.yaml:1:7"),
        ("pane: 10s", Some("250ms"), &none, "250ms", "environment LOADLINE_PANE"),
        ("pane: 10s", Some("250ms"), &flag, "2s", "--pane"),
        ("", Some("250ms"), &set, "3s", "--set pane"),
    ] {
        let environment: Vec<(&str, &str)> = environment.map(|v| ("LOADLINE_PANE", v)).into_iter().collect();
        let config = load(text, &environment, args).unwrap().config;
        let (_, value, from) = config.effective().into_iter().find(|(path, ..)| path == "pane").unwrap();
        assert_eq!((value.as_str(), from.to_string().as_str()), (pane, source));
    }
}

#[test]
fn every_setting_can_be_written_in_the_file_as_it_is_shown() {
    let text = "data: /var/lib/loadline\nlisten: 9090\nhosts: [scaling.example.com, loadline.local]\npolicies: [a.yaml, fleet]\npane: 250ms\ngrace: 1s\n\
        removals:\n  percent: 20%\n  atLeast: 2\n  period: 1m30s\n  fleets:\n    storefront:\n      percent: 50%\n\
        freezeFile: /run/freeze\ningest:\n  queue: 8\n  samplesPerSecond: 5000\nretention:\n  size: 512MiB\n  metrics: 90m\n  \
        signals: 2d\n  requests: 1h\n  commands: 1h\n  audit: 365d\n  alerts: 1d\n  deadLetters: 1d\n\
        kafka:\n  brokers: [a:9092, b:9092]\n  prefix: prod.\n  partitions: [24, metrics=48]\n  replication: 2\n  config: kafka.properties\n  member: front\n  framing: confluent\n  \
        registry:\n    url: http://registry:8081\n    credentials: registry.user\n    ca: authorities.pem\n\
        lag:\n  orders:\n    brokers: [c:9092, d:9092]\n    config: orders.properties\n    group: workers\n    topics: [orders, refunds]\n    \
        targets: [prod/Deployment/a, prod/Deployment/b]\n    metric: backlog\n    every: 2s\n    begins: latest\n    stuckAfter: never\n    perReplica: 100\n\
        roles: [ingest, view]\nlog:\n  format: json\n  level: debug\nstopFleetsOnExit: true\n";
    let config = load(text, &[], &ConfigArgs::default()).unwrap().config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.removals.of(&"storefront".parse().unwrap()), RemovalLimit { percent: 50, at_least: 2, period: Duration::from_secs(90) });
    assert_eq!(config.removals.of(&FleetName::default()).percent, 20);
    assert!(config.effective().iter().all(|(_, _, source)| matches!(source, Source::File { .. })), "{:?}", config.effective());
    let set = config.effective().into_iter().map(|(path, value, _)| format!("{path}={value}")).collect();
    let again = load("", &[], &ConfigArgs { set, ..ConfigArgs::default() }).unwrap().config;
    let shown = |c: &Config| c.effective().into_iter().map(|(path, value, _)| (path, value)).collect::<Vec<_>>();
    assert_eq!(shown(&again), shown(&config));
}

#[test]
fn errors_name_the_place_the_value_and_the_mend() {
    for (text, error) in [
        ("data: x\npanne: 5s", "loadline.yaml:2:1: there is no setting \"panne\"; did you mean \"pane\"?"),
        ("removals:\n  atleast: 5", "loadline.yaml:2:3: there is no setting \"removals.atleast\"; did you mean \"removals.atLeast\"?"),
        (
            "kafka:\n  registry:\n    url: http://r",
            "loadline.yaml:3:10: in the data directory nothing is framed by the ids of a registry; leave kafka.registry out, or name kafka.brokers",
        ),
        ("kafka:\n  brokers: a:1\n  registry:\n    credentials: f", "loadline.yaml:4:18: these are of no registry; name it in kafka.registry.url"),
        ("kafka:\n  brokers: a:1\n  registry:\n    ca: f", "loadline.yaml:4:9: these are of no registry; name it in kafka.registry.url"),
        ("kafka:\n  brokers: a:1\n  framing: confluent", "loadline.yaml:3:12: the ids are those of a registry; name it in kafka.registry.url"),
        ("pane: 5", "loadline.yaml:1:7: pane: \"5\" has no unit; write 5s or 5ms"),
        ("pane: 100ms", "loadline.yaml:1:7: pane: 100ms is out of range; choose from 250ms to 1m"),
        ("pane: soon", "loadline.yaml:1:7: pane: \"soon\" is not a time; write a number with a unit (ms, s, m, h, d), as in 5s or 250ms"),
        ("removals: 5", "loadline.yaml:1:11: removals is a section: write its fields, indented, below it"),
        ("removals:\n  percent: 10", "loadline.yaml:2:12: removals.percent: \"10\" has no unit; write 10%"),
        ("hosts: a.example:80", "loadline.yaml:1:8: hosts: \"a.example:80\" is not the name of a host; write it without a port, as in loadline.example.com"),
        ("listen: example", "loadline.yaml:1:9: listen: \"example\" is not an address; write IP:PORT, as in 127.0.0.1:8080"),
        ("log:\n  level: loud", "loadline.yaml:2:10: log.level: \"loud\" is none of error, warn, info, debug, trace"),
        ("ingest:\n  queue: 0", "loadline.yaml:2:10: ingest.queue: \"0\" is not a whole number from 1 to 65536"),
        ("ingest:\n  samplesPerSecond: 0", "loadline.yaml:2:21: ingest.samplesPerSecond: \"0\" is not a whole number from 1 to 100000000, or unlimited"),
        ("retention:\n  size: 4GB", "loadline.yaml:2:9: retention.size: \"4GB\" is not a size; write a whole number with a unit (MiB, GiB, TiB), as in 4GiB"),
        ("retention:\n  size: 1MiB", "loadline.yaml:2:9: retention.size: 1MiB is out of range; choose from 64MiB to 16TiB"),
        ("retention:\n  control: 1d", "loadline.yaml:2:3: there is no setting \"retention.control\"; did you mean \"retention.commands\"?"),
        ("data: [a, b]", "loadline.yaml:1:7: data takes one value, not 2"),
        (
            "removals:\n  fleets:\n    web:\n      percnt: 5%",
            "loadline.yaml:4:15: removals.fleets.web.percnt: there is no setting \"percnt\"; did you mean \"percent\"?",
        ),
        ("lag:\n  orders:\n    gruop: g", "loadline.yaml:3:12: lag.orders.gruop: there is no setting \"gruop\"; did you mean \"group\"?"),
        (
            "lag:\n  Orders:\n    group: g",
            "loadline.yaml:3:12: lag: \"Orders\" is not a name; choose one of lower-case letters, digits and hyphens, at most 63",
        ),
        ("lag:\n  a:\n    begins: last", "loadline.yaml:3:13: lag.a.begins: \"last\" is none of unknown, earliest, latest"),
        ("lag:\n  a:\n    every: 10ms", "loadline.yaml:3:12: lag.a.every: 10ms is out of range; choose from 1s to 10m"),
    ] {
        assert_eq!(problems(text), [error], "{text}");
    }
}

#[test]
fn contradictory_values_are_named_together() {
    let found = problems("data: d\nfreezeFile: d\nremovals: { percent: 0%, atLeast: 0 }\npolicies: [d]\n");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("percent 0% and atLeast 0"));
    assert!(found[1].starts_with("loadline.yaml:2:13: freezeFile is the data directory d itself"));
    assert!(found[2].starts_with("loadline.yaml:4:11: policies d holds the data directory d"));
}

#[test]
fn brokers_that_are_named_and_none_are_no_log_in_the_data_directory() {
    let why = |place: &str| vec![format!("{place}: kafka.brokers names none; write HOST:PORT, or leave it out for the log in the data directory")];
    assert_eq!(problems("kafka:\n  brokers: []\n"), why("loadline.yaml:2:12"));
    let set = ConfigArgs { set: vec!["kafka.brokers=".to_owned()], ..ConfigArgs::default() };
    assert_eq!(load("", &[], &set).unwrap_err().problems, why("--set kafka.brokers"));
    assert_eq!(load("", &[("LOADLINE_KAFKA_BROKERS", "")], &ConfigArgs::default()).unwrap_err().problems, why("environment LOADLINE_KAFKA_BROKERS"));
}

#[test]
fn what_is_said_of_a_log_on_kafka_needs_its_brokers() {
    for (setting, value) in [("prefix", "ours."), ("partitions", "24"), ("replication", "1"), ("member", "a")] {
        let found = problems(&format!("kafka:\n  {setting}: {value}\n"));
        let why = format!(": kafka.{setting} is said of a log on Kafka, and no brokers are named; name them in kafka.brokers, or leave it out");
        assert!(found.len() == 1 && found[0].starts_with("loadline.yaml:2:") && found[0].ends_with(&why), "{found:?}");
        assert!(load(&format!("kafka:\n  {setting}: {value}\n  brokers: a:1\n"), &[], &ConfigArgs::default()).is_ok(), "{setting}");
    }
}

#[test]
fn what_is_said_of_a_log_that_is_not_used_is_named() {
    let retention = "retention:\n  size: 4GiB\n";
    let unused = |text: &str| load(text, &[], &ConfigArgs::default()).unwrap().config.unused();
    assert_eq!(unused(retention), Vec::<String>::new());
    assert_eq!(unused("kafka: { brokers: a:1 }"), Vec::<String>::new());
    assert_eq!(unused(&format!("{retention}kafka:\n  brokers: a:1\n")), ["loadline.yaml:2:9: retention.size"]);
}

#[test]
fn a_source_of_lag_says_all_that_it_needs() {
    let whole = "lag:\n  orders:\n    brokers: b:9092\n    group: workers\n    topics: orders\n    targets: prod/Deployment/workers\n";
    let config = load(whole, &[], &ConfigArgs::default()).unwrap().config;
    let source = &config.lag["orders"];
    assert_eq!((source.metric.as_str(), source.every, source.stuck_after), ("queue_depth", Duration::from_secs(5), Some(Duration::from_secs(300))));
    for (field, missing) in [
        (
            "    brokers: b:9092\n",
            "loadline.yaml:3:12: lag.orders: brokers is missing; the log is in the data directory, so name the brokers of the group's cluster",
        ),
        ("    group: workers\n", "loadline.yaml:3:14: lag.orders: group is missing; name the consumer group whose lag is measured"),
        ("    topics: orders\n", "loadline.yaml:3:14: lag.orders: topics is missing; name the topics that the group reads"),
        (
            "    targets: prod/Deployment/workers\n",
            "loadline.yaml:3:14: lag.orders: targets is missing; name the targets that its lag is of, as in prod/Deployment/workers",
        ),
    ] {
        assert_eq!(problems(&whole.replace(field, "")), [missing]);
    }
    let on_kafka = format!("kafka: {{ brokers: k:9092 }}\n{}", whole.replace("    brokers: b:9092\n", ""));
    assert!(load(&on_kafka, &[], &ConfigArgs::default()).is_ok(), "the cluster of the log");
}

#[test]
fn all_problems_are_reported_at_once() {
    assert_eq!(problems("pane: 5\ngrace: 7\n").len(), 2);
    assert!(problems("pane: [5s").len() == 1, "broken YAML is one problem");
}

#[test]
fn a_name_of_the_environment_is_warned_of_only_where_it_is_nearly_a_setting() {
    let loaded = load("", &[("LOADLINE_PANES", "1s"), ("LOADLINE_PORT", "tcp://10.0.0.1:80"), ("LOADLINE_SERVER", "x"), ("HOME", "/")], &ConfigArgs::default());
    assert_eq!(loaded.unwrap().warnings, ["environment LOADLINE_PANES: not used; did you mean LOADLINE_PANE?"]);
}

#[test]
fn an_address_that_others_can_reach_is_warned_of() {
    let loaded = load("listen: 0.0.0.0:8080", &[], &ConfigArgs::default()).unwrap();
    assert!(loaded.warnings[0].contains("open to other machines"), "{:?}", loaded.warnings);
}
