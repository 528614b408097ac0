//! An installation of one machine goes over to Kafka: with its policies, its cooldowns and its history, and no fleet is touched.

use std::path::Path;
use std::process::Command;

use crate::common::{LOADLINE, Running, SLEEPERS, fleet_of_sleepers, pids_of, sleepers, wait_for, waiting};
use crate::installation::{ALL, configured, installation, installation_as, run, scales_to};
use crate::kafka::{Broker, broker};
use serde_json::Value;

/// It may not shrink for an hour after a change.
const LONG_COOLDOWN: &str = "  behavior: { scaleIn: { stabilization: 0s, cooldown: 1h }, scaleOut: { cooldown: 0s } }\n";

fn on_kafka(command: &str, home: &Path, prefix: &str) -> Command {
    configured(command, broker(), home, prefix)
}

/// The exit code, what is printed, and what is said beside it.
fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn loadline(home: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    said(Command::new(LOADLINE).current_dir(home).args(arguments).env_remove("LOADLINE_CONFIG"))
}

/// What has been decided, oldest first, as the history tells it.
fn history(home: &Path, of: &[&str]) -> Vec<Value> {
    let (code, printed, said) = loadline(home, &[&["history", &SLEEPERS, "--since", "1h", "--output", "json"], of].concat());
    assert_eq!(code, Some(0), "{said}");
    let found: Value = serde_json::from_str(&printed).unwrap();
    found["decisions"].as_array().unwrap().clone()
}

#[test]
fn an_installation_goes_over_with_all_that_it_remembers() {
    let (home, _) = fleet_of_sleepers(1, LONG_COOLDOWN);
    let (home, data) = (home.path(), home.path().join("data"));
    let alone = Running::start(home, &[]);
    scales_to(&alone, &data, 30.0, 3);
    wait_for("the change to be seen", || (alone.status(&SLEEPERS)?["current"] == 3).then_some(()));
    let prefix = installation(broker());
    let (code, _, words) = said(&mut on_kafka("migrate", home, &prefix));
    assert_eq!(code, Some(2), "it runs: {words}");
    assert!(words.contains(&alone.pid().to_string()), "{words}");
    assert_eq!(alone.stop(), 0);
    let before = history(home, &["--data", "data"]);
    let grown = before.iter().find(|story| story["decision"]["desired"] == 3).unwrap();
    assert_eq!(grown["outcomes"][0]["record"]["result"], "Applied", "{grown}");
    let (pids, signals) = (pids_of(&data, &crate::common::FLEET), loadline(home, &["export", "--data", "data"]));

    let (code, printed, words) = said(on_kafka("migrate", home, &prefix).arg("--dry-run"));
    assert_eq!(code, Some(0), "{words}");
    assert!(printed.starts_with("1 target, 1 policy and 1 fleet of data would go over to "), "{printed}");
    let (code, printed, words) = said(on_kafka("migrate", home, &prefix).args(["--output", "json"]));
    assert_eq!(code, Some(0), "{words}");
    let told: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&told["outcome"], &told["targets"]), (&"WentOver".into(), &1.into()), "{told}");
    let (code, printed, _) = said(&mut on_kafka("migrate", home, &prefix));
    assert_eq!((code, printed.contains("before")), (Some(0), true), "a second time: {printed}");
    assert_eq!(loadline(home, &["export", "--data", "data"]), signals, "the log stays as it was");

    // What went over is this one, and no other one is taken for it, nor another cluster for that one.
    let mark = data.join("migrated.json");
    let marked = std::fs::read_to_string(&mark).unwrap();
    let with = |field: &str, value: Value| {
        let mut changed: Value = serde_json::from_str(&marked).unwrap();
        (changed["done"], changed[field]) = (false.into(), value);
        std::fs::write(&mark, changed.to_string()).unwrap();
        let told = [&[][..], &["--dry-run"]].map(|flags| said(on_kafka("migrate", home, &prefix).args(flags)));
        std::fs::write(&mark, &marked).unwrap();
        told
    };
    for (code, printed, words) in with("done", false.into()) {
        assert_eq!((code, printed.contains("before")), (Some(0), true), "it is there: {words}");
    }
    for (code, _, words) in with("id", "another".into()) {
        assert!(code == Some(2) && words.contains("another installation was migrated into it before"), "{words}");
    }
    for (code, _, words) in with("cluster", "another".into()) {
        assert!(code == Some(2) && words.contains("a migration of data to Kafka was begun") && words.contains("with that configuration again"), "{words}");
    }

    // Nobody decides on it any more.
    for arguments in [&["backup", "data", "copy"][..], &["restore", "copy", "restored"]] {
        let (code, _, words) = loadline(home, arguments);
        assert_eq!(code, Some(0), "{words}");
    }
    for data in ["data", "restored"] {
        let (code, _, words) = loadline(home, &["run", "--data", data, "--policies", "policies", "--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains("was migrated to Kafka") && words.contains(&prefix) && words.contains("migrated.json"), "{words}");
    }
    let other = installation(broker());
    let (code, _, words) = said(&mut on_kafka("migrate", home, &other));
    assert!(code == Some(2) && words.contains("was migrated to Kafka"), "not to another one as well: {words}");
    let (code, _, words) = said(&mut run(broker(), home, &other, ALL));
    assert_eq!(code, Some(2), "it does not begin anew elsewhere: {words}");
    assert!(words.contains(&format!("prefix {prefix}), and this configuration names another one, on the same cluster with the prefix {other}")), "{words}");

    let mut command = run(broker(), home, &prefix, ALL);
    command.arg("--stop-fleets-on-exit");
    let running = Running::spawn(command);
    // The cooldown of before the migration holds, with the time of the change then.
    let held = wait_for("less load to be seen", || {
        running.post(&waiting(5.0));
        // A decision is shown as soon as it is made, its policy when the process has read what was before.
        running.status(&SLEEPERS).filter(|status| status["binding"] == "Cooldown" && !status["max"].is_null())
    });
    assert_eq!((&held["current"], &held["desired"]), (&3.into(), &3.into()), "{held}");
    assert_eq!((&held["max"], &held["mode"]), (&6.into(), &"Active".into()), "who shows policies knows it: {held}");
    assert_eq!(pids_of(&data, &crate::common::FLEET), pids, "no instance was touched");
    let decisions = wait_for("a decision", || Some(history(home, &["--server", &running.url])).filter(|told| !told.is_empty()));
    let last = |decisions: &[Value]| decisions.last().unwrap()["decision"].clone();
    let (was, is) = (last(&before), last(&decisions));
    assert_eq!(is["policyVersion"], was["policyVersion"], "it is the same policy, changed no more often");
    assert!(is["sequence"].as_i64() > was["sequence"].as_i64(), "decisions are counted on: {was} {is}");
    scales_to(&running, &data, 50.0, 5);
    assert_eq!(running.stop(), 0);

    // The past is where it was, and what came since is replayed from what went over.
    assert_eq!(history(home, &["--data", "data"]), before);
    let (code, printed, words) = loadline(home, &["doctor", "data"]);
    assert!(code == Some(0) && printed.contains("its installation went over to Kafka at "), "{code:?}: {printed}{words}");
    let (code, printed, words) = loadline(home, &["why", &SLEEPERS, "--data", "data", "--at", &grown["decision"]["at"].to_string()]);
    assert!(code == Some(0) && printed.contains("Outcome"), "{printed}{words}");
    let (_, exported, _) = loadline(home, &["export", "--brokers", &broker().address, "--prefix", &prefix]);
    std::fs::write(home.join("signals.jsonl"), exported).unwrap();
    let (code, replayed, words) = loadline(home, &["replay", "signals.jsonl"]);
    assert_eq!(code, Some(0), "{words}");
    for decision in decisions.iter().map(|story| &story["decision"]) {
        let told = format!("\"sequence\":{},\"current\":{},\"desired\":{},", decision["sequence"], decision["current"], decision["desired"]);
        assert!(replayed.lines().any(|line| line.contains(&told)), "{told} in {replayed}");
    }
    assert!(replayed.contains("\"binding\":\"Cooldown\""), "{replayed}");
}

#[test]
fn it_goes_into_a_new_installation_alone() {
    let (home, _) = fleet_of_sleepers(1, "");
    let prefix = installation(broker());
    let (code, _, words) = said(&mut on_kafka("migrate", home.path(), &prefix));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("there is no log in data"), "{words}");
    let (code, _, words) = loadline(home.path(), &["migrate", "--data", "data"]);
    assert!(code == Some(2) && words.contains("kafka.brokers"), "{words}");
    let alone = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    wait_for("the fleet", || (sleepers(&home.path().join("data")) == 1).then_some(()));
    assert_eq!(alone.stop(), 0);
    // A process that ran there has begun something else.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir(elsewhere.path().join("policies")).unwrap();
    let running = Running::spawn(run(broker(), elsewhere.path(), &prefix, ALL));
    assert_eq!(running.stop(), 0);
    for flags in [&[][..], &["--dry-run"]] {
        let (code, _, words) = said(on_kafka("migrate", home.path(), &prefix).args(flags));
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains("an installation is migrated into a new one") && words.contains("kafka.prefix"), "{words}");
    }
    let again = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    assert_eq!(again.stop(), 0, "nothing went over, and it goes on where it was");
    std::fs::write(home.path().join("data/log.db"), b"no database".repeat(1_000)).unwrap();
    let (code, _, words) = said(&mut on_kafka("migrate", home.path(), &installation(broker())));
    assert!(code.is_some_and(|code| code > 0) && words.contains("the log in data cannot be read, and nothing went over"), "{code:?}: {words}");
}

/// From the mark on nobody decides on the directory, and one that was killed then is begun again: it went over once, or not at all until then.
#[test]
fn a_migration_that_is_killed_is_done_once_when_it_is_begun_again() {
    let (home, _) = fleet_of_sleepers(1, "");
    let (home, mark) = (home.path(), home.path().join("data/migrated.json"));
    let alone = Running::start(home, &["--stop-fleets-on-exit"]);
    wait_for("the policy", || (alone.status(&SLEEPERS)?["max"] == 6).then_some(()));
    assert_eq!(alone.stop(), 0);
    let prefix = installation(broker());
    let mut killed = on_kafka("migrate", home, &prefix).spawn().unwrap();
    wait_for("the mark", || {
        let ended = killed.try_wait().unwrap();
        assert!(ended.is_none_or(|ended| ended.success()), "{ended:?}");
        mark.exists().then_some(())
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    // However far it came, that it is done was not written down.
    let text = std::fs::read_to_string(&mark).unwrap();
    std::fs::write(&mark, text.replace("\"done\": true", "\"done\": false")).unwrap();
    let (code, _, words) = loadline(home, &["run", "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(2) && words.contains("run `loadline migrate` with that configuration again"), "{code:?}: {words}");
    // Nor does anybody begin anew where it was to go: what was remembered would stay behind.
    let (code, words) = Running::refused(run(broker(), home, &prefix, ALL));
    assert!(code == 2 && words.contains("whether all went over is not known"), "{code:?}: {words}");
    let (code, printed, words) = said(&mut on_kafka("migrate", home, &prefix));
    assert_eq!(code, Some(0), "{printed}{words}");
    let (_, exported, words) = loadline(home, &["export", "--brokers", &broker().address, "--prefix", &prefix]);
    assert_eq!(exported.matches("\"carried\"").count(), 1, "{exported}{words}");
    std::fs::write(&mark, "{").unwrap();
    let (code, _, words) = said(&mut on_kafka("migrate", home, &prefix));
    assert!(code == Some(2) && words.contains("migrated.json says that this installation was migrated, and cannot be read"), "{words}");
}

/// Who has the rights that `topology acls` prints can do it, and who has those of a stage cannot.
#[test]
fn it_needs_the_rights_that_are_printed_for_it() {
    let users = [("mover", "migrate"), ("decider", "decide")];
    let broker = Broker::with_tls(&users.map(|(user, _)| user));
    let (home, _) = fleet_of_sleepers(1, "");
    let home = home.path();
    let file = |user: &str| {
        let path = home.join(format!("{user}.properties"));
        std::fs::write(&path, broker.properties(user, &Broker::password(user))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let alone = Running::start(home, &["--stop-fleets-on-exit"]);
    wait_for("the policy", || (alone.status(&SLEEPERS)?["max"] == 6).then_some(()));
    assert_eq!(alone.stop(), 0);
    let prefix = installation_as(&broker, &["--replication", "1", "--kafka-config", &file("admin")]);
    for (user, role) in users {
        let (code, printed, words) =
            loadline(home, &["topology", "acls", "--role", role, "--principal", &format!("User:{user}"), "--prefix", &prefix, "--brokers", &broker.address]);
        assert_eq!(code, Some(0), "{words}");
        for line in printed.lines() {
            broker.acls(&line.split(' ').skip(3).collect::<Vec<_>>());
        }
    }
    let migrates = |user: &str| said(configured("migrate", &broker, home, &prefix).args(["--set", &format!("kafka.config={}", file(user))]));
    let (code, _, words) = migrates("decider");
    assert!(code != Some(0) && words.to_lowercase().contains("authoriz"), "{code:?}: {words}");
    assert!(!home.join("data/migrated.json").exists(), "nothing went over");
    let (code, printed, words) = migrates("mover");
    assert_eq!(code, Some(0), "{printed}{words}");
}
