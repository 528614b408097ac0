//! What every log promises, checked on every log by the same list of checks.
//!
//! A log takes part by implementing [`Harness`] and one line `contract!(name, Harness)`; that
//! serves a log in memory (also with holes between its offsets), in a directory, or on a broker. What only the embedded log promises
//! (its files, its lock, its behaviour when it is killed) is in `embedded`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "log_contract/delivery.rs"]
mod delivery;
#[path = "log_contract/embedded.rs"]
mod embedded;
#[path = "log_contract/following.rs"]
mod following;
#[path = "log_contract/harness.rs"]
mod harness;
#[cfg(feature = "kafka")]
#[path = "log_contract/kafka.rs"]
mod kafka;
#[path = "log_contract/membership.rs"]
mod membership;
#[path = "log_contract/model.rs"]
mod model;

use harness::{Harness, MemoryHarness};

macro_rules! contract {
    ($log:ident, $harness:path) => {
        contract!($log, $harness, membership: a_zombie_is_fenced, membership: a_waiting_zombie_is_told,);
    };
    ($log:ident, $harness:path, $($area:ident: $check:ident,)*) => {
        contract!(@ $log, $harness;
            $($area: $check,)*
            delivery: records_of_a_partition_keep_their_order,
            delivery: offsets_count_up_and_are_returned_in_the_order_of_the_appends,
            delivery: a_scan_reads_to_the_end_in_slices,
            delivery: the_first_record_after_a_time_is_found,
            delivery: at_is_the_logs_and_the_same_on_every_read,
            delivery: the_logs_clock_is_known_from_a_commit_on_and_never_ahead,
            delivery: an_append_with_a_record_too_large_leaves_nothing,
            delivery: a_commit_with_a_record_too_large_leaves_nothing,
            delivery: the_largest_record_is_accepted,
            delivery: a_commit_is_visible_whole,
            delivery: what_was_aborted_is_never_seen,
            delivery: nobody_sees_half_of_a_commit,
            delivery: a_state_can_be_replaced_and_deleted,
            delivery: states_belong_to_their_group_and_partition,
            delivery: an_unknown_partition_is_named,
            delivery: concurrent_producers_lose_nothing_and_repeat_nothing,
            delivery: nothing_committed_is_lost_in_a_kill,
            delivery: what_is_trimmed_is_a_gap_and_never_skipped_silently,
            delivery: a_reader_that_is_overtaken_is_told,
            delivery: offsets_go_on_after_everything_was_trimmed,
            following: every_follower_sees_all_from_where_it_began,
            following: a_follower_sees_no_half_of_a_commit,
            following: a_follower_waits_for_what_comes_and_for_its_waker,
            following: a_follower_that_is_overtaken_is_told,
            following: closing_ends_a_follower,
            membership: a_group_starts_at_the_earliest_record,
            membership: a_session_resumes_where_the_last_commit_left_off,
            membership: what_is_asked_of_all_partitions_is_what_each_says,
            membership: a_poll_brings_no_more_than_asked,
            membership: a_full_partition_does_not_starve_another,
            membership: what_was_appended_has_been_polled_when_it_says_so,
            membership: what_was_known_of_a_partition_goes_with_it,
            membership: an_end_is_reached_under_a_stream,
            membership: a_partition_that_is_behind_holds_up_no_other,
            membership: a_commit_for_a_partition_not_owned_is_fenced,
            membership: members_share_the_partitions,
            membership: a_partition_is_handed_over_on_join,
            membership: a_partition_is_handed_over_on_leave,
            membership: a_changing_group_processes_each_record_once,
            membership: an_append_wakes_a_waiting_poll,
            membership: a_commit_wakes_the_next_stage,
            membership: a_waker_ends_the_poll_that_waits_or_the_next_one,
            membership: closing_ends_a_waiting_poll_and_all_later_calls,
        );
    };
    (@ $log:ident, $harness:path; $($area:ident: $check:ident,)*) => {
        mod $log {
            $(
                #[test]
                fn $check() {
                    super::$area::$check::<$harness>();
                }
            )*
        }
    };
}

contract!(memory, crate::harness::MemoryHarness);
contract!(memory_with_gaps, crate::harness::GappedHarness);
contract!(embedded_log, crate::harness::EmbeddedHarness);
// Members leave in order, and none takes another's place by its name: a second one of a name is one more.
#[cfg(feature = "kafka")]
contract!(on_kafka, crate::kafka::KafkaHarness<false>,);
#[cfg(feature = "kafka")]
contract!(@ on_kafka_with_static_members, crate::kafka::KafkaHarness<true>; membership: a_zombie_is_fenced, membership: a_waiting_zombie_is_told,);

/// The embedded log never leaves an outcome unknown.
#[test]
fn an_unknown_outcome_is_all_or_nothing() {
    delivery::an_unknown_outcome_is_all_or_nothing(&MemoryHarness::create(loadline::log::Partitions::default()));
}
