//! The log on a real broker, beyond what every log promises (`log_contract`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadline::log::consumption::Consumption as _;
use loadline::log::kafka::{KafkaConsumption, KafkaLog, Options, topics};
use loadline::log::{Batch, Follower, Log, LogError, Membership, Moment, Partitions, Polled, RawAppend, RawRecord, Session, StatePut, Told, Topic};
use loadline::model::Timestamp;
use loadline::runtime::clock::{Clock, Stopwatch, SystemClock};
use loadline::runtime::runner::Rounds;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset as At, TopicPartitionList};

use crate::common::{PATIENCE, wait_for};
use crate::kafka::{Broker, answered, broker, brought, makes};

fn signal(value: &str) -> RawAppend {
    RawAppend { topic: Topic::Signals, partition: 0, key: None, value: value.as_bytes().to_vec() }
}

fn values(log: &KafkaLog) -> Vec<String> {
    answered(|| log.scan(Topic::Signals, 0, 0, 100)).into_iter().map(|record| String::from_utf8(record.value).unwrap()).collect()
}

fn refused(options: &Options) -> String {
    let started = Stopwatch::start();
    loop {
        match KafkaLog::open(options.clone()) {
            Err(LogError::Fatal { reason }) => return reason,
            Err(LogError::Retry { .. }) if started.elapsed() < PATIENCE => {}
            other => panic!("{:?}", other.err()),
        }
    }
}

/// A writer that died in a transaction hides what comes after it from all readers, until its partition has a new owner: that ends the
/// transaction when it begins, and none of it is ever seen.
#[test]
fn who_takes_over_a_partition_ends_what_its_dead_owner_left_open() {
    let options = broker().options(&Broker::prefix());
    makes(&options);
    let log = Broker::open(&options);
    let dead = broker().leaves_open(&format!("{}aggregate.0", options.prefix), &format!("{}signals", options.prefix), "never");
    log.append(vec![signal("after")]).unwrap();
    assert_eq!(values(&log), Vec::<String>::new(), "the open transaction hides it");
    let mut session = log.join(Membership { group: "aggregate", member: "a".to_owned(), topic: Topic::Metrics }).unwrap();
    let started = Stopwatch::start();
    while !brought(session.poll(1, Duration::from_secs(1))).iter().any(|polled| matches!(polled, Polled::Assigned { partition: 0, .. })) {
        assert!(started.elapsed() < PATIENCE, "it is never assigned");
    }
    broker().settle(&options.prefix);
    assert_eq!(values(&log), ["after"]);
    drop(dead);
}

/// A reader that was left where the log ended then has that end in its queue: it is not the end of now.
#[test]
fn a_scan_that_goes_on_where_one_stopped_reads_what_came_since() {
    let options = broker().options(&Broker::prefix());
    makes(&options);
    let log = Broker::open(&options);
    let append = |value: String| log.append(vec![signal(&value)]).unwrap()[0];
    for round in 0..50 {
        let first = append(format!("{round} first"));
        assert_eq!(answered(|| log.scan(Topic::Signals, 0, first, 1)).len(), 1);
        // Meanwhile the client asks for more, and is told that there is none: each of these takes as long as such an answer does.
        (0..5).for_each(|_| assert_eq!(answered(|| log.committed("decide", Topic::Signals, 0)), None));
        let second = append(format!("{round} second"));
        let read: Vec<_> = answered(|| log.scan(Topic::Signals, 0, first + 1, 10)).into_iter().map(|record| record.offset).collect();
        assert_eq!(read, [second], "in round {round}");
    }
}

/// A producer that lacks a right is dead for good: it is told which, and another one in its place writes as soon as that is granted.
#[test]
fn who_lacks_a_right_to_write_is_told_and_writes_as_soon_as_it_has_it() {
    let broker = Broker::with_users(&["writer"]);
    let admin = broker.options(&Broker::prefix());
    makes(&admin);
    let allow = |rights: &[&str]| broker.acls(&[&["--add", "--allow-principal", "User:writer"], rights].concat());
    allow(&["--operation", "Describe", "--operation", "DescribeConfigs", "--operation", "Read", "--topic", "*"]);
    allow(&["--operation", "Read", "--group", "*"]);
    let mut options = admin.clone();
    options.settings.insert("sasl.username".to_owned(), "writer".to_owned());
    options.settings.insert("sasl.password".to_owned(), Broker::password("writer"));
    let log = Broker::open(&options);
    for _ in 0..2 {
        let refused = log.append(vec![signal("never")]).unwrap_err().to_string();
        assert!(refused.contains("grant this user what `loadline topology acls` prints for its roles"), "{refused}");
    }
    allow(&["--operation", "Write", "--topic", &format!("{}signals", options.prefix)]);
    wait_for("what was granted", || log.append(vec![signal("granted")]).ok());
    assert_eq!(values(&Broker::open(&admin)), ["granted"]);
}

/// Who follows a topic that was cut short (a broker without a part of its disk came to lead it, or a backup was put back) is told of the gap, and goes on with
/// what comes in its place.
#[test]
fn who_follows_a_topic_that_is_cut_short_is_told_and_goes_on() {
    let options = broker().options(&Broker::prefix());
    makes(&options);
    let log = Broker::open(&options);
    log.append(vec![signal("0"), signal("1")]).unwrap();
    let mut follower = log.follow(Topic::Signals, &BTreeMap::from([(0, 100)])).unwrap();
    let started = Stopwatch::start();
    let mut polled = Vec::new();
    let mut follow = |wanted: &dyn Fn(&[Polled]) -> bool| {
        while !wanted(&polled) {
            assert!(started.elapsed() < PATIENCE, "{polled:?}");
            polled.extend(brought(follower.poll(10, Duration::from_millis(200))));
        }
    };
    follow(&|polled| polled.contains(&Polled::Gap { partition: 0, from: 2, to: 100 }));
    log.append(vec![signal("2")]).unwrap();
    follow(&|polled| is_read(polled, "2"));
    assert!(!is_read(&polled, "0") && !is_read(&polled, "1"), "{polled:?}");
}

/// Topics that are missing are named, with what creates them; and so is a state that does not have as many partitions as its input.
#[test]
fn topics_that_are_missing_or_do_not_fit_are_named() {
    let options = broker().options(&Broker::prefix());
    let nothing = format!("no topic of an installation with the prefix {} is on the cluster of {}: ", options.prefix, options.brokers);
    let reason = refused(&options);
    assert!(reason.starts_with(&nothing) && reason.ends_with("`loadline topology apply` makes it"), "{reason}");
    // Somebody created a state by hand.
    broker().create_topic(&format!("{}decide-state", options.prefix), 3, &[]);
    let reason = refused(&options);
    let missing = |name: &str| reason.contains(&format!("{}{name}", options.prefix));
    assert!(missing("signals") && missing("admit-state") && !missing("decide-state"), "{reason}");
    assert!(reason.ends_with("`loadline topology apply` creates them"), "{reason}");
    let options = Options { partitions: Some(Partitions::default().with(Topic::Signals, 2)), ..options };
    makes(&options);
    let (reason, prefix) = (refused(&options), &options.prefix);
    let expected = format!(
        "the topics do not fit, and Loadline does not run on them: {prefix}decide-state: partitions is 3, declared is 2: Partition N holds the state of \
         partition N of signals. {prefix}signals has 2. "
    );
    assert!(reason.starts_with(&expected) && reason.ends_with("`loadline topology check` shows all that differs"), "{reason}");
}

/// What the promises rest on cannot be set; what librdkafka does not know is named.
#[test]
fn settings_that_cannot_be_are_named() {
    let with = |name: &str, value: &str| {
        let mut options = broker().options(&Broker::prefix());
        options.settings.insert(name.to_owned(), value.to_owned());
        refused(&options)
    };
    assert_eq!(
        with("isolation.level", "read_uncommitted"),
        "setting of the Kafka client: isolation.level cannot be chosen: Loadline sets it, as its promises rest on it; remove it"
    );
    let unknown = with("fetch.wait.max", "5");
    assert!(unknown.starts_with("setting of the Kafka client: fetch.wait.max: No such configuration property"), "{unknown}");
}

fn metric(partition: u32, value: &str) -> RawAppend {
    RawAppend { topic: Topic::Metrics, partition, key: None, value: value.as_bytes().to_vec() }
}

/// A member of the group that reads metrics.
fn joins(log: &KafkaLog, member: &str) -> Box<dyn Session> {
    log.join(Membership { group: "aggregate", member: member.to_owned(), topic: Topic::Metrics }).unwrap()
}

/// Polls until what came is as wanted.
fn poll_until(session: &mut dyn Session, what: &str, wanted: impl Fn(&[Polled]) -> bool) -> Vec<Polled> {
    let (started, mut polled) = (Stopwatch::start(), Vec::new());
    while !wanted(&polled) {
        assert!(started.elapsed() < PATIENCE, "{what} never comes: {polled:?}");
        // While a broker starts a poll may fail for now.
        polled.extend(session.poll(100, Duration::from_millis(100)).unwrap_or_default());
    }
    polled
}

/// Follows until this record came.
fn follows_until(follower: &mut dyn Follower, value: &str) {
    let (started, mut polled) = (Stopwatch::start(), Vec::new());
    while !is_read(&polled, value) {
        assert!(started.elapsed() < PATIENCE, "{value} never comes: {polled:?}");
        polled.extend(follower.poll(100, Duration::from_millis(100)).unwrap_or_default());
    }
}

fn is_given(polled: &[Polled], partition: u32) -> bool {
    polled.iter().any(|polled| matches!(polled, Polled::Assigned { partition: given, .. } if *given == partition))
}

/// Whether this record is among what came.
fn is_read(polled: &[Polled], value: &str) -> bool {
    let of = |polled: &Polled| if let Polled::Records { records, .. } = polled { records.clone() } else { Vec::new() };
    polled.iter().flat_map(of).any(|RawRecord { value: read, .. }| read == value.as_bytes())
}

/// Behind the last record that came of a partition.
fn next(polled: &[Polled], of: u32) -> u64 {
    let records = polled.iter().filter_map(|polled| if let Polled::Records { partition, records } = polled { Some((*partition, records)) } else { None });
    records.filter(|(partition, _)| *partition == of).flat_map(|(_, records)| records).map(|record| record.offset + 1).max().unwrap()
}

/// Polls until these partitions, and no others, are read to the ends that they have from now on.
fn reads_to_the_end(session: &mut dyn Session, of: &[u32]) {
    static POLLS: AtomicI64 = AtomicI64::new(0);
    let (started, first) = (Stopwatch::start(), POLLS.load(Ordering::SeqCst));
    let mut through = BTreeMap::new();
    loop {
        assert!(started.elapsed() < PATIENCE, "{of:?} are to be read to their ends, not {:?}", through.keys());
        let now = Timestamp::from_millis(POLLS.fetch_add(1, Ordering::SeqCst));
        let brought = session.poll(100, Duration::from_millis(10)).unwrap_or_default();
        let told = session.read_through(Moment { at: now, log: now }, &|_| true).unwrap_or_default();
        through.extend(told.into_iter().filter(|(_, moment)| moment.at >= Timestamp::from_millis(first)));
        if brought.is_empty() && through.keys().eq(of) {
            return;
        }
    }
}

/// As any client sends it, in a request of its own.
fn sends(broker: &Broker, topic: &str, partition: i32, codec: &str, value: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &broker.address).set("compression.type", codec).create().unwrap();
    let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition).payload(value);
    producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
    producer.flush(PATIENCE).unwrap();
}

#[test]
fn records_are_read_however_their_producer_compresses() {
    let options = broker().options(&Broker::prefix());
    makes(&options);
    let log = Broker::open(&options);
    let mut session = joins(&log, "a");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let value = format!("{codec} ").repeat(2_000);
        sends(broker(), &format!("{}metrics", options.prefix), 0, codec, &value);
        poll_until(&mut *session, codec, |polled| is_read(polled, &value));
        let scanned = answered(|| log.scan(Topic::Metrics, 0, 0, 100));
        assert!(scanned.iter().any(|record| record.value == value.as_bytes()), "{codec}");
    }
}

/// A record whose bytes are no longer those that were written: its partition waits, alone, and says so; when what is damaged is deleted it goes on, and the loss is told.
#[test]
fn a_record_that_cannot_be_unpacked_is_named_and_holds_up_no_other_partition() {
    let broker = Broker::start(&[], &[]);
    let options = Options { partitions: Some(Partitions::default().with(Topic::Metrics, 2)), ..broker.options(&Broker::prefix()) };
    makes(&options);
    let metrics = format!("{}metrics", options.prefix);
    for (partition, value) in [(0, "before"), (0, "damaged"), (0, "after"), (1, "other")] {
        sends(&broker, &metrics, partition, "none", value);
    }
    broker.damage(&metrics, 0, b"damaged");
    let log = Broker::open(&options);
    let mut session = joins(&log, "a");
    poll_until(&mut *session, "what can be read", |polled| is_read(polled, "before") && is_read(polled, "other"));
    let started = Stopwatch::start();
    let lacking = loop {
        assert!(started.elapsed() < PATIENCE, "nothing is said to be lacking");
        assert!(!is_read(&brought(session.poll(100, Duration::from_millis(100))), "after"));
        let now = SystemClock.now();
        let through = session.read_through(Moment { at: now, log: now }, &|_| true).unwrap();
        assert!(!through.contains_key(&0) || started.elapsed() < Duration::from_secs(1), "{through:?}");
        if let [(0, lacking)] = &session.lacking()[..] {
            assert!(through.contains_key(&1), "the other partition is at its end");
            break lacking.clone();
        }
    };
    assert!(lacking.what == "a record that its client can unpack" && lacking.reason.starts_with("at offset 1 or next to it: Kafka: "), "{lacking:?}");
    assert_eq!(log.held().len(), 1);
    broker.delete_records(&metrics, 0, 2);
    let polled = poll_until(&mut *session, "what comes after it", |polled| is_read(polled, "after"));
    assert!(polled.contains(&Polled::Gap { partition: 0, from: 1, to: 2 }), "{polled:?}");
    reads_to_the_end(&mut *session, &[0, 1]);
    assert_eq!((session.lacking(), log.held()), (Vec::new(), Vec::new()));
}

/// A topic that is given more partitions under who reads it: that all is read is not said from then on, and whoever counts on their number ends, with what follows.
#[test]
fn who_reads_a_topic_that_grows_ends_with_the_way_out() {
    let mut options = broker().options(&Broker::prefix());
    options.partitions = Some(Partitions::default().with(Topic::Metrics, 2));
    makes(&options);
    let metrics = format!("{}metrics", options.prefix);
    // One that is never asked how far it has read is told by its group.
    let told_by_its_group = Options { settings: BTreeMap::from([("topic.metadata.refresh.interval.ms".to_owned(), "500".to_owned())]), ..options.clone() };
    let mut members = Vec::new();
    for (options, group) in [(&options, "aggregate"), (&told_by_its_group, "decide")] {
        let log = Broker::open(options);
        let mut session = log.join(Membership { group, member: "a".to_owned(), topic: Topic::Metrics }).unwrap();
        poll_until(&mut *session, "both partitions", |polled| is_given(polled, 0) && is_given(polled, 1));
        members.push((log, session));
    }
    reads_to_the_end(&mut *members[0].1, &[0, 1]);
    broker().grow(&metrics, 3);
    for (number, (_log, session)) in members.iter_mut().enumerate() {
        let started = Stopwatch::start();
        let reason = loop {
            let now = SystemClock.now();
            match session.poll(10, Duration::from_secs(1)) {
                Err(LogError::Fatal { reason }) => break reason,
                other => assert!(started.elapsed() < PATIENCE, "{other:?}"),
            }
            if number == 0 {
                assert_eq!(session.read_through(Moment { at: now, log: now }, &|_| true).unwrap(), BTreeMap::new(), "it has not read all");
            }
        };
        assert!(reason.starts_with(&format!("{metrics} has more partitions now than the 2 that this process began with: ")), "{reason}");
    }
}

/// What members of a group have committed, each when it was last.
#[derive(Default)]
struct Works {
    committed: Mutex<BTreeMap<u32, Stopwatch>>,
    is_over: AtomicBool,
}

impl Works {
    /// Commits on all that its member has, whatever comes of it, until it is over.
    fn on(&self, log: &KafkaLog) {
        let mut session = log.join(Membership { group: "aggregate", member: "works".to_owned(), topic: Topic::Metrics }).unwrap();
        let mut next = BTreeMap::new();
        while !self.is_over.load(Ordering::SeqCst) {
            for polled in session.poll(100, Duration::from_millis(100)).unwrap_or_default() {
                match polled {
                    Polled::Assigned { partition, position } => drop(next.insert(partition, position)),
                    Polled::Revoked { partition } => drop(next.remove(&partition)),
                    Polled::Records { .. } | Polled::Gap { .. } => {}
                }
            }
            for (&partition, &position) in &next {
                let appends = vec![RawAppend { topic: Topic::DeadLetters, partition: 0, key: None, value: b"work".to_vec() }];
                // Again, where it is still under way.
                if session.commit_soon(&Batch { partition, position: Some(position), appends, states: Vec::new() }, false).is_ok() {
                    self.committed.lock().unwrap().insert(partition, Stopwatch::start());
                }
            }
        }
    }

    fn is_done_since(&self, since: Stopwatch, partitions: u32) -> bool {
        let committed = self.committed.lock().unwrap();
        (0..partitions).all(|partition| committed.get(&partition).is_some_and(|at| at.elapsed() < since.elapsed()))
    }
}

/// A cluster whose only broker is late to be heard of has none for a moment, and says so. librdkafka may forget the broker then, and look for it no more. Which of its clients do is chance, and
/// likelier the more there is in the answer: there are several of each kind, at work all the time, and many partitions.
#[test]
fn clients_find_a_cluster_again_that_had_no_broker_for_a_moment() {
    let mut broker = Broker::start(&[], &[]);
    let options = Options { partitions: Some(Partitions::default().with(Topic::Metrics, 6).with(Topic::Signals, 200)), ..broker.impatient(&Broker::prefix()) };
    makes(&options);
    let logs: Vec<KafkaLog> = (0..4).map(|_| Broker::open(&options)).collect();
    let works = Arc::new(Works::default());
    let working: Vec<_> =
        logs[..2].iter().cloned().map(|log| (log, Arc::clone(&works))).map(|(log, works)| std::thread::spawn(move || works.on(&log))).collect();
    let mut followers: Vec<_> = logs.iter().map(|log| log.follow(Topic::Signals, &BTreeMap::new()).unwrap()).collect();
    let name = |name: &str| format!("{}{name}", options.prefix);
    let mut lags: Vec<_> = (0..4).map(|_| KafkaConsumption::new(&options, &name("decide"), &[name("signals")]).unwrap()).collect();
    let mut are_lags_known = || lags.iter_mut().map(|lag| lag.look(Duration::from_secs(1)).is_ok()).fold(true, |all, is| all & is);
    let is_seen = |log: &KafkaLog| log.all_committed("decide", Topic::Signals).is_ok() && log.owners("decide", Topic::Signals).is_ok();
    let started = Stopwatch::start();
    wait_for("all to work", || (works.is_done_since(started, 6) && are_lags_known() && logs.iter().all(is_seen)).then_some(()));

    broker.is_seldom_heard_of(4_000, 2_500);
    wait_for("the broker to be left out again and again", || {
        std::thread::scope(|scope| logs.iter().for_each(|log| drop(scope.spawn(|| (is_seen(log), log.hidden(Topic::Signals))))));
        followers.iter_mut().for_each(|follower| drop(follower.poll(100, Duration::ZERO)));
        are_lags_known();
        (broker.times_left_out() >= 5).then_some(())
    });
    broker.is_heard_of();
    let since = Stopwatch::start();
    wait_for("each partition to be committed on", || works.is_done_since(since, 6).then_some(()));
    works.is_over.store(true, Ordering::SeqCst);
    working.into_iter().for_each(|working| working.join().unwrap());
    wait_for("the lag of a group", || are_lags_known().then_some(()));
    wait_for("the groups to be seen", || logs.iter().all(is_seen).then_some(()));
    for (number, (log, follower)) in logs.iter().zip(&mut followers).enumerate() {
        let value = format!("after {number}");
        wait_for("it to be appended", || log.append(vec![signal(&value)]).ok());
        wait_for("what is appended to be read", || {
            let polled = follower.poll(10_000, Duration::from_millis(100)).ok()?;
            let is_after = |polled: &Polled| matches!(polled, Polled::Records { records, .. } if records.iter().any(|record| record.value == value.as_bytes()));
            polled.iter().any(is_after).then_some(())
        });
    }
    let _open = broker.leaves_open("somebody", &name("signals"), "x");
    for log in &logs {
        wait_for("what is hidden to be seen", || (!log.hidden(Topic::Signals).ok()?.is_empty()).then_some(()));
    }
}

/// A broker with two disks, on one of which is partition 1 of a topic that has two, and nothing else of Loadline's.
struct TwoDisks {
    broker: Broker,
    options: Options,
    name: String,
    disks: tempfile::TempDir,
}

impl TwoDisks {
    fn with(topic: Topic, partitions: Partitions) -> Self {
        let disks = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| disks.path().join(name));
        let mut broker = Broker::start(&[&format!("log.dirs={}", one.display()), "log.flush.offset.checkpoint.interval.ms=500"], &[]);
        let options = Options { partitions: Some(partitions), ..broker.impatient(&Broker::prefix()) };
        let name = format!("{}{topic}", options.prefix);
        let settings = [("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", "589824")];
        broker.create_topic(&name, 1, &settings);
        // Of as many partitions as the other one will have.
        let states = if topic == Topic::Metrics { "aggregate-state" } else { "decide-state" };
        broker.create_topic(&format!("{}{states}", options.prefix), 2, &[&settings[..], &[("cleanup.policy", "compact")]].concat());
        makes(&options);
        // A broker makes topics of its own for who begins transactions and who commits. It puts a new partition where it has the fewest.
        broker.begin_as("anybody");
        broker.commit("anybody", &name, 0);
        broker.kill();
        broker.set(&format!("log.dirs={},{}", one.display(), other.display()));
        std::fs::create_dir(&other).unwrap();
        let formatted = std::fs::read_to_string(one.join("meta.properties")).unwrap();
        let formatted = formatted.lines().map(|line| if line.starts_with("directory.id=") { "directory.id=bG9hZGxpbmUtdGVzdHMtMQ" } else { line });
        std::fs::write(other.join("meta.properties"), formatted.collect::<Vec<_>>().join("\n")).unwrap();
        broker.start_again();
        broker.grow(&name, 2);
        assert!(other.join(format!("{name}-1")).is_dir());
        TwoDisks { broker, options, name, disks }
    }

    /// Takes the other disk away, and waits until nobody leads what is on it.
    fn lose_the_other(&self) {
        std::fs::rename(self.disks.path().join("other"), self.disks.path().join("away")).unwrap();
        let started = Stopwatch::start();
        while self.broker.leaders(&self.name) != [1, -1] {
            assert!(started.elapsed() < PATIENCE, "somebody leads it on");
        }
    }

    /// Puts it back, and starts the broker again.
    fn mend(&mut self) {
        self.broker.kill();
        std::fs::rename(self.disks.path().join("away"), self.disks.path().join("other")).unwrap();
        self.broker.start_again();
    }
}

/// The disk of one partition is gone, so nobody leads it: the others of its member are read to their end, also by a member that is given all of them then. It is named
/// to whoever looks. When it is back nothing of it is missing.
#[test]
fn a_partition_that_nobody_leads_holds_up_no_other() {
    let mut disks = TwoDisks::with(Topic::Metrics, Partitions::default().with(Topic::Metrics, 2));
    let log = Broker::open(&disks.options);
    let mut session = joins(&log, "a");
    poll_until(&mut *session, "both partitions", |polled| is_given(polled, 0) && is_given(polled, 1));
    log.append(vec![metric(1, "before")]).unwrap();
    poll_until(&mut *session, "what was before", |polled| is_read(polled, "before"));
    reads_to_the_end(&mut *session, &[0, 1]);

    disks.lose_the_other();
    let wanted = topics::wanted(&disks.options).unwrap();
    let differences = topics::compare(&disks.options.brokers, &wanted, &topics::look(&disks.options, &wanted).unwrap());
    let unled = differences.iter().filter(|difference| difference.setting.as_deref() == Some("leaders"));
    assert_eq!(unled.map(|unled| (&unled.topic, unled.found.as_deref())).collect::<Vec<_>>(), [(&disks.name, Some("none of 1"))]);
    log.append(vec![metric(0, "meanwhile")]).unwrap();
    poll_until(&mut *session, "what is meanwhile", |polled| is_read(polled, "meanwhile"));
    reads_to_the_end(&mut *session, &[0]);
    drop(session);
    let mut session = joins(&log, "b");
    poll_until(&mut *session, "the partition that is led", |polled| is_given(polled, 0) && is_read(polled, "meanwhile"));
    reads_to_the_end(&mut *session, &[0]);
    // Nor does who begins to follow now.
    let mut follower = log.follow(Topic::Metrics, &BTreeMap::new()).unwrap();
    follows_until(&mut *follower, "meanwhile");
    // Nobody waits for what another one's samples wait for.
    let (told, hears) = channel();
    let calls = [1, 0].map(|partition| {
        let told = told.clone();
        let of: Told = Box::new(move |outcome| drop(told.send((partition, outcome))));
        (vec![metric(partition, "each")], of)
    });
    log.append_each(calls.into());
    assert!(matches!(hears.recv_timeout(PATIENCE).unwrap(), (0, Ok(()))), "before the other one is given up");
    assert!(matches!(hears.recv_timeout(PATIENCE).unwrap(), (1, Err(LogError::Unknown { .. }))));
    let looking = Stopwatch::start();
    let named = format!("; no broker leads {}/1", disks.name);
    while !log.trouble().is_some_and(|trouble| trouble.reason.ends_with(&named)) {
        log.look();
        assert!(looking.elapsed() < PATIENCE, "it is not named: {:?}", log.trouble());
    }

    let found = log.first_after(Topic::Metrics, 1, Timestamp::from_millis(0));
    assert!(matches!(found, Err(LogError::Retry { .. })), "{found:?}");

    disks.mend();
    poll_until(&mut *session, "the partition that is back", |polled| is_given(polled, 1) && is_read(polled, "before"));
    reads_to_the_end(&mut *session, &[0, 1]);
    follows_until(&mut *follower, "before");
}

/// Two members, one of which leaves while nobody leads the partition that it has: the other one is given what it cannot open, and reads on what it has.
#[test]
fn a_member_that_is_given_what_nobody_leads_reads_on() {
    let mut disks = TwoDisks::with(Topic::Metrics, Partitions::default().with(Topic::Metrics, 2));
    let named = |name: &str| BTreeMap::from([("client.id".to_owned(), name.to_owned())]);
    let logs = ["a", "b"].map(|name| Broker::open(&Options { settings: named(name), ..disks.options.clone() }));
    let mut sessions = [joins(&logs[0], "a"), joins(&logs[1], "b")];
    let (started, mut has) = (Stopwatch::start(), [BTreeSet::new(), BTreeSet::new()]);
    while !has.iter().all(|has| has.len() == 1) {
        assert!(started.elapsed() < PATIENCE, "they never share: {has:?}");
        for (session, has) in sessions.iter_mut().zip(&mut has) {
            for polled in brought(session.poll(100, Duration::from_millis(50))) {
                match polled {
                    Polled::Assigned { partition, .. } => drop(has.insert(partition)),
                    Polled::Revoked { partition } => drop(has.remove(&partition)),
                    _ => {}
                }
            }
        }
    }
    let [one, other] = sessions;
    let (mut stays, leaves, log) = if has[0].contains(&0) { (one, other, &logs[0]) } else { (other, one, &logs[1]) };
    disks.lose_the_other();
    drop(leaves);
    // The group has given it both.
    let started = Stopwatch::start();
    let owner_of_all = |log: &KafkaLog| {
        let owners = log.owners("aggregate", Topic::Metrics).unwrap().unwrap();
        owners.len() == 2 && owners.values().collect::<BTreeSet<_>>().len() == 1
    };
    while !owner_of_all(log) {
        assert!(started.elapsed() < PATIENCE, "it is given nothing");
        drop(stays.poll(100, Duration::from_millis(100)));
    }
    for value in ["one", "two"] {
        log.append(vec![metric(0, value)]).unwrap();
        poll_until(&mut *stays, value, |polled| is_read(polled, value));
    }
    reads_to_the_end(&mut *stays, &[0]);
    disks.mend();
    poll_until(&mut *stays, "the partition that is back", |polled| is_given(polled, 1));
    reads_to_the_end(&mut *stays, &[0, 1]);
}

/// Whoever has more to read does not wait for a commit, which goes on and takes effect once.
#[test]
fn while_there_is_more_to_read_a_commit_is_not_waited_for() {
    let options = broker().options(&Broker::prefix());
    makes(&options);
    let log = Broker::open(&options);
    assert!(Rounds::on(&log).records_a_key < Rounds::default().records_a_key, "others take over");
    let mut session = joins(&log, "a");
    poll_until(&mut *session, "its partition", |polled| is_given(polled, 0));
    let wanted: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    log.append(wanted.iter().map(|value| metric(0, value)).collect()).unwrap();
    let (started, mut read, mut went_on) = (Stopwatch::start(), 0, 0);
    while read < wanted.len() {
        assert!(started.elapsed() < PATIENCE, "{read} of them came");
        let polled = brought(session.poll(1, Duration::from_millis(100)));
        if polled.is_empty() {
            continue;
        }
        assert!(is_read(&polled, &wanted[read]), "{polled:?}");
        let said = RawAppend { topic: Topic::Signals, partition: 0, key: None, value: wanted[read].as_bytes().to_vec() };
        read += 1;
        let batch = Batch { partition: 0, position: Some(next(&polled, 0)), appends: vec![said], states: Vec::new() };
        while let Err(refused) = session.commit_soon(&batch, true) {
            assert!(matches!(refused, LogError::UnderWay { .. }), "{refused:?}");
            went_on += 1;
        }
    }
    assert!(went_on > 0, "each commit was waited for");
    assert_eq!((values(&log), answered(|| log.committed("aggregate", Topic::Metrics, 0))), (wanted, Some(20)));
}

/// The disk of a partition that one of a member's partitions writes to is gone: the member's other partition is read and written on, and nothing more of the first is read.
/// When the disk is back, what waited is written, once.
#[test]
fn a_partition_that_cannot_be_written_holds_up_no_other() {
    let two = Partitions::default().with(Topic::Metrics, 2).with(Topic::Signals, 2);
    let mut disks = TwoDisks::with(Topic::Signals, two);
    // The member stays one while the broker is started again.
    let log = Broker::open(&Options { session_timeout: Duration::from_secs(60), ..disks.options.clone() });
    let mut session = joins(&log, "a");
    poll_until(&mut *session, "both partitions", |polled| is_given(polled, 0) && is_given(polled, 1));
    let said = |partition: u32, value: &str| RawAppend { topic: Topic::Signals, partition, key: None, value: value.as_bytes().to_vec() };
    let batch = |partition: u32, position: u64, append: RawAppend| Batch { partition, position: Some(position), appends: vec![append], states: Vec::new() };
    disks.lose_the_other();

    log.append(vec![metric(0, "one"), metric(1, "two")]).unwrap();
    let polled = poll_until(&mut *session, "both", |polled| is_read(polled, "one") && is_read(polled, "two"));
    let waits = batch(0, next(&polled, 0), said(1, "waits"));
    let refused = session.commit_soon(&waits, false).unwrap_err();
    let LogError::UnderWay { reason } = &refused else { panic!("{refused:?}") };
    assert_eq!(*reason, format!("Kafka: 1 of 1 records for {} are not taken yet", disks.name));
    session.hold_back(0, true);
    session.commit(&batch(1, next(&polled, 1), said(0, "first"))).unwrap();
    // Again and again: a transaction that was given up is tried anew.
    let again = |session: &mut Box<dyn Session>| match session.commit_soon(&waits, false) {
        Err(LogError::UnderWay { .. } | LogError::Retry { .. } | LogError::Unknown { .. }) => false,
        Ok(()) => true,
        Err(error) => panic!("{error:?}"),
    };
    log.append(vec![metric(0, "later"), metric(1, "four")]).unwrap();
    let started = Stopwatch::start();
    let (mut gave_up, mut read) = (0, Vec::new());
    while gave_up == 0 || !is_read(&read, "four") {
        assert!(started.elapsed() < PATIENCE, "{read:?}");
        assert!(!again(&mut session), "it is written");
        gave_up += u32::from(log.trouble().is_some());
        read.extend(brought(session.poll(100, Duration::from_millis(100))));
    }
    session.commit(&batch(1, next(&read, 1), said(0, "second"))).unwrap();
    assert!(log.trouble().unwrap().of.is_some_and(|of| of == "what aggregate says of its partition 0"));
    assert!(!is_read(&read, "later"), "it is held back: {read:?}");

    disks.mend();
    let started = Stopwatch::start();
    while !again(&mut session) {
        assert!(started.elapsed() < PATIENCE, "it is never written");
        assert!(!is_read(&session.poll(100, Duration::from_millis(100)).unwrap_or_default(), "later"), "it is held back");
    }
    session.hold_back(0, false);
    poll_until(&mut *session, "what was held back", |polled| is_read(polled, "later"));
    let values = |partition| answered(|| log.scan(Topic::Signals, partition, 0, 100)).into_iter().map(|record| record.value).collect::<Vec<_>>();
    assert_eq!((values(0), values(1)), (vec![b"first".to_vec(), b"second".to_vec()], vec![b"waits".to_vec()]));
}

/// The same, and the member leaves with its transaction under way: the next one goes on with the other partition, and where the disk is back with this one, from where it was committed. What the first
/// had begun to write is not there beside what the second writes.
#[test]
fn a_partition_that_cannot_be_written_goes_over_and_is_written_once() {
    let two = Partitions::default().with(Topic::Metrics, 2).with(Topic::Signals, 2);
    let mut disks = TwoDisks::with(Topic::Signals, two);
    let options = Options { session_timeout: Duration::from_secs(60), ..disks.options.clone() };
    let (log, others) = (Broker::open(&options), Broker::open(&options));
    let said = |partition: u32, value: &str| RawAppend { topic: Topic::Signals, partition, key: None, value: value.as_bytes().to_vec() };
    let batch = |partition: u32, position: u64, append: RawAppend| Batch { partition, position: Some(position), appends: vec![append], states: Vec::new() };
    let mut first = joins(&log, "first");
    poll_until(&mut *first, "both partitions", |polled| is_given(polled, 0) && is_given(polled, 1));
    disks.lose_the_other();
    log.append(vec![metric(0, "one"), metric(1, "two")]).unwrap();
    let polled = poll_until(&mut *first, "both", |polled| is_read(polled, "one") && is_read(polled, "two"));
    let refused = first.commit_soon(&batch(0, next(&polled, 0), said(1, "of the first")), false).unwrap_err();
    assert!(matches!(refused, LogError::UnderWay { .. }), "{refused:?}");
    drop(first);

    let mut second = joins(&others, "second");
    let polled = poll_until(&mut *second, "the partition that can be written", |polled| is_given(polled, 1) && is_read(polled, "two"));
    second.commit(&batch(1, next(&polled, 1), said(0, "of the other"))).unwrap();
    disks.mend();
    let is_back = |polled: &[Polled]| is_given(polled, 0) && is_read(polled, "one");
    let polled = if is_back(&polled) { polled } else { poll_until(&mut *second, "the partition that is back", is_back) };
    let (started, again) = (Stopwatch::start(), batch(0, next(&polled, 0), said(1, "of the second")));
    while let Err(refused) = second.commit_soon(&again, false) {
        assert!(!matches!(refused, LogError::Fatal { .. }) && started.elapsed() < PATIENCE, "{refused:?}");
        drop(second.poll(0, Duration::from_millis(100)));
    }
    let values = |partition| others.scan(Topic::Signals, partition, 0, 100).unwrap().into_iter().map(|record| record.value).collect::<Vec<_>>();
    assert_eq!((values(0), values(1)), (vec![b"of the other".to_vec()], vec![b"of the second".to_vec()]));
    assert_eq!(others.all_committed("aggregate", Topic::Metrics).unwrap(), [Some(1), Some(1)]);
}

/// A state that no record can hold, or that its topic does not take, is refused with the way out; whoever wrote it waits for nothing, and goes on. What came with it
/// is not taken for what was too large.
#[test]
fn a_state_that_is_too_large_is_refused_and_holds_nothing_up() {
    let options = broker().options(&Broker::prefix());
    let states = format!("{}aggregate-state", options.prefix);
    makes(&options);
    let log = Broker::open(&options);
    // It would not begin on such a topic.
    broker().shrinks(&states, &[("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "compact")], 20_000);
    let mut session = joins(&log, "a");
    poll_until(&mut *session, "the partition", |polled| is_given(polled, 0));
    let state = |key: &str, bytes: usize| StatePut { key: key.to_owned(), value: Some(noise(bytes)) };
    for bytes in [1_000_000, 100_000] {
        let states = vec![state("small", 10), state("large", bytes), state("another", 10)];
        let batch = Batch { partition: 0, position: None, appends: vec![signal("with it")], states };
        let refused = session.commit(&batch).unwrap_err();
        let LogError::Fatal { reason } = &refused else { panic!("{refused:?}") };
        assert!(reason.contains(&format!("no state of {} bytes on {}", bytes + 5, options.prefix)) && reason.contains("max.message.bytes"), "{reason}");
    }
    let after = Batch { partition: 0, position: None, appends: vec![signal("after it")], states: vec![state("small", 10)] };
    let started = Stopwatch::start();
    // The client makes itself ready anew behind what it gave up.
    while let Err(refused) = session.commit(&after) {
        assert!(matches!(refused, LogError::Retry { .. }) && started.elapsed() < PATIENCE, "{refused:?}");
    }
    broker().settle(&options.prefix);
    assert_eq!(values(&log), ["after it"]);
    assert_eq!(answered(|| log.states("aggregate", 0)).len(), 1);
}

/// Bytes that no compression makes fewer.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..bytes).map(|_| next()).collect()
}

/// A broker forgets who has not written for days. Who then commits a position alone, as an actuator does, is told so by each commit, until it begins anew as the same producer.
#[test]
fn a_producer_that_the_broker_forgot_begins_anew() {
    let forgets = ["transactional.id.expiration.ms=1000", "transaction.remove.expired.transaction.cleanup.interval.ms=200"];
    let broker = Broker::start(&forgets, &[]);
    let options = broker.options(&Broker::prefix());
    makes(&options);
    let log = Broker::open(&options);
    (0..3).for_each(|number| drop(log.append(vec![metric(0, &number.to_string())]).unwrap()));
    let mut session = joins(&log, "a");
    poll_until(&mut *session, "what there is", |polled| is_given(polled, 0) && is_read(polled, "2"));
    let mut commits = |position: u64| {
        let started = Stopwatch::start();
        let batch = Batch { partition: 0, position: Some(position), appends: Vec::new(), states: Vec::new() };
        while let Err(refused) = session.commit(&batch) {
            assert!(matches!(refused, LogError::Retry { .. }) && started.elapsed() < PATIENCE, "{refused:?}");
        }
    };
    commits(1);
    forgets_transactions(&broker, &format!("{}aggregate.0", options.prefix));
    commits(2);
    assert_eq!(answered(|| log.committed("aggregate", Topic::Metrics, 0)), Some(2));
}

/// Waits until the broker says of this id that there is nothing any more: a record of its own without a value.
fn forgets_transactions(broker: &Broker, id: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address).set("group.id", "looks").set("auto.offset.reset", "earliest");
    let reader: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    (0..4).for_each(|partition| all.add_partition_offset("__transaction_state", partition, At::Beginning).unwrap());
    reader.assign(&all).unwrap();
    let started = Stopwatch::start();
    loop {
        assert!(started.elapsed() < PATIENCE, "{id} is never forgotten");
        if let Some(Ok(record)) = reader.poll(Duration::from_millis(100))
            && record.payload().is_none()
            && record.key().is_some_and(|key| key.ends_with(id.as_bytes()))
        {
            return;
        }
    }
}

/// What its topic does not take is refused to who sent it alone; the others of that moment have theirs there, once.
#[test]
fn a_record_that_its_topic_does_not_take_costs_nobody_else() {
    let options = broker().options(&Broker::prefix());
    let options = Options { partitions: Some(Partitions::default().with(Topic::Signals, 2)), ..options };
    makes(&options);
    let log = Broker::open(&options);
    // It would not begin on such a topic.
    broker().shrinks(&format!("{}signals", options.prefix), &[("message.timestamp.type", "LogAppendTime")], 3_000);
    let large = RawAppend { topic: Topic::Signals, partition: 1, key: None, value: noise(10_000) };
    let calls = [vec![signal("one")], vec![large.clone()], vec![signal("other"), large], vec![signal("last")]];
    let outcomes = appended_each(&log, calls);
    let [Ok(()), Err(refused), Err(LogError::Unknown { reason }), Ok(())] = &outcomes[..] else { panic!("{outcomes:?}") };
    let why = "the topic signals takes no record of 10000 bytes: its max.message.bytes is too small; `loadline topology check` says how that is mended";
    assert_eq!((refused.to_string().as_str(), reason.as_str()), (why, why));
    assert_eq!(values(&log), ["one", "other", "last"]);
}

/// What came of each of these calls, in their order.
fn appended_each<const N: usize>(log: &KafkaLog, calls: [Vec<RawAppend>; N]) -> Vec<Result<(), LogError>> {
    let (calls, outcomes): (Vec<_>, Vec<_>) = calls
        .into_iter()
        .map(|appends| {
            let (done, outcome) = channel();
            let told: Told = Box::new(move |came| drop(done.send(came)));
            ((appends, told), outcome)
        })
        .unzip();
    log.append_each(calls);
    outcomes.into_iter().map(|outcome| outcome.recv_timeout(PATIENCE).unwrap()).collect()
}

/// A session that the brokers do not take is told: else the member would only never be given anything.
#[test]
fn a_session_that_the_brokers_do_not_take_is_told() {
    let mut options = broker().options(&Broker::prefix());
    makes(&options);
    options.settings.insert("session.timeout.ms".to_owned(), "5000".to_owned());
    let log = Broker::open(&options);
    let mut session = joins(&log, "a");
    let started = Stopwatch::start();
    let refused = loop {
        if let Err(LogError::Fatal { reason }) = session.poll(1, Duration::from_millis(100)) {
            break reason;
        }
        assert!(started.elapsed() < PATIENCE, "it is never told");
    };
    assert!(refused.contains("group.min.session.timeout.ms") && refused.contains("set session.timeout.ms"), "{refused}");
}
