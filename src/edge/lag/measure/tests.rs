use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn rules() -> Rules {
    Rules { group: "g".to_owned(), begins: Begins::Unknown, stuck_after: Some(5 * MINUTE), per_replica: None }
}

fn place(partition: u32) -> Place {
    Place { topic: "orders".to_owned(), partition }
}

/// A partition from 0 to its end, all of it committed.
fn read_to(committed: impl Into<Option<Offset>>, end: Offset) -> Standing {
    Standing { committed: committed.into(), low: 0, high: end, stable: end }
}

fn looked(standings: &[Standing]) -> Looked {
    let partitions = (0..).zip(standings.iter().copied()).collect();
    Looked { topics: BTreeMap::from([("orders".to_owned(), Some(partitions))]), is_group: true }
}

/// Looks once; of the tails every offset is a record but for as many as are not, by partition.
fn look(fold: &mut Fold, rules: &Rules, standings: &[Standing], empty: &[(u32, u64)], moment: Duration) -> Result<Lag, Unknown> {
    let looked = looked(standings);
    let tails = fold.tails(rules, &looked);
    let empty = |place: &Place| empty.iter().find(|(partition, _)| *partition == place.partition).map_or(0, |(_, empty)| *empty);
    let records = tails.iter().map(|tail| (tail.place.clone(), tail.to - tail.from - empty(&tail.place))).collect();
    fold.measure(rules, &looked, &tails, &records, moment)
}

fn once(rules: &Rules, standings: &[Standing]) -> Result<Lag, Unknown> {
    look(&mut Fold::default(), rules, standings, &[], Duration::ZERO)
}

#[test]
fn the_lag_is_what_is_committed_and_not_read() {
    let lag = once(&rules(), &[read_to(10, 30), read_to(5, 5), Standing { committed: Some(3), low: 1, high: 9, stable: 7 }]).unwrap();
    assert_eq!((lag.value, lag.partitions), (24, BTreeMap::from([(place(0), 20), (place(1), 0), (place(2), 4)])));
}

/// A reader of all records stands behind the last stable offset while a transaction is open.
#[test]
fn what_is_not_committed_yet_is_no_lag() {
    let open = Standing { committed: Some(9), low: 0, high: 9, stable: 4 };
    assert_eq!(once(&rules(), &[open]).unwrap().value, 0);
}

#[test]
fn offsets_without_records_are_no_lag_and_are_read_once() {
    let (rules, mut fold) = (rules(), Fold::default());
    let standings = [read_to(10, 12)];
    assert_eq!(look(&mut fold, &rules, &standings, &[(0, 2)], Duration::ZERO).unwrap().value, 0);
    assert_eq!(fold.tails(&rules, &looked(&standings)), [], "it is known what stands there");
    assert_eq!(look(&mut fold, &rules, &standings, &[], MINUTE).unwrap().value, 0);
    assert_eq!(fold.tails(&rules, &looked(&[read_to(10, 13)])), [Tail { place: place(0), from: 10, to: 13 }]);
}

#[test]
fn a_tail_that_was_not_read_counts_by_its_offsets_and_a_long_one_is_not_read() {
    let (rules, mut fold) = (rules(), Fold::default());
    let looked = looked(&[read_to(10, 12), read_to(0, TAIL), read_to(0, TAIL + 1)]);
    let tails = fold.tails(&rules, &looked);
    assert_eq!(tails.iter().map(|tail| tail.place.partition).collect::<Vec<_>>(), [0, 1]);
    let lag = fold.measure(&rules, &looked, &tails, &BTreeMap::new(), Duration::ZERO).unwrap();
    assert_eq!(lag.value, 2 + TAIL + TAIL + 1);
}

#[test]
fn what_cannot_be_told_is_an_error_that_names_it() {
    let says = |unknown: Result<Lag, Unknown>, words: &[&str]| {
        let said = unknown.unwrap_err().to_string();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    let well = read_to(1, 2);
    says(once(&rules(), &[well, read_to(None, 3)]), &["orders/1", "begins: earliest"]);
    says(once(&rules(), &[well, read_to(4, 3)]), &["orders/1 (4, the end is 3)", "--reset-offsets"]);
    says(once(&rules(), &[Standing { low: 2, ..read_to(1, 3) }, well]), &["1 of orders/0 (the earliest is 2)", "begins: earliest"]);
    let many: Vec<Standing> = vec![read_to(None, 3); 8];
    says(once(&rules(), &many), &["orders/0, orders/1, orders/2, orders/3, orders/4, 3 more"]);
    let nobody = Looked { is_group: false, ..looked(&[read_to(None, 3)]) };
    says(Fold::default().measure(&rules(), &nobody, &[], &BTreeMap::new(), MINUTE), &["no group g"]);
    let nothing = Looked { topics: BTreeMap::from([("orders".to_owned(), None)]), is_group: true };
    says(Fold::default().measure(&rules(), &nothing, &[], &BTreeMap::new(), MINUTE), &["no topic orders"]);
}

/// Also where it is said where a group begins: a name that is written wrongly is nobody's lag.
#[test]
fn a_group_that_is_not_there_has_no_lag_wherever_it_would_begin() {
    for begins in [Begins::Earliest, Begins::Latest] {
        let nobody = Looked { is_group: false, ..looked(&[read_to(None, 3)]) };
        let rules = Rules { begins, ..rules() };
        assert_eq!(Fold::default().measure(&rules, &nobody, &[], &BTreeMap::new(), MINUTE), Err(Unknown::NoGroup("g".to_owned())));
    }
}

#[test]
fn a_partition_that_never_held_anything_needs_no_position() {
    assert_eq!(once(&rules(), &[read_to(1, 4), read_to(None, 0)]).unwrap().value, 3);
}

#[test]
fn where_it_is_said_where_a_group_begins_it_begins_there() {
    let earliest = Rules { begins: Begins::Earliest, ..rules() };
    let overtaken = Standing { committed: Some(1), low: 5, high: 9, stable: 9 };
    assert_eq!(once(&earliest, &[Standing { low: 2, ..read_to(None, 9) }, overtaken]).unwrap().value, 7 + 4);
    assert!(once(&earliest, &[read_to(10, 9)]).is_err(), "behind the end is nobody's beginning");
    // At the end as it was: what came since is to be read.
    let (latest, mut fold) = (Rules { begins: Begins::Latest, ..rules() }, Fold::default());
    assert_eq!(look(&mut fold, &latest, &[read_to(None, 9)], &[], Duration::ZERO).unwrap().value, 0);
    assert_eq!(look(&mut fold, &latest, &[read_to(None, 12)], &[], MINUTE).unwrap().value, 3);
    assert_eq!(look(&mut fold, &latest, &[read_to(10, 12)], &[], 2 * MINUTE).unwrap().value, 2);
}

/// A marker behind the last record is deleted with it: nothing was lost.
#[test]
fn retention_that_takes_a_marker_overtakes_nobody() {
    let (rules, mut fold) = (rules(), Fold::default());
    assert_eq!(look(&mut fold, &rules, &[read_to(9, 10)], &[(0, 1)], Duration::ZERO).unwrap().value, 0);
    assert_eq!(look(&mut fold, &rules, &[Standing { low: 10, ..read_to(9, 10) }], &[], MINUTE).unwrap().value, 0);
    assert!(look(&mut fold, &rules, &[Standing { low: 11, ..read_to(9, 11) }], &[], MINUTE).is_err(), "that one was never looked at");
}

/// Partition 0 is read on, partition 1 is not.
#[test]
fn a_partition_that_is_not_read_on_while_others_are_is_named_and_counts_as_one() {
    let (rules, mut fold) = (rules(), Fold::default());
    let mut at = |minute: u32| look(&mut fold, &rules, &[read_to(u64::from(minute), 1000), read_to(7, 500)], &[], minute * MINUTE).unwrap();
    assert_eq!((0..5).map(|minute| at(minute).stuck.len()).collect::<Vec<_>>(), [0; 5]);
    let lag = at(5);
    assert_eq!(lag.stuck, BTreeMap::from([(place(1), Stuck { at: 7, since: 5 * MINUTE, is_alone: true })]));
    assert_eq!((lag.value, lag.partitions[&place(1)]), (995 + 1, 493), "and what it has is shown in full");
    let never = Rules { stuck_after: None, ..rules.clone() };
    let standings = [read_to(6, 1000), read_to(7, 500)];
    assert_eq!(look(&mut fold, &never, &standings, &[], 6 * MINUTE).unwrap().value, 994 + 493);
    let moved = look(&mut fold, &rules, &[read_to(6, 1000), read_to(8, 500)], &[], 7 * MINUTE).unwrap();
    assert_eq!((moved.value, moved.stuck.len()), (994 + 492, 0), "it is over as soon as it moves");
}

/// Else a fleet whose members all ended would have nothing to do, and shrink.
#[test]
fn a_group_that_stands_as_a_whole_is_named_and_counts_in_full() {
    let (rules, mut fold) = (rules(), Fold::default());
    look(&mut fold, &rules, &[read_to(3, 10), read_to(4, 10)], &[], Duration::ZERO).unwrap();
    // The one stopped a little later than the other.
    look(&mut fold, &rules, &[read_to(3, 10), read_to(5, 10)], &[], MINUTE).unwrap();
    let lag = look(&mut fold, &rules, &[read_to(3, 10), read_to(5, 10)], &[], 10 * MINUTE).unwrap();
    assert_eq!(lag.stuck.values().map(|stuck| stuck.is_alone).collect::<Vec<_>>(), [false, false]);
    assert_eq!(lag.value, 12);
}

#[test]
fn a_partition_with_nothing_to_read_is_never_stuck() {
    let (rules, mut fold) = (rules(), Fold::default());
    for minute in 0..20 {
        let lag = look(&mut fold, &rules, &[read_to(u64::from(minute), 100), read_to(5, 5)], &[], minute * MINUTE).unwrap();
        assert!(lag.stuck.is_empty(), "{lag:?}");
    }
}

#[test]
fn on_request_it_asks_for_no_more_replicas_than_partitions_that_have_something() {
    let capped = Rules { per_replica: Some(100), ..rules() };
    let value = |standings: &[Standing]| once(&capped, standings).unwrap().value;
    assert_eq!(value(&[read_to(0, 1000), read_to(5, 5), read_to(0, 50)]), 200);
    assert_eq!(value(&[read_to(0, 30), read_to(0, 40), read_to(0, 50)]), 120, "what is less stays as it is");
    assert_eq!(value(&[read_to(5, 5)]), 0);
}

fn standing() -> impl Strategy<Value = Standing> {
    (proptest::option::of(0_u64..12), 0_u64..8, 0_u64..8, 0_u64..4).prop_map(|(committed, low, more, open)| Standing {
        committed,
        low,
        high: low + more,
        stable: low + more.saturating_sub(open),
    })
}

fn begins() -> impl Strategy<Value = Begins> {
    prop_oneof![Just(Begins::Unknown), Just(Begins::Earliest), Just(Begins::Latest)]
}

proptest! {
    /// Over any history: no figure where a partition cannot be told, and none that is 0 while a partition is known to have something.
    #[test]
    fn unknown_is_no_figure_and_nothing_is_taken_for_zero(
        history in proptest::collection::vec(proptest::collection::vec(standing(), 3), 1..12),
        begins in begins(),
        per_replica in proptest::option::of(1_u64..20),
    ) {
        let rules = Rules { begins, per_replica, stuck_after: Some(3 * MINUTE), ..rules() };
        let mut fold = Fold::default();
        for (minute, standings) in (0_u32..).zip(&history) {
            let outcome = look(&mut fold, &rules, standings, &[], minute * MINUTE);
            let is_beyond = standings.iter().any(|standing| standing.committed.is_some_and(|at| at > standing.high));
            let is_nowhere = |standing: &Standing| match standing.committed {
                None => standing.low < standing.stable,
                Some(at) => at < standing.low,
            };
            let is_unknown = is_beyond || begins == Begins::Unknown && standings.iter().any(is_nowhere);
            prop_assert_eq!(outcome.is_err(), is_unknown, "{:?}", outcome);
            let Ok(lag) = outcome else { continue };
            let (sum, busy) = (lag.partitions.values().sum::<u64>(), lag.partitions.values().filter(|lag| **lag > 0).count() as u64);
            prop_assert!(lag.value <= sum && (lag.value > 0) == (sum > 0), "{:?}", lag);
            prop_assert!(per_replica.is_none_or(|each| lag.value <= each * busy), "{:?}", lag);
            prop_assert!(lag.stuck.keys().all(|place| lag.partitions[place] > 0), "{:?}", lag);
        }
    }
}
