//! The lag of consumer groups as a metric, on a real broker: what is measured, and what is told where there is no figure.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{LOADLINE, PATIENCE, Running, SLEEPERS, fleet_of_sleepers, instances_of, messages, sleepers, wait_for};
use crate::installation::makes_topics;
use crate::kafka::{Broker, broker};
use crate::page::Page;
use loadline::edge::lag::measure::{Begins, Fold, Rules};
use loadline::log::Topic;
use loadline::log::consumption::{Consumption as _, Standing, Tail};
use loadline::log::kafka::{KafkaConsumption, Options};
use loadline::model::{Alert, AlertState, Message, Sample};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

/// A topic and a group that nobody else uses.
struct Orders {
    topic: String,
    group: String,
}

impl Orders {
    fn new(partitions: i32) -> Orders {
        let own = Broker::prefix();
        Orders::called(&format!("{own}orders"), &format!("{own}workers"), partitions)
    }

    fn called(topic: &str, group: &str, partitions: i32) -> Orders {
        let orders = Orders { topic: topic.to_owned(), group: group.to_owned() };
        broker().create_topic(&orders.topic, partitions, &[]);
        orders
    }

    fn producer(&self, transactional: bool) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &broker().address);
        if transactional {
            config.set("transactional.id", format!("{}.producer", self.topic));
        }
        let producer: BaseProducer = config.create().unwrap();
        if transactional {
            producer.init_transactions(PATIENCE).unwrap();
        }
        producer
    }

    fn send(&self, producer: &BaseProducer, partition: i32, count: usize) {
        for _ in 0..count {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(&self.topic).partition(partition).payload("order");
            producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
        }
        producer.flush(PATIENCE).unwrap();
    }

    fn produce(&self, partition: i32, count: usize) {
        self.send(&self.producer(false), partition, count);
    }

    /// So many records in a transaction of their own.
    fn produce_together(&self, producer: &BaseProducer, partition: i32, count: usize, commits: bool) {
        producer.begin_transaction().unwrap();
        self.send(producer, partition, count);
        if commits { producer.commit_transaction(PATIENCE).unwrap() } else { producer.abort_transaction(PATIENCE).unwrap() }
    }

    /// A client of the group.
    fn member(&self) -> BaseConsumer {
        ClientConfig::new().set("bootstrap.servers", &broker().address).set("group.id", &self.group).set("enable.auto.commit", "false").create().unwrap()
    }

    /// The group goes on to these offsets, as if it had read what is before them.
    fn commit(&self, offsets: &[(i32, i64)]) {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset)).unwrap();
        }
        self.member().commit(&list, CommitMode::Sync).unwrap();
    }

    fn consumption(&self) -> KafkaConsumption {
        let options = Options { patience: Duration::from_secs(10), ..Options::new(broker().address.clone()) };
        KafkaConsumption::new(&options, &self.group, std::slice::from_ref(&self.topic)).unwrap()
    }

    /// A configuration with this group as a source of the fleet.
    fn configuration(&self, more: &str) -> String {
        let Orders { topic, group } = self;
        let address = &broker().address;
        format!("lag:\n  orders:\n    brokers: \"{address}\"\n    group: {group}\n    topics: [{topic}]\n    targets: [{}]\n    every: 1s\n{more}", &*SLEEPERS)
    }

    /// A Loadline on a log in its own data directory, with a fleet of its own, that measures this group.
    fn loadline(&self, more: &str) -> (Running, tempfile::TempDir) {
        let (home, _) = fleet_of_sleepers(2, "  behavior: { scaleIn: { stabilization: 0s, cooldown: 0s }, scaleOut: { cooldown: 0s } }\n");
        std::fs::write(home.path().join("loadline.yaml"), self.configuration(more)).unwrap();
        (Running::start(home.path(), &["--config", "loadline.yaml", "--stop-fleets-on-exit"]), home)
    }
}

/// The figures that were measured of the fleet's queue, oldest first, of a Loadline that has ended.
fn figures(data: &Path) -> Vec<f64> {
    let samples = messages(data, Topic::Metrics).into_iter().flat_map(|message| if let Message::Samples(batch) = message { batch.samples } else { Vec::new() });
    samples.filter(|sample: &Sample| sample.metric.as_str() == "queue_depth").map(|sample| sample.value).collect()
}

fn alerts(data: &Path) -> Vec<Alert> {
    messages(data, Topic::Alerts).into_iter().filter_map(|message| if let Message::Alert(alert) = message { Some(alert) } else { None }).collect()
}

/// What an alert of this name says, once it fires.
fn fires(running: &Running, name: &str) -> String {
    wait_for(name, || {
        let status = running.status(&SLEEPERS)?;
        let alert = status["alerts"].as_array()?.iter().find(|alert| alert["name"] == name)?.clone();
        Some(alert["message"].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_fleet_scales_on_the_lag_of_a_group_and_the_markers_of_transactions_are_none() {
    let orders = Orders::new(3);
    orders.commit(&[(0, 0), (1, 0), (2, 0)]);
    let producer = orders.producer(true);
    orders.produce_together(&producer, 0, 20, true);
    orders.produce_together(&producer, 1, 20, true);
    // Aborted: nobody ever reads them.
    orders.produce_together(&producer, 2, 30, false);
    let (running, home) = orders.loadline("");
    let data = home.path().join("data");
    wait_for("4 replicas for 40 records", || (sleepers(&data) == 4).then_some(()));
    // All is read: what is left are a marker in each, and what was aborted.
    orders.commit(&[(0, 20), (1, 20), (2, 0)]);
    wait_for("the fleet to shrink", || (sleepers(&data) == 1).then_some(()));
    assert_eq!(running.stop(), 0);
    let figures = figures(&data);
    assert!(figures.contains(&40.0), "{figures:?}");
    assert_eq!(figures.last(), Some(&0.0), "{figures:?}");
    assert_eq!(alerts(&data).iter().filter(|alert| alert.name.starts_with("Lag")).collect::<Vec<_>>(), Vec::<&Alert>::new());
}

/// The example of the page, as it stands there, but for the address of the broker.
#[test]
fn the_example_of_the_page_scales_its_fleet() {
    let orders = Orders::called("orders", "order-workers", 3);
    orders.produce(1, 30);
    orders.commit(&[(1, 0)]);
    let page = Page::read("docs/kafka.md");
    let file = |name: &str| page.blocks.iter().find_map(|block| block.text.strip_prefix(&format!("# {name}\n"))).unwrap_or_else(|| panic!("no {name}"));
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("policies")).unwrap();
    std::fs::write(home.path().join("loadline.yaml"), file("loadline.yaml").replace("kafka-1:9092", &broker().address)).unwrap();
    std::fs::write(home.path().join("policies/workers.yaml"), file("policies/workers.yaml")).unwrap();
    let checked = Command::new(LOADLINE).current_dir(home.path()).args(["policy", "check", "policies/workers.yaml"]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let running = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    wait_for("3 replicas for 30 records", || (instances_of(&home.path().join("data"), "workers") == 3).then_some(()));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_group_that_is_not_there_is_told_and_never_zero() {
    let orders = Orders::new(1);
    orders.produce(0, 30);
    let (running, home) = orders.loadline("");
    let data = home.path().join("data");
    let said = fires(&running, "LagUnknown");
    assert!(said.contains(&format!("there is no group {}", orders.group)), "{said}");
    let metric = || running.status(&SLEEPERS).filter(|status| status["verdict"] == "Blind");
    let blind = wait_for("the target to be blind", metric);
    assert!(blind["reason"].as_str().unwrap().contains("queue_depth"), "{blind}");
    assert_eq!(sleepers(&data), 2, "the fleet stands");
    orders.commit(&[(0, 0)]);
    wait_for("3 replicas for 30 records", || (sleepers(&data) == 3).then_some(()));
    wait_for("it to be over", || running.status(&SLEEPERS)?["alerts"].as_array()?.iter().all(|alert| alert["name"] != "LagUnknown").then_some(()));
    assert_eq!(running.stop(), 0);
    let figures = figures(&data);
    assert!(!figures.is_empty() && figures.iter().all(|figure| figure.to_string() == "30"), "{figures:?}");
    let told: Vec<AlertState> = alerts(&data).iter().filter(|alert| alert.name == "LagUnknown").map(|alert| alert.state).collect();
    assert_eq!(told, [AlertState::Firing, AlertState::Resolved]);
}

#[test]
fn a_stuck_partition_is_named_and_leaves_the_figure() {
    let orders = Orders::new(2);
    orders.produce(0, 1_000);
    orders.produce(1, 500);
    orders.commit(&[(0, 100), (1, 7)]);
    let (running, home) = orders.loadline("    stuckAfter: 2s\n");
    let mut at = 100;
    let said = wait_for("the alert", || {
        at = (at + 1).min(990);
        orders.commit(&[(0, at)]);
        let status = running.status(&SLEEPERS)?;
        let alert = status["alerts"].as_array()?.iter().find(|alert| alert["name"] == "LagStuck")?.clone();
        // While none has gone on for long enough, it is the group that stands.
        Some(alert["message"].as_str()?.to_owned()).filter(|said| said.contains("counts as 1"))
    });
    assert!(said.contains(&format!("{}/1 (at 7 for ", orders.topic)) && !said.contains(&format!("{}/0", orders.topic)), "{said}");
    orders.commit(&[(0, 990)]);
    let data = home.path().join("data");
    wait_for("2 replicas for 10 and one more", || (sleepers(&data) == 2).then_some(()));
    assert_eq!(running.stop(), 0);
    let figures = figures(&data);
    assert!(figures.first().is_some_and(|first| *first > 493.0), "{figures:?}");
    assert_eq!(figures.last(), Some(&11.0), "{figures:?}");
}

/// By a process with the role alone, on the cluster of its own log; and as many replicas as partitions have something, on request.
#[test]
fn a_process_of_its_own_measures_for_a_log_on_kafka() {
    let orders = Orders::new(3);
    orders.produce(0, 500);
    orders.produce(1, 1);
    orders.commit(&[(0, 0), (1, 0)]);
    let prefix = Broker::prefix();
    makes_topics(broker(), &prefix, 2, &["--replication", "1"]);
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleOut: { cooldown: 0s } }\n");
    let run = |directory: &Path, roles: &str| {
        let mut command = Command::new(LOADLINE);
        command.current_dir(directory).args(["run", "--brokers", &broker().address, "--data", "data", "--listen", "127.0.0.1:0", "--pane", "1s"]);
        command.args(["--roles", roles, "--set", &format!("kafka.prefix={prefix}"), "--set", "kafka.partitions=2", "--set", "kafka.replication=1"]);
        command.env_remove("LOADLINE_CONFIG");
        command
    };
    let mut front = run(home.path(), "ingest,policies,admit,aggregate,decide,arbitrate,fleets,view");
    front.args(["--policies", "policies", "--stop-fleets-on-exit"]);
    let front = Running::spawn(front);
    let elsewhere = tempfile::tempdir().unwrap();
    let Orders { topic, group } = &orders;
    let lag = format!("lag:\n  orders:\n    group: {group}\n    topics: {topic}\n    targets: {}\n    perReplica: 10\n", &*SLEEPERS);
    std::fs::write(elsewhere.path().join("loadline.yaml"), lag).unwrap();
    let measuring = Running::spawn(run(elsewhere.path(), "lag"));
    let data = home.path().join("data");
    wait_for("a replica for each of two partitions", || (sleepers(&data) == 2).then_some(()));
    let value = wait_for("the figure", || front.status(&SLEEPERS).filter(|status| status["desired"] == 2));
    assert!(value["reason"].as_str().is_some(), "{value}");
    assert!(!elsewhere.path().join("data").exists(), "it keeps nothing");
    assert_eq!((measuring.stop(), front.stop()), (0, 0));
}

fn rules(orders: &Orders) -> Rules {
    Rules { group: orders.group.clone(), begins: Begins::Unknown, stuck_after: None, per_replica: None }
}

/// What the cluster tells of a group, partition by partition.
#[test]
fn what_is_seen_of_a_group_is_what_stands_there() {
    let orders = Orders::new(4);
    let mut consumption = orders.consumption();
    assert!(!consumption.look(PATIENCE).unwrap().is_group, "nobody has joined");
    let producer = orders.producer(true);
    orders.produce_together(&producer, 0, 5, true);
    orders.produce(1, 8);
    // A transaction is over for who commits it before its marker is there.
    broker().settle(&orders.topic);
    broker().delete_records(&orders.topic, 1, 3);
    let open = broker().leaves_open(&format!("{}.open", orders.topic), &orders.topic, "x");
    orders.commit(&[(0, 5), (1, 4)]);
    let looked = consumption.look(PATIENCE).unwrap();
    let found: Vec<Standing> = looked.places().map(|(_, standing)| standing).collect();
    // Five records and their marker, before what is open; what was never written is not committed either.
    assert_eq!(found[0], Standing { committed: Some(5), low: 0, high: 7, stable: 6 });
    assert_eq!(found[1], Standing { committed: Some(4), low: 3, high: 8, stable: 8 });
    assert_eq!(found[2..], [Standing { committed: None, low: 0, high: 0, stable: 0 }; 2]);
    assert!(looked.is_group);
    let mut fold = Fold::default();
    let tails = fold.tails(&rules(&orders), &looked);
    let records = consumption.records(&tails, PATIENCE).unwrap();
    let counted: Vec<(u32, u64)> = tails.iter().map(|Tail { place, .. }| (place.partition, records[place])).collect();
    assert_eq!(counted, [(0, 0), (1, 4)], "a marker is none");
    let lag = fold.measure(&rules(&orders), &looked, &tails, &records, Duration::ZERO).unwrap();
    assert_eq!(lag.value, 4);
    drop(open);
    broker().delete_records(&orders.topic, 1, 6);
    let said = |consumption: &mut KafkaConsumption| {
        let looked = consumption.look(PATIENCE).unwrap();
        Fold::default().measure(&rules(&orders), &looked, &[], &std::collections::BTreeMap::new(), Duration::ZERO).unwrap_err().to_string()
    };
    let overtaken = said(&mut consumption);
    assert!(overtaken.contains(&format!("4 of {}/1 (the earliest is 6)", orders.topic)), "{overtaken}");
    // Made anew under the same name.
    broker().delete(&[], std::slice::from_ref(&orders.topic));
    drop(wait_for("the topic to be missed", || consumption.look(PATIENCE).ok().filter(|looked| looked.topics[&orders.topic].is_none())));
    let missing = said(&mut consumption);
    assert!(missing.contains(&format!("no topic {}", orders.topic)), "{missing}");
    broker().create_topic(&orders.topic, 4, &[]);
    orders.commit(&[(0, 5), (1, 0)]);
    drop(wait_for("the topic to be seen", || consumption.look(PATIENCE).ok().filter(|looked| looked.topics[&orders.topic].is_some())));
    let beyond = said(&mut consumption);
    assert!(beyond.contains(&format!("{}/0 (5, the end is 0)", orders.topic)), "{beyond}");
}

/// A member that has joined and committed nothing yet: the group is there, and what it begins with is not known.
#[test]
fn a_group_without_positions_is_another_thing_than_none() {
    let orders = Orders::new(1);
    orders.produce(0, 3);
    let member = orders.member();
    member.subscribe(&[&orders.topic]).unwrap();
    let mut consumption = orders.consumption();
    let looked = wait_for("the group", || {
        drop(member.poll(Duration::from_millis(100)));
        consumption.look(PATIENCE).ok().filter(|looked| looked.is_group)
    });
    let measured = Fold::default().measure(&rules(&orders), &looked, &[], &std::collections::BTreeMap::new(), Duration::ZERO);
    let said = measured.unwrap_err().to_string();
    assert!(said.contains("has committed nothing for") && said.contains("begins: earliest"), "{said}");
    let earliest = Rules { begins: Begins::Earliest, ..rules(&orders) };
    let measured = Fold::default().measure(&earliest, &looked, &[], &std::collections::BTreeMap::new(), Duration::ZERO);
    assert_eq!(measured.unwrap().value, 3);
}

/// Where no broker answers it is said within the time, with the mend.
#[test]
fn a_cluster_that_does_not_answer_is_told_in_time() {
    let options = Options::new(format!("127.0.0.1:{}", crate::kafka::free_port()));
    let mut consumption = KafkaConsumption::new(&options, "g", &["orders".to_owned()]).unwrap();
    let said = consumption.look(Duration::from_millis(500)).unwrap_err().to_string();
    assert!(said.contains("the partitions of orders are not known") && said.contains("check that the brokers run"), "{said}");
}
