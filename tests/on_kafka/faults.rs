//! What befalls a member of a group at the worst moments, on a real broker behind a proxy that holds the very request which is aimed at: killed in an open transaction, or when
//! its commit took effect and it was not told; stopped for longer than a transaction lasts; a group that changes while a batch is in flight; a record that nobody can read.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::common::{LOADLINE, PATIENCE, Running, wait_for};
use crate::kafka::{Broker, answered, brought, free_port, makes};
use crate::proxy::{Api, Held, Proxy, Side};
use loadline::log::kafka::{KafkaLog, Options};
use loadline::log::{Batch, Log, LogError, Membership, Partitions, Polled, RawAppend, RawRecord, Topic};
use loadline::model::{InstanceName, Kind, Message, Sample, SampleBatch, Signal};
use loadline::runtime::clock::{Clock, Stopwatch, SystemClock};
use loadline::wire;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::groups::GroupInfo;
use rdkafka::message::Message as _;
use rdkafka::{Offset as At, TopicPartitionList};
use rustix::process::{Pid, Signal as Sent, kill_process};

/// So soon after a partition has a new owner others read on behind what the one before left open.
const READ_ON_WITHIN: Duration = Duration::from_secs(2);

/// How long a poll waits.
const SLICE: Duration = Duration::from_millis(20);

/// A broker that all clients reach through a proxy, and which ends transactions as soon as their time is over.
fn site() -> (&'static Broker, &'static Proxy) {
    static SITE: OnceLock<(Broker, Proxy)> = OnceLock::new();
    let (broker, proxy) = SITE.get_or_init(|| {
        let ports = [free_port(), free_port()];
        let proxy = Proxy::before(ports[0]);
        let advertised = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{}", proxy.port);
        (Broker::start_at(ports, &[&advertised, "transaction.abort.timed.out.transaction.cleanup.interval.ms=100"], &[]), proxy)
    });
    (broker, proxy)
}

/// An installation of its own, and a process that does one thing.
struct Installation {
    options: Options,
    log: KafkaLog,
    home: tempfile::TempDir,
}

impl Installation {
    fn new(partitions: Partitions) -> Installation {
        let options = Options { partitions: Some(partitions), transaction_timeout: Duration::from_secs(60), ..site().0.options(&Broker::prefix()) };
        makes(&options);
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("policies")).unwrap();
        Installation { log: Broker::open(&options), options, home }
    }

    /// A process that aggregates, with these settings of its clients.
    fn aggregates(&self, settings: &str) -> Running {
        let file = self.home.path().join("kafka.properties");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(LOADLINE);
        command.current_dir(self.home.path()).args(["run", "--brokers", &self.options.brokers, "--data", "data", "--policies", "policies"]);
        command.args(["--listen", "127.0.0.1:0", "--pane", "1s", "--roles", "aggregate", "--log-level", "debug"]);
        command.args(["--set", &format!("kafka.prefix={}", self.options.prefix), "--set", "kafka.partitions=1", "--set", "kafka.replication=1"]);
        command.args(["--set", &format!("kafka.config={}", file.display())]).env_remove("LOADLINE_CONFIG");
        Running::spawn(command)
    }

    /// The numbers of the processes that are members of aggregate's group, as their names tell them.
    fn members(&self) -> Vec<u32> {
        let asker: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.options.brokers).create().unwrap();
        let groups = asker.fetch_group_list(Some(&format!("{}aggregate", self.options.prefix)), PATIENCE).unwrap();
        let members = groups.groups().iter().flat_map(GroupInfo::members);
        members.map(|member| member.client_id().rsplit_once('-').unwrap().1.parse().unwrap()).collect()
    }

    fn name(&self, topic: Topic) -> String {
        format!("{}{topic}", self.options.prefix)
    }

    /// The transactions of the owner of a partition of aggregate.
    fn transactions(&self, partition: u32) -> String {
        format!("{}aggregate.{partition}", self.options.prefix)
    }

    /// Appends so many samples in a record.
    fn append_samples(&self, count: usize) {
        let now = SystemClock.now();
        let sample = Sample {
            targets: vec!["prod/Deployment/api".parse().unwrap()],
            metric: "orders".parse().unwrap(),
            instance: InstanceName::none(),
            time: now,
            kind: Kind::Delta,
            value: 1.0,
            histogram: None,
        };
        let value = wire::encode(&Message::Samples(SampleBatch { samples: vec![sample; count], ..SampleBatch::default() }));
        self.append(Topic::Metrics, 0, value);
    }

    fn append(&self, topic: Topic, partition: u32, value: Vec<u8>) {
        self.log.append(vec![RawAppend { topic, partition, key: None, value }]).unwrap();
    }

    /// How many samples stand in panes that are committed.
    fn in_panes(&self) -> i64 {
        let records = answered(|| self.log.scan(Topic::Signals, 0, 0, 10_000));
        records.iter().map(|record| samples_in(&record.value)).sum()
    }

    /// How many samples stand in panes, committed or not.
    fn in_all_panes(&self) -> i64 {
        self.uncommitted(Topic::Signals).iter().map(|value| samples_in(value)).sum()
    }

    /// What stands on the first partition of a topic, whatever became of it.
    fn uncommitted(&self, topic: Topic) -> Vec<Vec<u8>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.options.brokers).set("group.id", "nobody").set("isolation.level", "read_uncommitted");
        let reader: BaseConsumer = config.set("enable.partition.eof", "true").create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.name(topic), 0, At::Beginning).unwrap();
        reader.assign(&from).unwrap();
        let mut values = Vec::new();
        wait_for("the end of a topic", || {
            loop {
                match reader.poll(SLICE)? {
                    Ok(record) => values.push(record.payload().unwrap_or_default().to_vec()),
                    Err(KafkaError::PartitionEOF(_)) => return Some(()),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        values
    }

    /// Waits until aggregate has committed all that stands on `metrics`.
    fn all_is_aggregated(&self) {
        let end = answered(|| self.log.range(Topic::Metrics, 0)).end;
        wait_for("everything to be aggregated", || answered(|| self.log.committed("aggregate", Topic::Metrics, 0)).filter(|position| *position >= end));
        site().0.settle(&self.options.prefix);
    }

    /// Goes on, commit by commit, to the one with these samples: it is held at this side.
    fn held_with_samples(&self, side: Side, are_there: impl Fn() -> bool) -> Held {
        let hold = || site().1.hold(side, Api::EndTxn, &[&self.transactions(0)]);
        let (mut held, waiting) = (hold(), Stopwatch::start());
        loop {
            assert!(waiting.elapsed() < PATIENCE, "the samples are never committed: {} are in panes", self.in_all_panes());
            held.arrives();
            if are_there() {
                return held;
            }
            let next = hold();
            held.goes_on();
            held = next;
        }
    }

    /// The commit with so many samples took effect, and nobody was told: its answer is held.
    fn held_when_committed(&self, samples: i64) -> Held {
        self.held_with_samples(Side::Answer, || {
            site().0.settle(&self.options.prefix);
            self.in_panes() == samples
        })
    }
}

/// How many samples of the tests stand in a record of signals.
fn samples_in(value: &[u8]) -> i64 {
    match wire::decode(Topic::Signals, value) {
        Ok(Message::Signal(Signal::Part(part))) => {
            part.panes.iter().filter(|pane| pane.metric.as_str() == "orders").flat_map(|pane| pane.instances.values()).map(|reading| reading.count).sum()
        }
        _ => 0,
    }
}

/// What others append meanwhile.
const AFTER: &[u8] = b"after";

/// Waits until a process goes on with the partition.
fn goes_on(process: &Running) {
    wait_for("a process to go on with the partition", || process.said().iter().any(|line| line.contains("aggregate goes on with partition 0 ")).then_some(()));
}

/// A process whose commit with seven samples took effect, and which was not told.
fn untold() -> (Installation, Running, Held) {
    let here = Installation::new(Partitions::default());
    let one = here.aggregates("");
    goes_on(&one);
    here.append_samples(7);
    let held = here.held_when_committed(7);
    (here, one, held)
}

/// Killed between append and commit, its transaction stays open and hides what others append. Its partition's next owner ends that: others read on, nothing of it is ever seen,
/// and the work is done again, once.
#[test]
fn killed_between_append_and_commit_it_holds_up_others_only_until_its_partition_has_a_new_owner() {
    let site = site().0;
    let here = Installation::new(Partitions::default());
    // Only a new owner ends it: the broker would leave it open for longer than this test may take.
    let settings = "transaction.timeout.ms=600000\n";
    let one = here.aggregates(settings);
    goes_on(&one);
    here.append_samples(7);
    let held = here.held_with_samples(Side::Request, || here.in_all_panes() == 7);
    let next = here.aggregates(settings);
    here.append(Topic::Signals, 0, AFTER.to_vec());
    let from = BTreeMap::from([(0, answered(|| here.log.range(Topic::Signals, 0)).end)]);
    let mut others = here.log.follow(Topic::Signals, &from).unwrap();
    one.kill();
    drop(held);
    assert_eq!(here.in_panes(), 0, "it is not committed");
    assert!(brought(others.poll(10, Duration::ZERO)).is_empty(), "the open transaction hides what comes after it");

    let is_given = || {
        let owners = here.log.owners("aggregate", Topic::Metrics).ok()?.unwrap_or_default();
        owners.get(&0).is_some_and(|owner| owner.contains(&format!("-{} at ", next.pid()))).then_some(())
    };
    wait_for("the group to give the partition to the next one", is_given);
    let owned = Stopwatch::start();
    let mut read = false;
    while !read {
        let polled = brought(others.poll(100, SLICE));
        read = polled.iter().any(|polled| matches!(polled, Polled::Records { records, .. } if records.iter().any(|record| record.value == AFTER)));
        assert!(owned.elapsed() < READ_ON_WITHIN, "others still wait {:?} after the partition had a new owner", owned.elapsed());
    }
    here.all_is_aggregated();
    assert_eq!((here.in_panes(), here.in_all_panes()), (7, 14), "what was left open is never seen, and was done again once");
    assert_eq!(next.stop(), 0);
    site.settle(&here.options.prefix);
}

/// Killed when its commit took effect and before it polled again, or even knew: nothing is open, and its successor goes on behind it.
#[test]
fn killed_between_commit_and_the_next_poll_its_successor_goes_on_behind_what_it_committed() {
    let (here, one, held) = untold();
    // Others are not held up.
    here.append(Topic::Signals, 0, AFTER.to_vec());
    assert!(answered(|| here.log.scan(Topic::Signals, 0, 0, 10_000)).iter().any(|record| record.value == AFTER));
    let next = here.aggregates("");
    one.kill();
    drop(held);
    goes_on(&next);
    here.append_samples(3);
    here.all_is_aggregated();
    assert_eq!((here.in_panes(), here.in_all_panes()), (10, 10), "nothing was done again");
    assert_eq!(next.stop(), 0);
}

/// Its commit took effect, and the answers that say so are lost: the process asks until it knows, and goes on behind what it committed.
#[test]
fn a_commit_whose_answers_are_lost_took_effect_once() {
    let (here, one, mut held) = untold();
    for _ in 0..3 {
        let next = site().1.hold(Side::Answer, Api::EndTxn, &[&here.transactions(0)]);
        // With its connection.
        drop(held);
        next.arrives();
        held = next;
    }
    held.goes_on();
    here.append_samples(3);
    here.all_is_aggregated();
    assert_eq!((here.in_panes(), here.in_all_panes()), (10, 10), "nothing was done again");
    assert_eq!(one.stop(), 0);
}

/// Its commit took effect, and its producer is shut out before it was told: the position that is committed says what became of it, and nothing is done again.
#[test]
fn a_commit_of_a_producer_that_died_before_it_was_told_took_effect_once() {
    let (here, one, held) = untold();
    site().0.begin_as(&here.transactions(0));
    // With its connection: the client asks again, and is refused.
    drop(held);
    here.append_samples(3);
    here.all_is_aggregated();
    assert_eq!((here.in_panes(), here.in_all_panes()), (10, 10), "nothing was done again");
    assert_eq!(one.stop(), 0);
}

/// Stopped in a transaction for longer than it may last: the broker ends it, the commit is refused, nothing of it is seen, and the same process does the work again, once.
#[test]
fn a_transaction_that_times_out_is_done_again_once() {
    let here = Installation::new(Partitions::default());
    // It is a member all the while.
    let one = here.aggregates("transaction.timeout.ms=5000\nmessage.timeout.ms=4000\nsocket.timeout.ms=4000\nsession.timeout.ms=300000\n");
    goes_on(&one);
    here.append_samples(7);
    let held = here.held_with_samples(Side::Request, || here.in_all_panes() == 7);
    let send = |signal| kill_process(Pid::from_raw(i32::try_from(one.pid()).unwrap()).unwrap(), signal).unwrap();
    send(Sent::STOP);
    // Until the broker has ended it.
    site().0.settle(&here.options.prefix);
    assert_eq!((here.in_panes(), here.in_all_panes()), (0, 7));
    let position = || answered(|| here.log.committed("aggregate", Topic::Metrics, 0));
    let before = position();
    send(Sent::CONT);
    held.goes_on();
    here.all_is_aggregated();
    assert!(position() > before);
    assert_eq!((here.in_panes(), here.in_all_panes()), (7, 14), "none of what was ended is seen, and it was done again once");
    assert_eq!(one.stop(), 0);
}

/// A broker that stores two records and whose answers are lost: when the time of the first is over the second is not sent again under a new number.
#[test]
fn what_is_stored_already_is_not_stored_again_where_another_record_is_given_up() {
    let lasts = Duration::from_secs(4);
    let partitions = Partitions::default().with(Topic::Metrics, 2);
    let options = Options { partitions: Some(partitions), transaction_timeout: lasts, ..site().0.options(&Broker::prefix()) };
    makes(&options);
    let log = Broker::open(&options);
    let record = |partition, value: &str| RawAppend { topic: Topic::Metrics, partition, key: None, value: value.into() };
    log.append(vec![record(0, "before"), record(1, "before")]).unwrap();
    let (told, hears) = channel();
    let begin = |append: RawAppend| {
        let told = told.clone();
        log.append_each(vec![(vec![append], Box::new(move |outcome| drop(told.send(outcome))))]);
    };
    let lost = site().1.hold(Side::Answer, Api::Produce, &["the-first-of-them"]);
    begin(record(0, "the-first-of-them"));
    lost.arrives();
    // It is under way when the time of the first is over.
    std::thread::sleep(lasts / 2);
    begin(record(1, "the-second-of-them"));
    let outcomes = [hears.recv_timeout(PATIENCE).unwrap(), hears.recv_timeout(PATIENCE).unwrap()];
    drop(lost);
    let times = |partition, value: &str| {
        let records = answered(|| log.scan(Topic::Metrics, partition, 0, 100));
        records.iter().filter(|record| record.value == value.as_bytes()).count()
    };
    assert_eq!((times(0, "the-first-of-them"), times(1, "the-second-of-them")), (1, 1), "{outcomes:?}");
    // What is appended then is stored, whatever became of those.
    log.append(vec![record(0, "after"), record(1, "after")]).unwrap();
}

/// A record that nobody can read, in the midst of others: it becomes one dead letter, and the rest goes on.
#[test]
fn a_record_that_nobody_can_read_becomes_one_dead_letter_and_the_rest_goes_on() {
    let here = Installation::new(Partitions::default());
    let poison = b"\xC3\x01 nobody's schema".to_vec();
    here.append_samples(3);
    here.append(Topic::Metrics, 0, poison.clone());
    here.append_samples(4);
    let one = here.aggregates("");
    here.all_is_aggregated();
    assert_eq!(here.in_panes(), 7);
    // Nor does the next process choke on it.
    one.kill();
    let next = here.aggregates("");
    here.append_samples(2);
    here.all_is_aggregated();
    assert_eq!(here.in_panes(), 9);
    assert_eq!(next.stop(), 0);
    let letters = answered(|| here.log.scan(Topic::DeadLetters, 0, 0, 100));
    let letters: Vec<Message> = letters.iter().map(|record| wire::decode(Topic::DeadLetters, &record.value).unwrap()).collect();
    let [Message::DeadLetter(letter)] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.topic.as_str(), letter.offset, &letter.record), ("metrics", 1, &poison));
}

/// What became of a batch that was in flight when another member joined the group.
struct InFlight {
    here: Installation,
    partition: u32,
    outcome: Result<(), LogError>,
    /// The partition that the other one got, and from where on.
    handed_over: (u32, u64),
}

/// The name of the client whose batch is in flight.
const FIRST: &str = "first-member";

impl InFlight {
    /// A member owns two partitions, and has read a record of each. Its commit for this partition is held before this request; then another one joins, and the commit goes on when the
    /// group's generation has moved on.
    fn at(api: Api, partition: u32) -> InFlight {
        let here = Installation::new(Partitions::default().with(Topic::Metrics, 2).with(Topic::Signals, 2));
        let mut options = here.options.clone();
        options.settings.insert("client.id".to_owned(), FIRST.to_owned());
        let (of_first, of_second) = (Broker::open(&options), Broker::open(&here.options));
        [0, 1].into_iter().for_each(|partition| here.append(Topic::Metrics, partition, b"input".to_vec()));
        let join = |log: &KafkaLog| log.join(Membership { group: "aggregate", member: "a".to_owned(), topic: Topic::Metrics }).unwrap();
        let mut first = join(&of_first);
        let mut read: Vec<RawRecord> = Vec::new();
        wait_for("a record of each partition", || {
            for polled in brought(first.poll(10, SLICE)) {
                if let Polled::Records { records, .. } = polled {
                    read.extend(records);
                }
            }
            (read.len() == 2).then_some(())
        });
        let position = read.iter().find(|record| record.partition == partition).unwrap().offset + 1;
        let appends = vec![RawAppend { topic: Topic::Signals, partition, key: None, value: AFTER.to_vec() }];
        let batch = Batch { partition, position: Some(position), appends, states: Vec::new() };

        let held = site().1.hold(Side::Request, api, &[&here.transactions(partition)]);
        let (outcome, handed_over) = std::thread::scope(|scope| {
            let committing = scope.spawn(move || {
                let outcome = first.commit(&batch);
                (first, outcome)
            });
            held.arrives();
            let moves_on = site().1.hold(Side::Request, Api::SyncGroup, &[FIRST, &here.options.prefix]);
            let mut second = join(&of_second);
            let joining = scope.spawn(move || {
                wait_for("the other one to get a partition", || {
                    brought(second.poll(0, SLICE)).into_iter().find_map(|polled| match polled {
                        Polled::Assigned { partition, position } => Some((partition, position)),
                        _ => None,
                    })
                })
            });
            moves_on.arrives();
            moves_on.goes_on();
            held.goes_on();
            let (mut first, outcome) = committing.join().unwrap();
            while !joining.is_finished() {
                brought(first.poll(0, SLICE));
            }
            (outcome, joining.join().unwrap())
        });
        site().0.settle(&here.options.prefix);
        InFlight { here, partition, outcome, handed_over }
    }

    /// How often what it appended is there.
    fn is_there(&self) -> usize {
        answered(|| self.here.log.scan(Topic::Signals, self.partition, 0, 100)).iter().filter(|record| record.value == AFTER).count()
    }

    fn was_handed_over(&self) -> bool {
        self.handed_over.0 == self.partition
    }
}

/// The group's generation moves on while the records of a batch are on their way: its position is refused, so all of it is. Where its partition goes to another, the member is told
/// that it is fenced, and the other one begins where it was; else it commits the batch again, in the generation that is now.
#[test]
fn a_commit_of_a_stale_generation_is_refused() {
    let mut fenced = 0;
    for partition in [0, 1] {
        let in_flight = InFlight::at(Api::Produce, partition);
        let asked = site().1.passed(Api::TxnOffsetCommit, &in_flight.here.transactions(partition));
        if in_flight.was_handed_over() {
            assert!(matches!(in_flight.outcome, Err(LogError::Fenced { .. })), "{:?}", in_flight.outcome);
            assert_eq!((in_flight.is_there(), in_flight.handed_over), (0, (partition, 0)));
            fenced += 1;
        } else {
            in_flight.outcome.as_ref().unwrap();
            assert_eq!(in_flight.is_there(), 1);
            assert!(asked > 1, "the first one is of the generation before");
        }
    }
    assert_eq!(fenced, 1, "one of two partitions is handed over, the same in both cases");
}

/// A batch whose position was taken is committed whatever the group does then, and the next owner of the partition begins behind it.
#[test]
fn a_batch_in_flight_is_committed_before_its_partition_changes_hands() {
    for partition in [0, 1] {
        let in_flight = InFlight::at(Api::EndTxn, partition);
        in_flight.outcome.as_ref().unwrap();
        assert_eq!(in_flight.is_there(), 1);
        let expected = u64::from(in_flight.was_handed_over());
        assert_eq!(in_flight.handed_over.1, expected, "{partition} is committed, the other one is not");
    }
}

/// Where one was killed the next process joins when the session of that one is over: the others would wait for it, and who dies while they wait is missed only a session later.
#[test]
fn who_is_started_where_another_was_killed_does_not_make_the_group_wait_for_that_one() {
    let here = Installation::new(Partitions::default());
    let [one, other] = [(); 2].map(|()| here.aggregates(""));
    wait_for("both to be members", || (here.members().len() == 2).then_some(()));
    let dead = one.pid();
    one.kill();
    let next = here.aggregates("");
    wait_for("the next one to be a member", || {
        let members = here.members();
        let is_in = members.contains(&next.pid());
        assert!(!(is_in && members.contains(&dead)), "the one that was killed is a member still");
        is_in.then_some(())
    });
    for process in [other, next] {
        assert_eq!(process.stop(), 0);
    }
}
