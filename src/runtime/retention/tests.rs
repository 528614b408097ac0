use super::*;
use crate::log::embedded::Options;
use crate::log::{Batch, Membership, Offset, Polled, RawAppend, RawRecord, StatePut};
use crate::runtime::clock::ManualClock;

const HOUR: Duration = Duration::from_secs(3600);
const READERS: [(&str, Topic); 3] = [("aggregate", Topic::Metrics), ("arbitrate", Topic::Requests), ("actuate", Topic::Commands)];

struct World {
    clock: Arc<ManualClock>,
    log: EmbeddedLog,
    directory: tempfile::TempDir,
    limits: Limits,
}

impl World {
    /// A log whose records go by size above 1.5 MB.
    fn new() -> World {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let directory = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(directory.path(), clock.clone(), Options::default()).unwrap();
        World { clock, log, directory, limits: Limits { size: 1_600_000, ..Limits::default() } }
    }

    fn keeper(&self) -> Keeper {
        let readers =
            READERS.iter().map(|(group, topic)| Reader::group(group, *topic)).chain([Reader { group: "decide", topic: Topic::Signals, snapshots: true }]);
        Keeper::new(self.log.clone(), self.clock.clone(), readers.collect(), self.limits).unwrap()
    }

    fn append(&self, topic: Topic, records: usize, bytes: usize) {
        for _ in 0..records {
            self.log.append(vec![RawAppend { topic, partition: 0, key: None, value: vec![b'x'; bytes] }]).unwrap();
        }
    }

    /// The group reads up to `position`, and with `restart` a restart reads again from there.
    fn commit(&self, group: &'static str, topic: Topic, position: Offset, restart: Option<Offset>) {
        let mut session = self.log.join(Membership { group, member: "one".to_owned(), topic }).unwrap();
        assert!(matches!(session.poll(1, Duration::ZERO).unwrap()[0], Polled::Assigned { .. }));
        let round = |at: Offset| StatePut { key: "\u{1}round".to_owned(), value: Some(format!(r#"{{"start":{at},"replayFrom":{at}}}"#).into()) };
        let states: Vec<StatePut> = restart.map(round).into_iter().collect();
        session.commit(&Batch { position: Some(position), states, ..Batch::default() }).unwrap();
    }

    fn earliest(&self, topic: Topic) -> Offset {
        self.log.range(topic, 0).unwrap().start
    }

    fn alerts(&self) -> Vec<(AlertState, String)> {
        let alert = |record: RawRecord| match wire::decode(Topic::Alerts, &record.value) {
            Ok(Message::Alert(alert)) => (alert.state, alert.message),
            other => panic!("{other:?}"),
        };
        self.log.scan(Topic::Alerts, 0, 0, 100).unwrap().into_iter().map(alert).collect()
    }
}

/// Steps until nothing is due.
fn settle(keeper: &mut Keeper) -> usize {
    let mut steps = 0;
    while keeper.step().unwrap() {
        steps += 1;
        assert!(steps < 1_000, "it never ends");
    }
    steps
}

#[test]
fn what_is_too_old_goes_as_soon_as_nobody_needs_it() {
    let world = World::new();
    let mut keeper = world.keeper();
    for topic in Topic::ALL {
        world.append(topic, 100, 10);
    }
    world.clock.advance(100 * 24 * HOUR);
    settle(&mut keeper);
    let earliest = |world: &World| Topic::ALL.map(|topic| world.earliest(topic));
    assert_eq!(earliest(&world), [0, 0, 0, 0, 0, 100, 100, 100, 0], "nobody has begun to read; audit, alerts and dead letters wait for nobody");
    for (group, topic) in READERS {
        world.commit(group, topic, 90, None);
    }
    world.commit("decide", Topic::Signals, 90, None);
    settle(&mut keeper);
    assert_eq!(earliest(&world), [90, 0, 0, 90, 90, 100, 100, 100, 0], "a restart of decide reads all, before its first round");
    world.commit("decide", Topic::Signals, 95, Some(70));
    settle(&mut keeper);
    assert_eq!(earliest(&world), [90, 0, 70, 90, 90, 100, 100, 100, 0]);
}

#[test]
fn by_size_it_is_as_small_as_it_must_be_and_no_smaller() {
    let world = World::new();
    let mut keeper = world.keeper();
    world.append(Topic::Metrics, 100, 10_000);
    world.append(Topic::Signals, 100, 10_000);
    world.commit("aggregate", Topic::Metrics, 100, None);
    assert_eq!(keeper.look().unwrap().pressure, Pressure::Trimming);
    assert!(settle(&mut keeper) > 0);
    let used = world.log.space().unwrap().used;
    assert!((1_400_000..=1_500_000).contains(&used), "{used}");
    assert!((50..100).contains(&world.earliest(Topic::Metrics)), "{}", world.earliest(Topic::Metrics));
    assert_eq!(world.earliest(Topic::Signals), 0, "metrics first");
    world.append(Topic::Audit, 100, 10_000);
    world.commit("decide", Topic::Signals, 100, Some(40));
    settle(&mut keeper);
    assert_eq!((world.earliest(Topic::Metrics), world.earliest(Topic::Signals)), (100, 40), "then signals, as far as they may go");
    assert!((1..60).contains(&world.earliest(Topic::Audit)), "then audit: {}", world.earliest(Topic::Audit));
    assert_eq!(world.alerts(), []);
}

#[test]
fn where_nothing_more_may_go_it_is_said_once_and_taken_back_when_there_is_room() {
    let world = World::new();
    let mut keeper = world.keeper();
    let room = Arc::clone(&keeper.room);
    keeper.look().unwrap();
    assert!(room.take(1_000_000), "there is room");
    assert!(!room.take(1_000_000), "for so much, and no more before the next look");
    keeper.look().unwrap();
    assert!(room.take(1_000_000), "nothing was appended, so there still is");

    world.append(Topic::Metrics, 100, 20_000);
    for _ in 0..3 {
        assert_eq!(keeper.look().unwrap().pressure, Pressure::Full);
        assert!(!room.take(1));
    }
    let usage = room.usage().unwrap();
    assert_eq!((usage.pressure, usage.limit, usage.held_by.len()), (Pressure::Full, 1_600_000, 1));
    assert!(usage.held_by[0].ends_with("of metrics/0 stay, since aggregate has read nothing yet"), "{:?}", usage.held_by);
    let alerts = world.alerts();
    assert_eq!(alerts.iter().map(|(state, _)| *state).collect::<Vec<_>>(), [AlertState::Firing], "said once");
    assert!(alerts[0].1.contains("aggregate") && alerts[0].1.contains("retention.size"), "{}", alerts[0].1);

    // Another run finds it as it is.
    let mut keeper = world.keeper();
    keeper.look().unwrap();
    assert_eq!(world.alerts().len(), 1, "it fires already");
    world.commit("aggregate", Topic::Metrics, 100, None);
    let mut keeper = world.keeper();
    settle(&mut keeper);
    assert_eq!(world.alerts().iter().map(|(state, _)| *state).collect::<Vec<_>>(), [AlertState::Firing, AlertState::Resolved]);
    assert!(keeper.room.take(10_000));
    keeper.look().unwrap();
    assert_eq!(world.alerts().len(), 2);
}

#[test]
fn what_a_day_brings_is_told_by_what_is_kept_and_not_before_it_can_be() {
    let world = World::new();
    let mut keeper = world.keeper();
    let metrics = |keeper: &mut Keeper| {
        keeper.look().unwrap();
        let usage = keeper.room.usage().unwrap();
        (usage.topics[0].clone(), usage.bytes_a_day)
    };
    let (empty, day) = metrics(&mut keeper);
    assert_eq!((empty.topic.as_str(), empty.bytes, empty.hours_kept, empty.bytes_a_day, day), ("metrics", 0, None, None, None));
    world.append(Topic::Metrics, 10, 896);
    world.clock.advance(Duration::from_secs(59));
    let (young, day) = metrics(&mut keeper);
    assert_eq!((young.bytes, young.bytes_a_day, day), (10_000, None, None), "too early to say");
    world.clock.advance(Duration::from_secs(2 * 3600 - 59));
    let (kept, day) = metrics(&mut keeper);
    assert_eq!((kept.hours_kept, kept.bytes_a_day, day), (Some(2.0), Some(120_000), Some(120_000)));
    world.append(Topic::Audit, 1, 10);
    assert_eq!(metrics(&mut keeper).1, Some(120_000), "what is new elsewhere does not hide what is known");
}

/// The sizes of rows add up to what is stored, through trims and a restart.
#[test]
fn sizes_are_those_of_the_rows() {
    let world = World::new();
    for n in 1..200 {
        world.append(Topic::Metrics, 1, n * 37 % 900);
        world.log.append(vec![RawAppend { topic: Topic::Metrics, partition: 0, key: Some(format!("k{n}")), value: vec![0; n] }; 3]).unwrap();
    }
    let sum = |log: &EmbeddedLog| log.head(Topic::Metrics, 0, 10_000).unwrap().iter().map(|row| row.bytes).sum::<u64>();
    assert_eq!(world.log.bytes(Topic::Metrics, 0).unwrap(), sum(&world.log));
    world.log.trim(Topic::Metrics, 0, 401).unwrap();
    assert_eq!(world.log.bytes(Topic::Metrics, 0).unwrap(), sum(&world.log));
    world.log.close();
    let again = EmbeddedLog::open(world.directory.path(), world.clock.clone(), Options::default()).unwrap();
    assert_eq!(again.bytes(Topic::Metrics, 0).unwrap(), sum(&again));
    again.trim(Topic::Metrics, 0, Offset::MAX).unwrap();
    assert_eq!(again.bytes(Topic::Metrics, 0).unwrap(), 0);
}
