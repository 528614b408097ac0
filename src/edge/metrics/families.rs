//! Every family that `/metrics` has, in its order. `docs/metrics.md` has each with what it is for; a test holds both together.

use super::exposition::{Family, Kind};

macro_rules! families {
    ($($name:ident: $kind:ident $text:literal $unit:literal, $help:literal;)*) => {
        $(pub(super) static $name: Family = Family { name: $text, kind: Kind::$kind, unit: $unit, help: $help };)*
        /// All of them.
        pub static ALL: &[&Family] = &[$(&$name),*];
    };
}

families! {
    BUILD: Info "loadline_build" "", "Version of the program, and of the fold that decides.";
    START: Gauge "process_start_time_seconds" "seconds", "When the process started, in seconds since 1970.";
    CPU: Counter "process_cpu_seconds" "seconds", "Processor time that the process has used; fleets are not in it.";
    MEMORY: Gauge "process_resident_memory_bytes" "bytes", "Resident memory of the process; fleets are not in it.";
    FDS: Gauge "process_open_fds" "", "Open file descriptors of the process.";
    READY: Gauge "loadline_ready" "", "1 where /readyz answers 200, else 0.";

    TARGET: Info "loadline_target" "", "A target with a policy: its role and mode.";
    MIN: Gauge "loadline_target_spec_min_replicas" "", "The fewest replicas, by the policy.";
    MAX: Gauge "loadline_target_spec_max_replicas" "", "The most replicas, by the policy.";
    CURRENT: Gauge "loadline_target_status_current_replicas" "", "The count that is asked for now, as last observed.";
    DESIRED: Gauge "loadline_target_status_desired_replicas" "", "The count that the last evaluation wants.";
    READY_REPLICAS: Gauge "loadline_target_status_ready_replicas" "", "Instances that can serve, as last observed.";
    VERDICT: Gauge "loadline_target_status_verdict" "", "1 for the verdict of the last evaluation and the step that bound.";
    FROZEN: Gauge "loadline_target_frozen" "", "1 while a freeze file stops every command for it, else 0.";
    DATA_AGE: Gauge "loadline_target_data_age_seconds" "seconds", "How long ago measurements were complete that the last evaluation stands on.";
    SEEN_AGE: Gauge "loadline_target_seen_age_seconds" "seconds", "How long ago its replicas were last observed.";

    VALUE: Gauge "loadline_target_metric_value" "", "A metric's value at the last evaluation, in base units.";
    TARGET_VALUE: Gauge "loadline_target_metric_target_value" "", "What the policy wants it to be, or the threshold above which it scales out; in base units.";
    SCALE_IN_BELOW: Gauge "loadline_target_metric_scale_in_below" "", "The threshold below which it scales in; in base units.";
    PROPOSED: Gauge "loadline_target_metric_proposed_replicas" "", "The count that the metric asks for.";
    STATUS: Gauge "loadline_target_metric_status" "", "1 for the metric's status at the last evaluation, with what it does to the decision while it has no value.";
    METRIC_AGE: Gauge "loadline_target_metric_age_seconds" "seconds", "How old the newest sample of the metric is.";

    DECISIONS: Counter "loadline_decisions" "", "Decisions that were written down, by verdict and binding step.";
    LIMITED: Counter "loadline_limited_grants" "", "Claims that the arbiter granted in part or not, by the limit.";
    COMMANDS: Counter "loadline_commands" "", "Commands by what came of them.";
    POLICIES: Counter "loadline_policy_changes" "", "Policies that took effect, were removed, or were refused.";
    ALERTS: Gauge "loadline_alerts_firing" "", "Alerts of Loadline that fire; target is empty where one concerns no single target.";
    LETTERS: Counter "loadline_dead_letters" "", "Records that could not be used, by the topic that they stood on.";

    SAMPLES: Counter "loadline_ingest_samples" "", "Samples that were taken over HTTP.";
    SAMPLES_REFUSED: Counter "loadline_ingest_samples_rejected" "", "Samples over HTTP that were not taken, by the reason.";
    REQUESTS_REFUSED: Counter "loadline_ingest_requests_refused" "", "Requests with samples of which nothing was taken, by the reason.";
    AGGREGATED: Counter "loadline_aggregate_samples" "", "Samples in panes, however they came, once for each target.";
    UNUSED: Counter "loadline_aggregate_samples_unused" "", "Those of them that no policy asks for, by the reason.";
    LATE: Counter "loadline_aggregate_samples_late" "", "Samples that came after their pane had been marked complete.";
    REJECTED: Counter "loadline_aggregate_samples_rejected" "", "Samples that came, over HTTP or as records of others, and then could not be aggregated.";
    REPEATED: Counter "loadline_aggregate_samples_repeated" "", "Samples that were taken over HTTP and dropped as repetitions, by the number of their request.";

    LAG: Gauge "loadline_stage_lag_records" "", "Records that a stage has still to process.";
    LAG_SECONDS: Gauge "loadline_stage_lag_seconds" "seconds", "How long the first record that a stage has not processed has waited.";
    HELD: Gauge "loadline_partition_held_seconds" "seconds", "How long a partition has waited for what its next record needs and is not known.";
    COMMIT_RETRIES: Counter "loadline_stage_commit_retries" "", "Commits of a stage that failed for now.";
    READ_RETRIES: Counter "loadline_log_read_retries" "", "Reads of the log that failed for now.";
    SNAPSHOTS: Counter "loadline_snapshot_commits" "", "Commits that held snapshots of a stage.";
    SNAPSHOT_AT: Gauge "loadline_snapshot_last_commit_timestamp_seconds" "seconds", "When a stage last committed snapshots, in seconds since 1970.";

    COMMITS: Histogram "loadline_log_commit_duration_seconds" "seconds", "How long commits to the log took, sync to the disk included.";
    COMMIT_FAILURES: Counter "loadline_log_commit_failures" "", "Commits to the log that failed; nothing of them took effect.";
    WRITABLE: Gauge "loadline_log_writable" "", "0 while nothing can be written to the log, else 1.";
    FULL: Gauge "loadline_log_full" "", "1 while the log is at its limit and samples are refused, else 0.";
    LOG_BYTES: Gauge "loadline_log_size_bytes" "bytes", "Bytes of the log that are in use.";
    LOG_LIMIT: Gauge "loadline_log_limit_bytes" "bytes", "Bytes that it may use: retention.size.";
    LOG_FREE: Gauge "loadline_log_free_bytes" "bytes", "Bytes of its file that are free, and used again before it grows.";
    TOPIC_BYTES: Gauge "loadline_log_topic_size_bytes" "bytes", "Bytes of a topic.";
    TOPIC_KEPT: Gauge "loadline_log_topic_kept_seconds" "seconds", "How far back a topic reaches.";
}
