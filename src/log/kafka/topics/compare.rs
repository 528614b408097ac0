//! How the topics on a cluster differ from what they must be: what that does, and how it is mended.

use std::fmt;

use serde::Serialize;

use super::super::declaration::{Role, Weight, age};
use super::{Cluster, Found, IN_SYNC, There, Wanted, in_sync};

/// What to do where the cluster does not say.
const RIGHTS: &str = "this user needs the rights Describe and DescribeConfigs on the topics with the prefix";

/// What to do where nobody leads a partition.
pub(in super::super) const NO_LEADER: &str = "start the brokers that have a replica of it in sync, or give them their disks back: it goes on by itself then";

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// The setting, by Kafka's name; `partitions`, `replicas`; none where it is about the topic itself.
    pub setting: Option<String>,
    /// What it must be.
    pub declared: String,
    /// What it is; none where there is nothing, or it is not known.
    pub found: Option<String>,
    /// How bad it is.
    pub weight: Weight,
    /// What it does.
    pub means: String,
    /// How it is mended.
    pub mend: String,
}

impl Difference {
    /// Whether Loadline does not run on it. Of a topic that is hidden nothing is known, and what is unknown is never fine.
    pub fn refuses(&self) -> bool {
        self.weight.refuses() || self.is_of_unknown_topic()
    }

    /// Whether it is that nothing is known of a topic, not even whether it is there.
    pub fn is_of_unknown_topic(&self) -> bool {
        self.weight == Weight::Unknown && self.setting.is_none()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { topic, setting, declared, found, means, mend, .. } = self;
        let setting = setting.as_deref().unwrap_or("the topic");
        let found = found.as_deref().unwrap_or("not known");
        write!(f, "{topic}: {setting} is {found}, declared is {declared}: {means} {mend}")
    }
}

/// How `found` differs from what is wanted, topic by topic. `brokers` are for the commands that mend.
pub fn compare(brokers: &str, wanted: &[Wanted], found: &Cluster) -> Vec<Difference> {
    let mut differences = Vec::new();
    for topic in wanted {
        let whole = |weight, found, means: String, mend: String| Difference {
            topic: topic.name.clone(),
            setting: None,
            declared: format!("{} partitions, {} replicas", topic.partitions, topic.replicas),
            found,
            weight,
            means,
            mend,
        };
        match found.topics.get(&topic.name) {
            None => differences.push(whole(Weight::Unknown, None, "It was not looked for.".to_owned(), String::new())),
            Some(Found::Missing) => {
                let means = "Loadline does not run without it.".to_owned();
                differences.push(whole(Weight::Missing, Some("missing".to_owned()), means, "`loadline topology apply` creates it.".to_owned()));
            }
            Some(Found::Hidden(reason)) => {
                differences.push(whole(Weight::Unknown, None, format!("The cluster does not say what it is like: {reason}."), sentence(RIGHTS)));
            }
            Some(Found::There(there)) => of_topic(&At { brokers, topic, there, wanted, found }, &mut differences),
        }
    }
    differences
}

/// A topic that is there, and all that it is judged by.
struct At<'a> {
    brokers: &'a str,
    topic: &'a Wanted,
    there: &'a There,
    wanted: &'a [Wanted],
    found: &'a Cluster,
}

/// What follows from a value.
struct Judged {
    weight: Weight,
    means: String,
    mend: String,
}

fn judged(weight: Weight, means: impl Into<String>, mend: impl Into<String>) -> Judged {
    Judged { weight, means: means.into(), mend: mend.into() }
}

fn of_topic(at: &At<'_>, differences: &mut Vec<Difference>) {
    let At { topic, there, .. } = at;
    let mut differs = |setting: &str, declared: &str, found: Option<&str>, Judged { weight, means, mend }: Judged| {
        let (setting, declared, found) = (Some(setting.to_owned()), declared.to_owned(), found.map(ToOwned::to_owned));
        differences.push(Difference { topic: topic.name.clone(), setting, declared, found, weight, means, mend });
    };
    let (declared, judgement) = at.partitions();
    if let Some(judgement) = judgement {
        differs("partitions", &declared.to_string(), Some(&there.partitions.to_string()), judgement);
    }
    if let Some(judgement) = at.replicas() {
        differs("replicas", &topic.replicas.to_string(), Some(&there.replicas.to_string()), judgement);
    }
    if let Some((found, judgement)) = at.unled() {
        differs("leaders", "one of each partition", Some(&found), judgement);
    }
    let Some(settings) = &there.settings else {
        let means = "The cluster does not tell its settings, so whether they fit is not known.";
        return differs("settings", "as declared", None, judged(Weight::Unknown, means, sentence(RIGHTS)));
    };
    for (name, declared) in &topic.settings {
        let declared = if name == IN_SYNC { &at.in_sync(declared) } else { declared };
        match settings.get(name) {
            None => {
                let means = "The cluster does not tell it, so whether it fits is not known.";
                differs(name, declared, None, judged(Weight::Unknown, means, format!("Where the cluster knows it: {}", at.set(name, declared))));
            }
            Some(found) if same(found, declared) => {}
            Some(found) => differs(name, declared, Some(found), at.setting(name, declared, found)),
        }
    }
}

impl At<'_> {
    /// How many partitions it must have, and what follows where it has others.
    fn partitions(&self) -> (u32, Option<Judged>) {
        let At { topic, there, .. } = self;
        let found = there.partitions;
        if let Role::State { input, .. } = topic.declared.role {
            let Some(input) = self.wanted.iter().find(|other| other.declared.role == Role::Flow(input)) else { return (topic.partitions, None) };
            let of_input = match self.found.topics.get(&input.name) {
                Some(Found::There(input)) => input.partitions,
                _ => topic.partitions,
            };
            let mend = if of_input != input.partitions && input.declared.other_partitions == Weight::Corrupts {
                format!("First mend {}.", input.name)
            } else if found < of_input {
                self.grow(of_input)
            } else {
                format!(
                    "With Loadline stopped: {}; then `loadline topology apply` creates it with {of_input}, and its content is rebuilt from the input.",
                    self.delete()
                )
            };
            let means = format!("{} {} has {of_input}.", topic.declared.because, input.name);
            return (of_input, (found != of_input).then(|| judged(topic.declared.other_partitions, means, mend)));
        }
        if found == topic.partitions {
            return (found, None);
        }
        let say = if topic.declared.is_spread() {
            let name = &topic.declared.name;
            format!("If the installation was made with {found}, say so: --partitions {name}={found} (to `run`: kafka.partitions). ")
        } else {
            String::new()
        };
        let mend = match topic.declared.other_partitions {
            // More partitions than before put keys elsewhere, and partitions never go: only a new topic has another number.
            Weight::Corrupts => format!(
                "{say}{}with Loadline stopped everywhere: {}; then `loadline topology apply` creates it with {}, empty; what that loses, and how to go on, is in \
                 docs/kafka.md (\"A topic that is lost\").",
                if say.is_empty() { "To begin anew, " } else { "Else begin anew, " },
                self.delete(),
                topic.partitions
            ),
            _ if found < topic.partitions => format!("{say}{} {}", self.growing(), self.grow(topic.partitions)),
            _ if say.is_empty() => "Nothing needs to be done.".to_owned(),
            _ => say.trim_end().to_owned(),
        };
        (topic.partitions, Some(judged(topic.declared.other_partitions, topic.declared.because.clone(), mend)))
    }

    fn replicas(&self) -> Option<Judged> {
        let (wanted, found) = (self.topic.replicas, self.there.replicas);
        let say = format!("say --replication {found} (to `run`: kafka.replication) where that is meant");
        match found {
            _ if found == wanted => None,
            _ if found < wanted => {
                let means = match found {
                    1 => "When the disk of its broker fails, all of it is lost.".to_owned(),
                    found => format!("It is lost with {found} brokers, not only with {wanted}."),
                };
                let mend = format!(
                    "Give each partition {wanted} replicas with {}, or {say}.",
                    self.tool("kafka-reassign-partitions.sh", "--reassignment-json-file PLAN.json --execute")
                );
                Some(judged(Weight::Loses, means, mend))
            }
            _ => Some(judged(Weight::Differs, "It takes more disk than declared.", format!("Nothing needs to be done; {say}."))),
        }
    }

    /// The partitions that nobody leads, where there are some.
    fn unled(&self) -> Option<(String, Judged)> {
        let unled = &self.there.unled;
        if unled.is_empty() {
            return None;
        }
        let numbers: Vec<String> = unled.iter().map(u32::to_string).collect();
        let mend = format!(
            "{} {} shows which brokers those are.",
            sentence(NO_LEADER),
            self.tool("kafka-topics.sh", &format!("--describe --topic {}", self.topic.name))
        );
        let means = "What stands there is neither read nor written, and what follows from it waits.";
        Some((format!("none of {}", numbers.join(", ")), judged(Weight::Waits, means, mend)))
    }

    /// How many replicas must be in sync, of those that there are: that there are fewer than wanted is told of the replicas.
    fn in_sync(&self, declared: &str) -> String {
        in_sync(declared, self.there.replicas)
    }

    /// Whether so many in-sync replicas can never be.
    fn exceeds_replicas(&self, in_sync: &str) -> bool {
        in_sync.parse::<u32>().is_ok_and(|in_sync| in_sync > self.there.replicas)
    }

    /// What follows from a setting that is not as declared.
    fn setting(&self, name: &str, declared: &str, found: &str) -> Judged {
        let topic = self.topic.declared;
        let folded = topic.is_folded();
        let is_state = matches!(topic.role, Role::State { .. });
        let mend = format!("To mend it: {}", self.set(name, declared));
        let less = match (found.parse::<i64>(), declared.parse::<i64>()) {
            // -1 is without limit.
            (Ok(found), Ok(declared)) => Some(found != -1 && (declared == -1 || found < declared)),
            _ => None,
        };
        let (weight, means) = match name {
            "cleanup.policy" if is_state => (Weight::Corrupts, "Snapshots would be deleted by their age, and what they hold is nowhere else.".to_owned()),
            "cleanup.policy" if folded => {
                (Weight::Corrupts, "Only the newest record of each key would be kept, and decisions would be made of what is left.".to_owned())
            }
            "cleanup.policy" if topic.keyless => {
                (Weight::Stops, "A compacted topic refuses records without a key, and what writes them goes no further.".to_owned())
            }
            "cleanup.policy" => (Weight::Loses, "Only the newest record of each key is kept.".to_owned()),
            "message.timestamp.type" if folded => (
                Weight::Corrupts,
                "Records would carry the clock of whoever wrote them, and order and age of what is decided on would be theirs to say.".to_owned(),
            ),
            "message.timestamp.type" => (Weight::Differs, "Its records carry the clock of whoever wrote them.".to_owned()),
            "retention.ms" if less == Some(true) => (Weight::Loses, format!("Its records go after {}. {}", age(found), topic.kept)),
            "retention.ms" => (Weight::Differs, format!("Its records are kept longer ({}), which takes more disk.", age(found))),
            "retention.bytes" if less == Some(true) => {
                (Weight::Loses, format!("Its records go as soon as a partition has {found} bytes, whatever their age. {}", topic.kept))
            }
            IN_SYNC if self.exceeds_replicas(found) => {
                let means = format!("No append is acknowledged: it wants {found} replicas in sync, and there are {}.", self.there.replicas);
                (Weight::Stops, means)
            }
            IN_SYNC if less == Some(true) => {
                (Weight::Loses, format!("What {found} in sync have is acknowledged: when their disks fail before another one has it, it is lost."))
            }
            IN_SYNC => (Weight::Differs, "Appends wait sooner when brokers are away.".to_owned()),
            "max.message.bytes" if less == Some(true) => (
                Weight::Stops,
                "What is larger in one request is refused with the small records in it, and what writes them goes no further, or on without one of them."
                    .to_owned(),
            ),
            "segment.bytes" if is_state && less == Some(false) => (
                Weight::Differs,
                format!(
                    "Of its newest {found} bytes also those snapshots stay that later ones have replaced: whoever takes a partition over reads them first, and decides the later for it."
                ),
            ),
            "unclean.leader.election.enable" => {
                (Weight::Loses, "A replica that lacks acknowledged records may become the leader, and then they are gone.".to_owned())
            }
            _ => (Weight::Differs, "Nothing of Loadline's depends on it.".to_owned()),
        };
        judged(weight, means, mend)
    }

    fn tool(&self, tool: &str, rest: &str) -> String {
        format!("`{tool} --bootstrap-server {} {rest}`", self.brokers)
    }

    /// The command that sets a setting.
    fn set(&self, name: &str, value: &str) -> String {
        self.tool("kafka-configs.sh", &format!("--alter --entity-type topics --entity-name {} --add-config {name}={value}", self.topic.name))
    }

    /// What comes before the command that makes it grow: whoever folds a topic ends when it gets more partitions than it knows of.
    fn growing(&self) -> String {
        let Role::Flow(topic) = self.topic.declared.role else { return "To add some:".to_owned() };
        let state = self.wanted.iter().find(|other| matches!(other.declared.role, Role::State { input, .. } if input == topic));
        state.map_or_else(|| "To add some:".to_owned(), |state| format!("To add some, with Loadline stopped everywhere, and then as many to {}:", state.name))
    }

    /// The command that gives it more partitions.
    fn grow(&self, to: u32) -> String {
        self.tool("kafka-topics.sh", &format!("--alter --topic {} --partitions {to}", self.topic.name))
    }

    /// The command that deletes it.
    fn delete(&self) -> String {
        self.tool("kafka-topics.sh", &format!("--delete --topic {}", self.topic.name))
    }
}

/// Whether two values of a setting are the same: lists in any order.
fn same(found: &str, declared: &str) -> bool {
    let parts = |value: &str| {
        let mut parts: Vec<String> = value.split(',').map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    };
    parts(found) == parts(declared)
}

/// A fragment as a sentence.
fn sentence(fragment: &str) -> String {
    let mut letters = fragment.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}
