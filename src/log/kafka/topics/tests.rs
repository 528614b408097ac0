//! Each way in which a topic can differ, and what is said of it.

use super::super::{Options, declaration::Weight};
use super::*;

/// A cluster on which all is as wanted.
fn fitting(wanted: &[Wanted]) -> Cluster {
    let there = |topic: &Wanted| {
        Found::There(There { partitions: topic.partitions, replicas: topic.replicas, unled: Vec::new(), settings: Some(topic.settings.clone()) })
    };
    Cluster { brokers: vec!["b:9092".to_owned()], topics: wanted.iter().map(|topic| (topic.name.clone(), there(topic))).collect() }
}

/// What is told where a topic was changed by hand.
fn told(topic: &str, change: impl FnOnce(&mut There)) -> Vec<Difference> {
    let wanted = wanted(&Options::new("b:9092")).unwrap();
    let mut cluster = fitting(&wanted);
    assert_eq!(compare("b:9092", &wanted, &cluster), []);
    let Some(Found::There(there)) = cluster.topics.get_mut(&format!("loadline.{topic}")) else { panic!("{topic}") };
    change(there);
    compare("b:9092", &wanted, &cluster)
}

#[test]
fn each_setting_that_differs_is_told_with_what_it_does() {
    for (topic, setting, value, weight, means) in [
        ("signals", "cleanup.policy", "compact", Weight::Corrupts, "Only the newest record of each key would be kept"),
        ("metrics", "cleanup.policy", "delete,compact", Weight::Corrupts, "Only the newest record of each key would be kept"),
        ("dead-letters", "cleanup.policy", "compact", Weight::Stops, "A compacted topic refuses records without a key"),
        ("audit", "cleanup.policy", "compact", Weight::Loses, "Only the newest record of each key is kept."),
        ("decide-state", "cleanup.policy", "delete", Weight::Corrupts, "Snapshots would be deleted by their age"),
        ("decide-state", "cleanup.policy", "compact,delete", Weight::Corrupts, "Snapshots would be deleted by their age"),
        ("decide-state", "segment.bytes", "1073741824", Weight::Differs, "Of its newest 1073741824 bytes also those snapshots stay"),
        ("decide-state", "segment.bytes", "524288", Weight::Differs, "Nothing of Loadline's depends on it."),
        ("signals", "message.timestamp.type", "CreateTime", Weight::Corrupts, "Records would carry the clock of whoever wrote them"),
        ("audit", "message.timestamp.type", "CreateTime", Weight::Differs, "Its records carry the clock of whoever wrote them."),
        ("signals", "retention.ms", "5400000", Weight::Loses, "Its records go after 1h 30m. A restart reads"),
        ("signals", "retention.ms", "-1", Weight::Differs, "Its records are kept longer (for good)"),
        ("signals", "retention.ms", "604800000", Weight::Differs, "Its records are kept longer (7d)"),
        ("audit", "retention.bytes", "1073741824", Weight::Loses, "Its records go as soon as a partition has 1073741824 bytes"),
        ("commands", "min.insync.replicas", "1", Weight::Loses, "What 1 in sync have is acknowledged"),
        ("commands", "min.insync.replicas", "3", Weight::Differs, "Appends wait sooner when brokers are away."),
        ("commands", "min.insync.replicas", "4", Weight::Stops, "No append is acknowledged: it wants 4 replicas in sync, and there are 3."),
        ("metrics", "max.message.bytes", "1000", Weight::Stops, "What is larger in one request is refused with the small records in it"),
        ("metrics", "max.message.bytes", "2000000", Weight::Differs, "Nothing of Loadline's depends on it."),
        ("requests", "unclean.leader.election.enable", "true", Weight::Loses, "A replica that lacks acknowledged records"),
    ] {
        let differences = told(topic, |there| drop(there.settings.as_mut().unwrap().insert(setting.to_owned(), value.to_owned())));
        let [difference] = &differences[..] else { panic!("{topic} {setting}={value}: {differences:?}") };
        assert_eq!((difference.setting.as_deref(), difference.found.as_deref(), difference.weight), (Some(setting), Some(value), weight), "{topic}");
        assert!(difference.means.starts_with(means), "{topic} {setting}={value}: {}", difference.means);
        let command = format!(
            "`kafka-configs.sh --bootstrap-server b:9092 --alter --entity-type topics --entity-name loadline.{topic} --add-config {setting}={}`",
            difference.declared
        );
        assert!(difference.mend.contains(&command), "{}", difference.mend);
    }
}

/// What the cluster does not tell is said, and never taken for a fit.
#[test]
fn what_is_not_told_is_said() {
    let one = told("signals", |there| drop(there.settings.as_mut().unwrap().remove("min.insync.replicas")));
    assert_eq!((one.len(), one[0].weight, one[0].found.as_deref(), one[0].refuses()), (1, Weight::Unknown, None, false));
    let all = told("signals", |there| there.settings = None);
    assert_eq!((all.len(), all[0].weight, all[0].setting.as_deref()), (1, Weight::Unknown, Some("settings")));
    let wanted = wanted(&Options::new("b:9092")).unwrap();
    let mut cluster = fitting(&wanted);
    cluster.topics.insert("loadline.audit".to_owned(), Found::Hidden("Topic authorization failed".to_owned()));
    let hidden = compare("b:9092", &wanted, &cluster);
    assert_eq!((hidden.len(), hidden[0].weight, hidden[0].refuses()), (1, Weight::Unknown, true), "of a hidden topic nothing is known");
    cluster.topics.insert("loadline.audit".to_owned(), Found::Missing);
    let missing = compare("b:9092", &wanted, &cluster);
    assert_eq!((missing.len(), missing[0].weight, missing[0].refuses()), (1, Weight::Missing, true));
}

/// Another number of partitions is told with what it does to the topic, and mended without losing more than must be.
#[test]
fn other_partitions_are_told_with_what_they_do() {
    let partitions = |topic: &str, count: u32| -> Vec<(String, Weight, String)> {
        let differences = told(topic, |there| there.partitions = count);
        differences.into_iter().map(|d| (format!("{} {}→{}", d.topic, d.declared, d.found.unwrap()), d.weight, d.mend)).collect()
    };
    let signals = partitions("signals", 24);
    assert_eq!(signals.len(), 2, "{signals:?}");
    assert_eq!((signals[0].0.as_str(), signals[0].1), ("loadline.signals 12→24", Weight::Corrupts));
    assert!(
        signals[0].2.starts_with("If the installation was made with 24, say so: --partitions signals=24 (to `run`: kafka.partitions). Else begin anew"),
        "{}",
        signals[0].2
    );
    assert!(signals[0].2.contains("`kafka-topics.sh --bootstrap-server b:9092 --delete --topic loadline.signals`"), "{}", signals[0].2);
    assert_eq!(signals[1], ("loadline.decide-state 24→12".to_owned(), Weight::Corrupts, "First mend loadline.signals.".to_owned()));

    let metrics = partitions("metrics", 24);
    assert_eq!(metrics[0].1, Weight::Differs, "it may grow");
    let grow = "`kafka-topics.sh --bootstrap-server b:9092 --alter --topic loadline.aggregate-state --partitions 24`";
    let fewer = partitions("metrics", 6);
    let grow_both = "To add some, with Loadline stopped everywhere, and then as many to loadline.aggregate-state: \
                     `kafka-topics.sh --bootstrap-server b:9092 --alter --topic loadline.metrics --partitions 12`";
    assert!(fewer[0].2.ends_with(grow_both), "{fewer:?}");
    assert_eq!(metrics[1], ("loadline.aggregate-state 24→12".to_owned(), Weight::Corrupts, grow.to_owned()), "its state must grow with it");

    let state = partitions("decide-state", 13);
    assert!(state.len() == 1 && state[0].2.contains("--delete --topic loadline.decide-state`; then `loadline topology apply` creates it with 12"), "{state:?}");
    assert_eq!(partitions("control", 2)[0].1, Weight::Corrupts);
    assert!(partitions("control", 2)[0].2.starts_with("To begin anew, with Loadline stopped everywhere: "), "no other number is right");
    assert_eq!(partitions("audit", 24)[0].1, Weight::Loses);
    assert_eq!(partitions("alerts", 3)[0], ("loadline.alerts 1→3".to_owned(), Weight::Differs, "Nothing needs to be done.".to_owned()));
    let fewer = partitions("commands", 6);
    assert!(fewer[0].2.ends_with("To add some: `kafka-topics.sh --bootstrap-server b:9092 --alter --topic loadline.commands --partitions 12`"), "{fewer:?}");
}

/// A partition that nobody leads is told with the others of its topic, and is no reason not to run: the others go on.
#[test]
fn partitions_that_nobody_leads_are_told() {
    let differences = told("signals", |there| there.unled = vec![3, 7]);
    let [difference] = &differences[..] else { panic!("{differences:?}") };
    assert_eq!((difference.found.as_deref(), difference.weight, difference.refuses()), (Some("none of 3, 7"), Weight::Waits, false));
    assert!(difference.mend.contains("`kafka-topics.sh --bootstrap-server b:9092 --describe --topic loadline.signals`"), "{}", difference.mend);
}

/// Fewer replicas are told, once; and where more must be in sync than there are, the mend is a number that can be.
#[test]
fn fewer_replicas_are_told() {
    let said = |differences: &[Difference]| -> Vec<(String, Weight)> { differences.iter().map(|d| (d.setting.clone().unwrap(), d.weight)).collect() };
    let stands = told("signals", |there| there.replicas = 1);
    assert_eq!(said(&stands), [("replicas".to_owned(), Weight::Loses), ("min.insync.replicas".to_owned(), Weight::Stops)]);
    assert!(stands[1].mend.ends_with("--add-config min.insync.replicas=1`"), "{}", stands[1].mend);
    let runs = told("signals", |there| {
        there.replicas = 1;
        there.settings.as_mut().unwrap().insert(IN_SYNC.to_owned(), "1".to_owned());
    });
    assert_eq!(said(&runs), [("replicas".to_owned(), Weight::Loses)]);
}
