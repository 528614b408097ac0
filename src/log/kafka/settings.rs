//! What a user may set of librdkafka, and how it stands above what Loadline sets ([`super::client`]).

use rdkafka::config::ClientConfig;

use super::Options;
use super::errors;
use crate::log::LogError;

/// Whether a setting's value is for nobody to see.
pub fn is_secret(name: &str) -> bool {
    ["password", "secret", "private", "key.pem", "ssl_key", "token", "assertion", "jaas", "oauthbearer.config"].iter().any(|part| name.contains(part))
}

/// The name under which Loadline knows a setting that librdkafka knows by several: of two names of one the last would win, and which is last is chance.
pub fn canonical(name: &str) -> &str {
    const ALIASES: [(&str, &str); 10] = [
        ("metadata.broker.list", "bootstrap.servers"),
        ("max.in.flight", "max.in.flight.requests.per.connection"),
        ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
        ("sasl.mechanisms", "sasl.mechanism"),
        ("queue.buffering.max.ms", "linger.ms"),
        ("message.send.max.retries", "retries"),
        ("compression.codec", "compression.type"),
        ("request.required.acks", "acks"),
        ("delivery.timeout.ms", "message.timeout.ms"),
        ("auto.commit.enable", "enable.auto.commit"),
    ];
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name)
}

/// Whether librdkafka takes a setting.
///
/// # Errors
/// Why not, without the value where that is for nobody to see.
pub fn check_setting(name: &str, value: &str) -> Result<(), String> {
    if OURS.contains(&canonical(name)) {
        return Err(format!("{name} cannot be chosen: Loadline sets it, as its promises rest on it; remove it"));
    }
    let mut config = ClientConfig::new();
    if let Err(error) = config.set(name, value).create_native_config() {
        return Err(errors::of_setting(&error));
    }
    if canonical(name) == "message.timeout.ms" && value.parse() == Ok(0) {
        return Err(format!("{name} = {value:?}: a record that cannot be written would be waited for without end: write 1 or more, or remove it"));
    }
    // librdkafka takes each of these alone, and makes no producer that writes each record once with it.
    let needs = match (canonical(name), value.parse::<u32>()) {
        ("max.in.flight.requests.per.connection", Ok(6..)) => "has at most 5 requests under way: write 5 or less",
        ("retries", Ok(0)) => "tries again: write 1 or more",
        ("queuing.strategy", _) if value == "lifo" => "sends them in their order: write fifo",
        _ => return Ok(()),
    };
    Err(format!("{name} = {value:?}: a producer that writes each record once {needs}, or remove it"))
}

/// Settings that cannot be chosen, as a promise rests on each of them.
const OURS: [&str; 17] = [
    "group.id",
    "group.protocol",
    "group.instance.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "partition.assignment.strategy",
    "enable.idempotence",
    "acks",
    "transactional.id",
    "enable.partition.eof",
    "allow.auto.create.topics",
    "message.max.bytes",
    // What was taken would never be told.
    "delivery.report.only.error",
    "enabled_events",
    // Nobody reads them, and each counts as something that is still on its way.
    "statistics.interval.ms",
];

/// That a file which a setting names can be read: librdkafka says no more than that OpenSSL failed.
fn check_file(name: &str, value: &str) -> Result<(), LogError> {
    let names_a_file = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.crl.location", "ssl.keystore.location"].contains(&name);
    match std::fs::File::open(value) {
        // A word of librdkafka for "wherever authorities usually are".
        Err(error) if names_a_file && value != "probe" => {
            let reason = format!("setting of the Kafka client: {name}: {value} cannot be read: {error}; name a file that this user may read");
            Err(LogError::Fatal { reason })
        }
        _ => Ok(()),
    }
}

/// The user's settings above ours: those that a promise rests on are refused.
pub(super) fn with_settings(options: &Options, mut config: ClientConfig) -> Result<ClientConfig, LogError> {
    for (written, value) in &options.settings {
        let name = canonical(written);
        if OURS.contains(&name) {
            return Err(LogError::Fatal { reason: format!("setting of the Kafka client: {}", check_setting(written, value).err().unwrap_or_default()) });
        }
        check_file(name, value)?;
        config.set(name, value);
    }
    fit_into_transactions(options, &mut config);
    let number = |name: &str| config.get(name).and_then(|value| value.parse::<u64>().ok());
    if let (Some(heartbeat), Some(session)) = (number("heartbeat.interval.ms"), number("session.timeout.ms"))
        && heartbeat.saturating_mul(2) > session
    {
        let reason = format!(
            "setting of the Kafka client: heartbeat.interval.ms = {heartbeat}: a member of a session of {session} ms (session.timeout.ms) would be missed for one heartbeat that is lost; \
             write a third of the session or less, or remove it"
        );
        return Err(LogError::Fatal { reason });
    }
    // librdkafka wants it no shorter than the session: who makes that longer need not name it, too.
    if let (Some(session), Some(polls)) = (number("session.timeout.ms"), number("max.poll.interval.ms"))
        && session > polls
        && !options.settings.contains_key("max.poll.interval.ms")
    {
        config.set("max.poll.interval.ms", session.to_string());
    }
    Ok(config)
}

/// librdkafka wants these within the time-out of a transaction: who makes that shorter need not name them, too.
fn fit_into_transactions(options: &Options, config: &mut ClientConfig) {
    let millis = |value: Option<&str>| value.and_then(|value| value.parse::<u64>().ok());
    let Some(lasts) = millis(options.settings.get("transaction.timeout.ms").map(String::as_str)) else { return };
    for (name, most) in [("message.timeout.ms", lasts * 9 / 10), ("socket.timeout.ms", lasts)] {
        if !options.settings.keys().any(|written| canonical(written) == name) && millis(config.get(name)).is_some_and(|ours| ours > most) {
            config.set(name, most.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::BaseProducer;

    use super::super::client::{member_config, producer};
    use super::*;

    #[test]
    fn what_the_user_sets_holds_unless_a_promise_rests_on_it() {
        let mut options = Options::new("127.0.0.1:1");
        let of = |options: &Options, name: &str| {
            with_settings(options, member_config(options, "loadline.decide", "a")).map(|config| config.get(name).map(str::to_owned))
        };
        assert_eq!(of(&options, "session.timeout.ms").unwrap().as_deref(), Some("6000"));
        options.settings.insert("delivery.timeout.ms".to_owned(), "50000".to_owned());
        let longer = with_settings(&options, producer(&options)).unwrap();
        assert_eq!((longer.get("message.timeout.ms"), longer.get("delivery.timeout.ms")), (Some("50000"), None), "one setting has one name");
        options.settings.insert("request.required.acks".to_owned(), "1".to_owned());
        assert!(of(&options, "acks").unwrap_err().to_string().contains("request.required.acks cannot be chosen"));
        options.settings.clear();
        for (name, value) in [("session.timeout.ms", "45000"), ("client.id", "ours"), ("fetch.wait.max.ms", "7"), ("socket.timeout.ms", "9000")] {
            options.settings.insert(name.to_owned(), value.to_owned());
            assert_eq!(of(&options, name).unwrap().as_deref(), Some(value), "{name}");
        }
        assert_eq!(of(&options, "max.poll.interval.ms").unwrap().as_deref(), Some("60000"));
        options.settings.insert("session.timeout.ms".to_owned(), "90000".to_owned());
        assert_eq!(of(&options, "max.poll.interval.ms").unwrap().as_deref(), Some("90000"), "no shorter than the session");
        options.settings.insert("session.timeout.ms".to_owned(), "45000".to_owned());
        options.settings.insert("transaction.timeout.ms".to_owned(), "5000".to_owned());
        let mut shorter = producer(&options);
        fit_into_transactions(&options, shorter.set("message.timeout.ms", "54000"));
        assert_eq!((shorter.get("message.timeout.ms"), shorter.get("socket.timeout.ms")), (Some("4500"), Some("10000")), "the latter is the user's");
        options.settings.insert("heartbeat.interval.ms".to_owned(), "60000".to_owned());
        assert!(of(&options, "group.id").unwrap_err().to_string().contains("heartbeat.interval.ms = 60000: a member of a session of 45000 ms"));
        options.settings.remove("heartbeat.interval.ms");
        options.settings.insert("isolation.level".to_owned(), "read_uncommitted".to_owned());
        assert!(of(&options, "isolation.level").unwrap_err().to_string().contains("isolation.level cannot be chosen"));
    }

    /// What librdkafka takes alone and no producer of ours can be made with is refused where it is written, and nothing more than that is.
    #[test]
    fn what_no_producer_of_ours_can_be_made_with_is_refused_by_its_name() {
        let makes = |name: &str, value: &str| {
            let mut config = producer(&Options::new("127.0.0.1:1"));
            config.set(canonical(name), value).create::<BaseProducer>().is_ok()
        };
        for (name, refused, taken) in [("max.in.flight", "6", "5"), ("message.send.max.retries", "0", "1"), ("queuing.strategy", "lifo", "fifo")] {
            let why = check_setting(name, refused).unwrap_err();
            assert!(why.starts_with(&format!("{name} = {refused:?}: a producer that writes each record once ")) && why.ends_with(", or remove it"), "{why}");
            assert!(!makes(name, refused), "{name} = {refused}");
            assert!(check_setting(name, taken).is_ok() && makes(name, taken), "{name} = {taken}");
        }
        for name in ["message.timeout.ms", "delivery.timeout.ms"] {
            assert!(check_setting(name, "0").unwrap_err().contains("would be waited for without end: write 1 or more"), "{name}");
        }
    }
}
