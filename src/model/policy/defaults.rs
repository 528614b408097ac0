//! The one table of defaults, by role. `docs/policy.md` shows the same table; a test holds the two together.
//!
//! Sources: Kubernetes 1.37 for `Generic` (`pkg/apis/autoscaling/v2/defaults.go`, and the flags of
//! kube-controller-manager); the guides of AWS, Google and Azure for the others, where a row says so.

use std::time::Duration;

use super::{FallbackBehavior, RatePolicy, Role, Select, StepSize};

/// What a role sets; everything else has one default for all roles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) min: u32,
    pub(super) priority: i32,
    pub(super) cpu_initialization: Duration,
    pub(super) readiness_delay: Duration,
    pub(super) window: Duration,
    pub(super) stale_after: Duration,
    pub(super) hold: Duration,
    pub(super) step_out: StepSize,
    pub(super) step_in: StepSize,
    pub(super) scale_out: Direction,
    pub(super) scale_in: Direction,
    pub(super) tolerance_out: f64,
    pub(super) tolerance_in: f64,
    pub(super) fallback_after: Duration,
    pub(super) fallback_behavior: FallbackBehavior,
}

/// One direction of `behavior`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Direction {
    pub(super) stabilization: Duration,
    pub(super) cooldown: Duration,
    pub(super) select: Select,
    pub(super) policies: &'static [RatePolicy],
}

const fn percent(percent: u32, seconds: u64) -> RatePolicy {
    RatePolicy { amount: StepSize::Percent(percent), period: Duration::from_secs(seconds) }
}

const fn replicas(replicas: u32, seconds: u64) -> RatePolicy {
    RatePolicy { amount: StepSize::Replicas(replicas), period: Duration::from_secs(seconds) }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `autoscaling/v2` to the letter: minReplicas 1; up 100 % or 4 pods in 15 s, the larger, at once; down 100 % in 15 s
/// after 300 s; tolerance 10 %; CPU initialization 5 m; initial readiness delay 30 s. What an HPA has no word for
/// (cooldown, priority) is neutral. A window of 30 s is two scrapes of metrics-server at its default of 15 s.
const GENERIC: Defaults = Defaults {
    min: 1,
    priority: 100,
    cpu_initialization: seconds(300),
    readiness_delay: seconds(30),
    window: seconds(30),
    stale_after: seconds(120),
    hold: seconds(30),
    step_out: StepSize::Replicas(1),
    step_in: StepSize::Replicas(1),
    scale_out: Direction { stabilization: seconds(0), cooldown: seconds(0), select: Select::Max, policies: &[percent(100, 15), replicas(4, 15)] },
    scale_in: Direction { stabilization: seconds(300), cooldown: seconds(0), select: Select::Max, policies: &[percent(100, 15)] },
    tolerance_out: 0.1,
    tolerance_in: 0.1,
    fallback_after: seconds(180),
    fallback_behavior: FallbackBehavior::Hold,
};

/// People wait for it: out as fast as an HPA, in gently. Two replicas, so that one may fail. At most 10 % fewer
/// a minute (the removal budget of Karpenter's disruption budgets and of our arbiter), and a minute of rest after any change, so that
/// the effect of a removal is seen in a whole window before the next. Steps of 20 %, since one replica of fifty changes nothing.
const API_SERVER: Defaults = Defaults {
    min: 2,
    priority: 200,
    step_out: StepSize::Percent(20),
    scale_in: Direction { cooldown: seconds(60), policies: &[percent(10, 60)], ..GENERIC.scale_in },
    ..GENERIC
};

/// Nobody waits for one instance, and each is in the midst of work that its end throws away: growth is spread over
/// minutes (a doubling a minute or four), removal waits 10 minutes for the peak to pass (the stabilization period
/// of Google's managed instance groups) and takes at most 20 % a minute. Budgets go to what serves people first.
const BOT_INSTANCES: Defaults = Defaults {
    min: 1,
    priority: 50,
    step_out: StepSize::Percent(20),
    scale_out: Direction { stabilization: seconds(30), cooldown: seconds(30), select: Select::Max, policies: &[percent(100, 60), replicas(4, 60)] },
    scale_in: Direction { stabilization: seconds(600), cooldown: seconds(120), select: Select::Max, policies: &[percent(20, 60)] },
    ..GENERIC
};

/// A new replica copies data and warms its cache for minutes and loads the primary meanwhile; a removed one breaks its
/// connections. So one at a time: 300 s of rest after a growth (Aurora's scale-out cooldown), a removal only
/// when the whole last half hour allowed it, and one in 10 minutes. Start-up counts for 10 minutes. Measured over 60 s, since
/// statistics of databases come seldom. Two replicas, so that one may fail.
const DATABASE_READ_REPLICA: Defaults = Defaults {
    min: 2,
    priority: 200,
    cpu_initialization: seconds(600),
    readiness_delay: seconds(60),
    window: seconds(60),
    stale_after: seconds(180),
    hold: seconds(60),
    scale_out: Direction { stabilization: seconds(60), cooldown: seconds(300), select: Select::Max, policies: &[replicas(1, 300)] },
    scale_in: Direction { stabilization: seconds(1800), cooldown: seconds(600), select: Select::Max, policies: &[replicas(1, 600)] },
    fallback_after: seconds(300),
    ..GENERIC
};

/// The defaults of a role.
pub(super) fn of(role: Role) -> &'static Defaults {
    match role {
        Role::Generic => &GENERIC,
        Role::ApiServer => &API_SERVER,
        Role::BotInstances => &BOT_INSTANCES,
        Role::DatabaseReadReplica => &DATABASE_READ_REPLICA,
    }
}
