//! The pipeline on a real Kafka broker: processes that share the work, and take over from each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::common::{LOADLINE, Running, fleet_of_sleepers, sleepers, wait_for, waiting};
use crate::installation::{ALL, STAGES, installation, installation_as, makes_topics, run, scales_to};
use crate::kafka::{Broker, answered, broker, brought};
use loadline::log::kafka::{Options, declaration};
use loadline::log::{Batch, Log, LogError, Membership, Partitions, Polled, RawAppend, Topic};

#[test]
fn a_fleet_scales_on_kafka_whichever_process_does_which_part() {
    let prefix = installation(broker());
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleIn: { stabilization: 0s, cooldown: 0s }, scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let front = Running::spawn(run(broker(), home.path(), &prefix, "ingest,policies,fleets,view"));
    let elsewhere = tempfile::tempdir().unwrap();
    let [one, other] = [(); 2].map(|()| {
        std::fs::create_dir_all(elsewhere.path().join("policies")).unwrap();
        Running::spawn(run(broker(), elsewhere.path(), &prefix, STAGES))
    });
    assert!(!elsewhere.path().join("data").exists(), "what supervises no fleets keeps nothing");
    scales_to(&front, &data, 30.0, 3);
    // The front does none of it, and shows who does.
    let owners = || owners_of_decide(&front);
    wait_for("both to have a share", || {
        let owners = owners()?;
        [&one, &other].iter().all(|process| owners.iter().any(|owner| owner.contains(&format!("-{} at ", process.pid())))).then_some(())
    });
    let numbered = || {
        let request = ureq::post(format!("{}/api/v1/metrics", front.url)).header("content-type", "application/x-ndjson");
        request.header("loadline-producer", "counting").header("loadline-sequence", "1").send(waiting(30.0)).unwrap();
    };
    [(); 2].iter().for_each(|()| numbered());
    let repeated = || page_line(&front, "loadline_aggregate_samples_repeated_total ");
    wait_for("the repetition to be counted", || repeated().filter(|count| *count > 0.0));
    // One of both is gone, and the other one has its work.
    one.kill();
    scales_to(&front, &data, 50.0, 5);
    assert_eq!(repeated(), Some(1.0), "once, however many partitions of signals there are");
    let only = format!("-{} at ", other.pid());
    wait_for("the other one to have all", || owners()?.iter().all(|owner| owner.contains(&only)).then_some(()));
    let shown = Command::new(LOADLINE).args(["status", "--server", &front.url]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.lines().any(|line| line.starts_with("decide, partitions: loadline-") && line.contains(&only) && line.ends_with(" has 3")), "{shown}");
    let third = Running::spawn(run(broker(), elsewhere.path(), &prefix, &format!("{STAGES},view")));
    other.kill();
    scales_to(&front, &data, 20.0, 2);
    // What went over the log is what the front shows.
    wait_for("the count in the status", || (front.status(&crate::common::SLEEPERS)?["current"] == 2).then_some(()));
    // Commands are the affair of who has fleets, and not behind elsewhere.
    // Each is looked at for itself, and shown when it was.
    let stages = wait_for("what is read on there", || Some(stages_with_lag(&third)).filter(|stages| stages.len() >= 4));
    assert!(stages.contains("decide") && !stages.iter().any(|stage| stage.starts_with("actuate")), "{stages:?}");
    wait_for("the commands of the front", || stages_with_lag(&front).iter().any(|stage| stage.starts_with("actuate")).then_some(()));
    assert_eq!(third.stop(), 0);
    // One that was started with the same documents and a data directory of its own leaves the fleet to the front, and says so while it runs.
    let second = tempfile::tempdir().unwrap();
    std::fs::create_dir(second.path().join("policies")).unwrap();
    std::fs::copy(home.path().join("policies/fleet.yaml"), second.path().join("policies/fleet.yaml")).unwrap();
    let pids = crate::common::pids_of(&data, &crate::common::FLEET);
    let beside = Running::spawn(run(broker(), second.path(), &prefix, "fleets"));
    let told = || {
        let alerts = front.status(&crate::common::SLEEPERS)?["alerts"].as_array()?.clone();
        Some(alerts.into_iter().find(|alert| alert["name"] == "FleetSupervisedElsewhere").map(|alert| alert["message"].to_string()))
    };
    let words = wait_for("what is supervised elsewhere to be told", || told()?);
    assert!(words.contains(&format!("process {} (", front.pid())) && words.contains("leave the role fleets out here"), "{words}");
    assert_eq!((beside.stop(), crate::common::pids_of(&data, &crate::common::FLEET)), (0, pids));
    wait_for("it to be over", || told()?.is_none().then_some(()));
    // Nobody reads on, and what waits is told, stage by stage.
    front.post(&waiting(20.0));
    let status = || String::from_utf8(Command::new(LOADLINE).args(["status", "--server", &front.url]).output().unwrap().stdout).unwrap();
    let nobodys = |line: &&str| {
        line.contains("aggregate is ") && line.contains(" behind on metrics/") && line.ends_with("no process has it: is one with the role aggregate there?")
    };
    wait_for("what nobody reads to be told", || status().lines().find(nobodys).map(|_| ()));
    let pids = crate::common::pids_of(&data, &crate::common::FLEET);
    assert_eq!(front.stop(), 0);
    // The fleet went on; the next process finds it, and decides on from the log.
    let mut command = run(broker(), home.path(), &prefix, ALL);
    command.arg("--stop-fleets-on-exit");
    let alone = Running::spawn(command);
    assert_eq!(crate::common::pids_of(&data, &crate::common::FLEET), pids);
    scales_to(&alone, &data, 40.0, 4);
    assert_eq!(alone.stop(), 0);
    assert_eq!(sleepers(&data), 0);
    let doctor = Command::new(LOADLINE).arg("doctor").arg(&data).output().unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.status.success() && said.contains("its log is on Kafka"), "{said}");
    another_policy_is_compared_on_what_is_there(home.path(), &prefix);
}

/// The stages of which a process shows how far they are.
fn stages_with_lag(running: &Running) -> BTreeSet<String> {
    let status = running.all_status().unwrap();
    status["lag"].as_array().unwrap().iter().map(|lag| lag["stage"].as_str().unwrap().to_owned()).collect()
}

/// The number behind the beginning of a line of `/metrics`.
fn page_line(running: &Running, begins: &str) -> Option<f64> {
    let page = ureq::get(format!("{}/metrics", running.url)).call().ok()?.body_mut().read_to_string().ok()?;
    page.lines().find_map(|line| line.strip_prefix(begins)?.parse().ok())
}

/// Who has each partition of what decide reads, as `status` says; `None` where that is not known of all.
fn owners_of_decide(front: &Running) -> Option<Vec<String>> {
    let status = front.all_status()?;
    let of_decide = status["lag"].as_array()?.iter().filter(|lag| lag["stage"] == "decide");
    of_decide.map(|lag| lag["owner"]["member"].as_str().map(str::to_owned)).collect()
}

/// What another policy would have done is told from the cluster as from the lines that are exported from it.
fn another_policy_is_compared_on_what_is_there(home: &Path, prefix: &str) {
    let reach = ["--brokers", &broker().address, "--prefix", prefix];
    let printed = |arguments: &[&[&str]]| {
        let output = Command::new(LOADLINE).current_dir(home).args(arguments.concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    std::fs::write(home.join("signals.jsonl"), printed(&[&["export"], &reach])).unwrap();
    let other = std::fs::read_to_string(home.join("policies/policy.yaml")).unwrap().replace("perReplica: 10", "perReplica: 20");
    std::fs::write(home.join("other.yaml"), other).unwrap();
    let compare = ["replay", "--policy", "other.yaml", "--output", "json"];
    let on_kafka = printed(&[&compare, &reach]);
    assert_eq!(on_kafka, printed(&[&compare, &["signals.jsonl"]]));
    assert!(on_kafka.contains(&*crate::common::SLEEPERS) && on_kafka.contains("\"recorded\""), "{on_kafka}");
}

/// Whoever is told to end ends, also where its broker takes what it says and answers nothing: last commits and the leave of its groups are waited for within a bound.
#[test]
fn who_is_told_to_end_ends_without_a_broker() {
    let mut broker = Broker::start(&[], &[]);
    let prefix = installation(&broker);
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("policies")).unwrap();
    let mut command = run(&broker, home.path(), &prefix, ALL);
    command.args(["--log-level", "debug"]);
    let mut loadline = Running::spawn(command);
    // Who has none has nothing to hand over, and ends at once.
    wait_for("its partitions", || {
        let said = loadline.said();
        STAGES.split(',').all(|stage| said.iter().any(|line| line.contains(&format!("{stage} goes on with partition ")))).then_some(())
    });
    broker.stand_still();
    assert_eq!(loadline.stop_in_place(), 0);
    broker.kill();
}

/// A process with a name keeps its partitions while it restarts; the others do not take them, and nothing is decided there meanwhile. A name that
/// another process has too is told to the one that loses it.
#[test]
fn a_process_with_a_name_comes_back_to_what_it_had() {
    let prefix = installation(broker());
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let mut command = run(broker(), home.path(), &prefix, "ingest,policies,fleets,view");
    command.arg("--stop-fleets-on-exit");
    let front = Running::spawn(command);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir(elsewhere.path().join("policies")).unwrap();
    let settings = elsewhere.path().join("kafka.properties");
    // Longer than any restart takes, on however slow a machine.
    std::fs::write(&settings, "session.timeout.ms=300000\n").unwrap();
    let named = |name: &str| {
        let mut command = run(broker(), elsewhere.path(), &prefix, STAGES);
        command.args(["--set", &format!("kafka.member={name}"), "--set", &format!("kafka.config={}", settings.display()), "--log-level", "debug"]);
        Running::spawn(command)
    };
    let owners =
        || owners_of_decide(&front).filter(|owners| ["one", "other"].iter().all(|name| owners.iter().any(|o| o.starts_with(&format!("loadline-{name} at ")))));
    let (one, other) = (named("one"), named("other"));
    let before = wait_for("both to have a share", owners);
    let has = |process: &Running| -> BTreeSet<String> {
        process.said().iter().filter_map(|line| Some(line[line.find("decide goes on with partition ")?..].split(" at ").next()?.to_owned())).collect()
    };
    let share = before.iter().filter(|owner| owner.starts_with("loadline-one at ")).count();
    wait_for("both to have begun with theirs", || (has(&one).len() >= share && has(&other).len() >= before.len() - share).then_some(()));
    let (had, others) = (has(&one), has(&other));
    one.kill();
    let again = named("one");
    wait_for("it to have what it had", || (has(&again).len() == share && has(&again).is_subset(&had)).then_some(()));
    assert_eq!(has(&other), others, "the other one has taken nothing");
    assert_eq!(wait_for("the owners", owners), before);
    scales_to(&front, &data, 30.0, 3);
    let namesake = named("other");
    let (code, said) = other.ended();
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(code, 1, "{said}");
    assert!(last.contains("another process has joined group ") && last.contains(" as other: give each a name of its own (kafka.member)"), "{last}");
    for running in [again, namesake, front] {
        assert_eq!(running.stop(), 0);
    }
}

/// Each fleet is scaled by the process that supervises it, also where the command comes over a partition of another one.
#[test]
fn two_processes_each_scale_their_own_fleets() {
    let prefix = installation(broker());
    let homes = ["north", "south"].map(|name| {
        let (home, policies) = fleet_of_sleepers(1, "  behavior: { scaleOut: { cooldown: 0s } }\n");
        for file in ["fleet.yaml", "policy.yaml"] {
            let text = std::fs::read_to_string(policies.join(file)).unwrap();
            std::fs::write(policies.join(file), text.replace(&*crate::common::FLEET, name)).unwrap();
        }
        (name, home)
    });
    // Files of policies are one source, which one process announces: it has those of both.
    let [(_, north), (_, south)] = &homes;
    std::fs::copy(south.path().join("policies/policy.yaml"), north.path().join("policies/south.yaml")).unwrap();
    let running = homes.each_ref().map(|(name, home)| {
        let roles = if *name == "north" { ALL } else { "admit,aggregate,decide,arbitrate,fleets,view" };
        let mut command = run(broker(), home.path(), &prefix, roles);
        command.arg("--stop-fleets-on-exit");
        Running::spawn(command)
    });
    for ((name, home), count) in homes.iter().zip([3, 4]) {
        let lines = format!("{{\"target\":\"local/ProcessFleet/{name}\",\"metric\":\"queue_depth\",\"value\":{}}}\n", count * 10);
        let data = home.path().join("data");
        wait_for(&format!("{count} of {name}"), || {
            running[0].post(&lines);
            (crate::common::instances_of(&data, name) == count).then_some(())
        });
    }
    running.into_iter().for_each(|running| assert_eq!(running.stop(), 0));
}

#[test]
fn it_does_not_start_on_topics_that_are_not_there_or_not_its_own() {
    let (home, _) = fleet_of_sleepers(1, "");
    let (code, words) = Running::refused(run(broker(), home.path(), "nobody-made-it.", STAGES));
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("no topic of an installation with the prefix nobody-made-it.") && words.contains("loadline topology apply"), "{words}");
    let prefix = installation(broker());
    let mut others = run(broker(), home.path(), &prefix, STAGES);
    others.args(["--set", "kafka.partitions=4"]);
    let (code, words) = Running::refused(others);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("signals") && words.contains("partitions"), "{words}");
    let mut embedded = Command::new(LOADLINE);
    embedded.current_dir(home.path()).args(["run", "--roles", "decide"]).env_remove("LOADLINE_CONFIG");
    let (code, words) = Running::refused(embedded);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("leave roles out, or name kafka.brokers"), "{words}");
}

/// While the broker is away samples are refused and the fleet stands; what was acknowledged before is there after it.
#[test]
fn a_broker_that_dies_and_comes_back_costs_nothing_but_time() {
    let mut broker = Broker::start(&[], &[]);
    let prefix = installation(&broker);
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let mut command = run(&broker, home.path(), &prefix, ALL);
    command.arg("--stop-fleets-on-exit");
    let loadline = Running::spawn(command);
    // One that reads alone, and writes nothing as long as nothing comes.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir(elsewhere.path().join("policies")).unwrap();
    let reads = Running::spawn(run(&broker, elsewhere.path(), &prefix, "admit"));
    scales_to(&loadline, &data, 30.0, 3);
    broker.kill();
    let answers = || {
        let request = ureq::post(format!("{}/api/v1/metrics", loadline.url)).config().http_status_as_error(false).build();
        request.header("content-type", "application/x-ndjson").send(waiting(50.0)).unwrap().status().as_u16()
    };
    wait_for("samples to be refused", || (answers() == 503).then_some(()));
    assert_eq!(sleepers(&data), 3, "the fleet stands");
    let ready_of = |running: &Running| {
        let mut answer = ureq::get(format!("{}/readyz", running.url)).config().http_status_as_error(false).build().call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    let ready = || ready_of(&loadline);
    let said = wait_for("it to say so", || Some(ready()).filter(|(status, said)| *status == 503 && said.contains("nothing can be written since")));
    assert!(said.1.contains("see that the brokers run and can be reached"), "{said:?}");
    // What was seen before is not shown as if it were so now.
    let stages = || {
        let status = loadline.all_status()?;
        let is_unseen = status["alerts"].as_array()?.iter().any(|alert| alert["name"] == "StagesUnseen");
        Some((is_unseen, status["lag"].as_array()?.len()))
    };
    wait_for("the stages to be unseen", || (stages()? == (true, 0)).then_some(()));
    wait_for("who reads alone to say so", || Some(ready_of(&reads)).filter(|(status, said)| *status == 503 && said.contains("the cluster does not answer")));
    broker.start_again();
    scales_to(&loadline, &data, 50.0, 5);
    wait_for("who reads alone to be ready", || (ready_of(&reads).0 == 200).then_some(()));
    assert_eq!(reads.stop(), 0);
    wait_for("the stages to be seen", || stages().filter(|(is_unseen, lag)| !is_unseen && *lag > 0));
    wait_for("it to be ready", || (ready().0 == 200).then_some(()));
    assert_eq!(loadline.stop(), 0);
}

/// A broker that is too late to be heard of is left out of its own cluster, which then has no broker for a moment, and tells that to whoever asks.
#[test]
fn a_cluster_without_any_broker_for_a_moment_costs_nothing_but_time() {
    let mut broker = Broker::start(&[], &[]);
    let prefix = installation(&broker);
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let mut command = run(&broker, home.path(), &prefix, ALL);
    command.arg("--stop-fleets-on-exit");
    let loadline = Running::spawn(command);
    scales_to(&loadline, &data, 30.0, 3);
    broker.is_seldom_heard_of(4_000, 2_500);
    wait_for("the broker to be left out again and again", || {
        let request = ureq::post(format!("{}/api/v1/metrics", loadline.url)).config().http_status_as_error(false).build();
        drop(request.header("content-type", "application/x-ndjson").send(waiting(30.0)));
        (broker.times_left_out() >= 5).then_some(())
    });
    broker.is_heard_of();
    scales_to(&loadline, &data, 50.0, 5);
    wait_for("the count in the status", || (loadline.status(&crate::common::SLEEPERS)?["current"] == 5).then_some(()));
    wait_for("the stages to be seen", || (stages_with_lag(&loadline).len() >= 5).then_some(()));
    assert_eq!(loadline.stop(), 0);
}

/// Of three brokers one may die, and nothing stops. With a second one gone nothing is acknowledged that could be lost, and when they are back all that was is there.
#[test]
fn what_is_acknowledged_is_on_two_brokers_or_it_is_not_acknowledged() {
    let [first, mut second, mut third] = Broker::cluster();
    let prefix = installation_as(&first, &[]);
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let mut command = run(&first, home.path(), &prefix, ALL);
    command.arg("--stop-fleets-on-exit");
    let loadline = Running::spawn(command);
    scales_to(&loadline, &data, 30.0, 3);
    third.kill();
    scales_to(&loadline, &data, 40.0, 4);
    let mut acknowledged = 0;
    let mut answers = || {
        let request = ureq::post(format!("{}/api/v1/metrics", loadline.url)).config().http_status_as_error(false).build();
        let status = request.header("content-type", "application/x-ndjson").send(waiting(40.0).replace("queue_depth", "counted")).unwrap().status().as_u16();
        acknowledged += usize::from(status == 200);
        status
    };
    wait_for("a sample to be taken", || (answers() == 200).then_some(()));
    second.kill();
    // At once: the one that is left does not know yet that it is alone.
    for _ in 0..3 {
        assert_eq!(answers(), 503, "one broker alone acknowledges nothing");
    }
    assert_eq!(sleepers(&data), 4, "the fleet stands");
    second.start_again();
    third.start_again();
    wait_for("samples to be taken again", || (answers() == 200).then_some(()));
    scales_to(&loadline, &data, 50.0, 5);
    assert_eq!(loadline.stop(), 0);
    let log = Broker::open(&Options { partitions: Some(three()), ..first.options(&prefix) });
    let records = (0..3).flat_map(|partition| answered(|| log.scan(Topic::Metrics, partition, 0, 100_000)));
    let taken = records.filter(|record| String::from_utf8_lossy(&record.value).contains("counted")).count();
    assert!(taken >= acknowledged, "{acknowledged} were acknowledged, {taken} are there");
}

/// The shape of an installation of the tests.
fn three() -> Partitions {
    [Topic::Metrics, Topic::Signals, Topic::Commands, Topic::Audit].into_iter().fold(Partitions::default(), |all, topic| all.with(topic, 3))
}

/// A topic that is lost: what `docs/kafka.md` says to delete besides (groups with their states, and topics), and how a fleet is scaled afterwards.
struct Loss {
    topic: &'static str,
    groups: &'static [&'static str],
    others: &'static [&'static str],
    waits: f64,
    count: usize,
}

/// Loses one topic after the other under a running fleet. A topic that was deleted ends whoever needs it. Made anew, it is not taken for the old one: who has read further than it goes
/// does not start, until it begins anew as the page tells. Then the fleet is scaled as before. Gives what is left: the installation, and the fleet's directory.
fn loses(losses: &[Loss]) -> (String, tempfile::TempDir) {
    let prefix = installation(broker());
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleIn: { stabilization: 0s, cooldown: 0s }, scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let command = || run(broker(), home.path(), &prefix, ALL);
    let named = |names: &[&str]| names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>();
    let apply = || makes_topics(broker(), &prefix, 3, &["--replication", "1"]);
    let mut running = Running::spawn(command());
    scales_to(&running, &data, 30.0, 3);
    // Its snapshots stand behind what it has read: one that holds nothing yet may as well begin on the new topic.
    assert_eq!(running.stop(), 0);
    running = Running::spawn(command());
    for Loss { topic, groups, others, waits, count } in losses {
        broker().delete(&[], &named(&[topic]));
        let (code, said) = running.ended();
        let last = said.lines().last().unwrap_or_default();
        assert!(code != 0 && last.contains(&format!("the topic {prefix}{topic} is gone, or lacks a partition")), "{topic}: {code}: {said}");
        apply();
        if !groups.is_empty() {
            let (code, said) = Running::refused(command());
            assert!(code != 0 && said.contains("the snapshots hold the input up to") && said.contains("docs/kafka.md"), "{topic}: {said}");
            let states: Vec<String> = named(groups).iter().map(|group| format!("{group}-state")).collect();
            broker().delete(&named(groups), &[&states[..], &named(others)].concat());
            apply();
        }
        running = Running::spawn(command());
        scales_to(&running, &data, *waits, *count);
    }
    assert_eq!(running.stop(), 0);
    (prefix, home)
}

fn ends_the_fleet(prefix: &str, home: &tempfile::TempDir) {
    let mut last = run(broker(), home.path(), prefix, ALL);
    last.arg("--stop-fleets-on-exit");
    assert_eq!(Running::spawn(last).stop(), 0);
}

const OF_POLICIES: &[&str] = &["decide", "admit"];

#[test]
fn signals_or_policies_that_are_lost_are_told_and_their_readers_begin_anew() {
    let (prefix, home) = loses(&[
        Loss { topic: "signals", groups: OF_POLICIES, others: &[], waits: 50.0, count: 5 },
        Loss { topic: "control", groups: OF_POLICIES, others: &["signals"], waits: 30.0, count: 3 },
    ]);
    ends_the_fleet(&prefix, &home);
}

#[test]
fn requests_or_commands_that_are_lost_are_told_and_their_readers_begin_anew() {
    let (prefix, home) = loses(&[
        Loss { topic: "requests", groups: &["arbitrate"], others: &[], waits: 50.0, count: 5 },
        Loss { topic: "commands", groups: &[], others: &[], waits: 30.0, count: 3 },
    ]);
    ends_the_fleet(&prefix, &home);
}

/// Lost, and then ending before where a stage stands, as where a broker without a part of its disk came to lead it.
#[test]
fn metrics_that_are_lost_or_cut_short_are_told_and_read_on() {
    let (prefix, home) = loses(&[Loss { topic: "metrics", groups: &[], others: &[], waits: 50.0, count: 5 }]);
    let command = || run(broker(), home.path(), &prefix, ALL);
    let [metrics, aggregate] = ["metrics", "aggregate"].map(|name| format!("{prefix}{name}"));
    broker().commit(&aggregate, &metrics, 1_000_000);
    let (code, said) = Running::refused(command());
    let says = format!("stands at 1000000 of {metrics} 0, which ends at ");
    assert!(code != 0 && said.contains(&says) && said.contains("docs/kafka.md"), "{code:?}: {said}");
    let log = Broker::open(&Options { partitions: Some(three()), ..broker().options(&prefix) });
    let end = answered(|| log.range(Topic::Metrics, 0)).end;
    broker().commit(&aggregate, &metrics, i64::try_from(end).unwrap());
    let running = Running::spawn(command());
    scales_to(&running, &home.path().join("data"), 20.0, 2);
    assert_eq!(running.stop(), 0);
    ends_the_fleet(&prefix, &home);
}

/// The topic of a state is deleted and made anew under a running Loadline, which writes what changed since to it: that is never taken for all. Made anew once more, it is rebuilt.
#[test]
fn a_state_that_is_made_anew_under_a_running_loadline_is_told_and_rebuilt() {
    let prefix = installation(broker());
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleIn: { stabilization: 0s, cooldown: 0s }, scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let state = format!("{prefix}decide-state");
    let anew = || {
        broker().delete(&[], std::slice::from_ref(&state));
        makes_topics(broker(), &prefix, 3, &["--replication", "1"]);
    };
    let command = || run(broker(), home.path(), &prefix, ALL);
    let running = Running::spawn(command());
    scales_to(&running, &data, 30.0, 3);
    // What it remembers is written, in rounds that begin here.
    assert_eq!(running.stop(), 0);
    let running = Running::spawn(command());
    scales_to(&running, &data, 20.0, 2);
    anew();
    scales_to(&running, &data, 40.0, 4);
    running.stop();
    let (code, said) = Running::refused(command());
    assert!(code != 0 && said.contains("only a part of the snapshots is there") && said.contains("docs/kafka.md"), "{code}: {said}");
    anew();
    let mut last = command();
    last.arg("--stop-fleets-on-exit");
    let running = Running::spawn(last);
    scales_to(&running, &data, 50.0, 5);
    assert_eq!(running.stop(), 0);
}

/// `metrics` is given more partitions as `docs/kafka.md` says. Under a running Loadline it ends, and without a state for each, or a configuration that says so, nothing starts; then the
/// fleet scales on, on what stands in all of them.
#[test]
fn metrics_are_given_more_partitions_with_loadline_stopped() {
    let prefix = installation(broker());
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleIn: { stabilization: 0s, cooldown: 0s }, scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let running = Running::spawn(run(broker(), home.path(), &prefix, ALL));
    scales_to(&running, &data, 30.0, 3);
    let [metrics, states] = ["metrics", "aggregate-state"].map(|name| format!("{prefix}{name}"));
    broker().grow(&metrics, 7);
    let (code, said) = running.ended();
    let last = said.lines().last().unwrap_or_default();
    assert!(code != 0 && last.contains(&format!("{metrics} has more partitions now than the 3 ")), "{said}");
    let (code, said) = Running::refused(run(broker(), home.path(), &prefix, ALL));
    assert!(code == 2 && said.contains(&format!("{states}: partitions is 3, declared is 7")), "{said}");
    broker().grow(&states, 7);
    let mut command = run(broker(), home.path(), &prefix, ALL);
    command.args(["--set", "kafka.partitions=3,metrics=7", "--stop-fleets-on-exit"]);
    let running = Running::spawn(command);
    // What stands in the new ones alone is read.
    let log = Broker::open(&Options { partitions: Some(three().with(Topic::Metrics, 7)), ..broker().options(&prefix) });
    let mut next = (3..7).cycle();
    wait_for("a fleet of 5", || {
        let value = waiting(50.0).trim_end().as_bytes().to_vec();
        log.append(vec![RawAppend { topic: Topic::Metrics, partition: next.next()?, key: None, value }]).unwrap();
        (sleepers(&data) == 5).then_some(())
    });
    scales_to(&running, &data, 20.0, 2);
    assert_eq!(running.stop(), 0);
}

/// The command of `docs/kafka.md` bounds what a user may send.
fn is_bounded(broker: &Broker, user: &str) {
    let page = include_str!("../../docs/kafka.md");
    let written = page
        .split_once("`kafka-configs.sh --bootstrap-server kafka-1:9092 --alter --entity-type users")
        .unwrap()
        .1
        .split_once('`')
        .unwrap()
        .0
        .replace("PRODUCER", user);
    let of_user = ["--entity-type", "users", "--entity-name", user];
    assert!(written.starts_with(&format!(" --entity-name {user} ")), "{written}");
    let alters: Vec<&str> = ["--alter", "--entity-type", "users"].into_iter().chain(written.split_whitespace()).collect();
    broker.configs(&alters);
    let told = broker.configs(&[&["--describe"], &of_user[..]].concat());
    let bound = written.split_once("--add-config ").unwrap().1;
    assert!(told.contains(&bound.replace("1048576", "1048576.0")), "{bound}: {told}");
}

/// Five users, who log in by SCRAM over TLS, each with the rights that `topology acls` prints for its roles: a fleet scales with them, and none can do
/// what is another one's.
#[test]
fn each_role_runs_with_the_rights_that_are_printed_for_it_and_has_no_others() {
    let users =
        [("producer", "ingest"), ("stages", "admit,aggregate,arbitrate"), ("decider", "decide"), ("measurer", "lag"), ("people", "policies,fleets,view")];
    let broker = Broker::with_tls(&users.map(|(user, _)| user));
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleOut: { cooldown: 0s } }\n");
    let file = |user: &str| {
        let path = home.path().join(format!("{user}.properties"));
        std::fs::write(&path, broker.properties(user, &Broker::password(user))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let prefix = installation_as(&broker, &["--replication", "1", "--kafka-config", &file("admin")]);
    // Each takes a second or two, and mostly waits.
    let grants = |(user, roles): (&str, &str)| {
        let acls = ["topology", "acls", "--role", roles, "--principal", &format!("User:{user}"), "--prefix", &prefix, "--brokers", &broker.address];
        let printed = Command::new(LOADLINE).args(acls).output().unwrap();
        assert!(printed.status.success(), "{printed:?}");
        for line in String::from_utf8(printed.stdout).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[..3], ["kafka-acls.sh", "--bootstrap-server", &broker.address], "{line}");
            broker.acls(&words[3..]);
        }
    };
    std::thread::scope(|scope| users.iter().for_each(|user| drop(scope.spawn(|| grants(*user)))));
    // Whose lag is measured: a group with a position, and one that is not there.
    broker.create_topic("orders", 1, &[]);
    broker.commit("workers", "orders", 0);
    let measurer = "User:measurer";
    broker.acls(&["--add", "--allow-principal", measurer, "--operation", "Describe", "--operation", "Read", "--topic", "orders"]);
    broker.acls(&["--add", "--allow-principal", measurer, "--operation", "Describe", "--group", "workers", "--group", "nobody"]);
    let source = |group: &str| format!("  {group}: {{ group: {group}, topics: orders, targets: {}, metric: backlog, every: 1s }}\n", &*crate::common::SLEEPERS);
    let [producer, stages, decider, measurer, people] = users.map(|(user, roles)| {
        let directory = if user == "people" { home.path().to_owned() } else { home.path().join(user) };
        std::fs::create_dir_all(directory.join("policies")).unwrap();
        let mut command = run(&broker, &directory, &prefix, roles);
        if user == "measurer" {
            std::fs::write(directory.join("loadline.yaml"), format!("log: {{ level: debug }}\nlag:\n{}{}", source("workers"), source("nobody"))).unwrap();
        }
        command.args(["--set", &format!("kafka.config={}", file(user)), "--stop-fleets-on-exit"]);
        Running::spawn(command)
    });
    scales_to(&producer, &home.path().join("data"), 30.0, 3);
    let says = |running: &Running, words: &str| running.said().iter().any(|line| line.contains(words)).then_some(());
    wait_for("a lag that is measured", || says(&measurer, "workers: a lag of 0"));
    // Whoever looks later finds it, too.
    let fires = |alerts: &serde_json::Value| alerts.as_array().is_some_and(|alerts| alerts.iter().any(|alert| alert["name"] == "LagUnknown"));
    wait_for("one that is not known", || fires(&people.status(&crate::common::SLEEPERS)?["alerts"]).then_some(()));
    // How far each stage is, and who has it, is seen as well.
    wait_for("the stages to be seen", || {
        let status = people.all_status()?;
        let has_owners = |stage: &&str| {
            let of_stage = status["lag"].as_array().unwrap().iter().filter(|lag| lag["stage"].as_str().unwrap().starts_with(stage));
            let owned: Vec<bool> = of_stage.map(|lag| lag["owner"]["member"].is_string()).collect();
            !owned.is_empty() && owned.into_iter().all(|is_owned| is_owned)
        };
        ["admit", "aggregate", "decide", "arbitrate", "actuate"].iter().all(has_owners).then_some(())
    });
    for running in [producer, stages, decider, measurer, people] {
        let denied: Vec<String> = running.said().into_iter().filter(|line| line.to_lowercase().contains("authoriz")).collect();
        assert_eq!((denied, running.stop()), (Vec::new(), 0));
    }
    // Who may not write what it has to says so, and ends: what is refused is the records, and the end of the transaction is only told as a fault.
    let mut options = Options { partitions: Some(three()), ..broker.options(&prefix) };
    options.settings.insert("sasl.username".to_owned(), "decider".to_owned());
    options.settings.insert("sasl.password".to_owned(), Broker::password("decider"));
    let log = Broker::open(&options);
    let mut session = log.join(Membership { group: "decide", member: "decider".to_owned(), topic: Topic::Signals }).unwrap();
    let partition = wait_for("a partition", || {
        let given = |polled| if let Polled::Assigned { partition, .. } = polled { Some(partition) } else { None };
        brought(session.poll(0, std::time::Duration::from_millis(20))).into_iter().find_map(given)
    });
    let append = RawAppend { topic: Topic::Commands, partition: 0, key: None, value: b"none of its own".to_vec() };
    let refused = session.commit(&Batch { partition, position: None, appends: vec![append], states: Vec::new() }).unwrap_err();
    assert!(matches!(&refused, LogError::Fatal { reason } if reason.contains("grant this user what `loadline topology acls` prints")), "{refused:?}");
    drop(session);
    // Who may write to a topic is the declaration's to say; each other one is refused it by name, and nobody may write to a topic that is not Loadline's.
    let declared = declaration::declared().unwrap();
    let refused = |user: &str, topics: &[String]| broker.refuses(user, topics);
    assert_eq!(refused("producer", &[format!("{prefix}metrics")]), [None]);
    let keeps_to_its_own = |(user, roles): (&str, &str)| {
        let may_not = declared.iter().filter(|topic| !roles.split(',').any(|role| topic.writers.iter().any(|writer| writer == role)));
        let may_not: Vec<String> = may_not.map(|topic| format!("{prefix}{}", topic.name)).chain(["orders".to_owned()]).collect();
        assert!(user != "producer" || may_not.len() == declared.len(), "all but one, and a foreign one: {may_not:?}");
        for (topic, refused) in may_not.iter().zip(refused(user, &may_not)) {
            assert_eq!(refused.as_deref(), Some("TopicAuthorizationFailed"), "{user} on {topic}");
        }
        let reads = |topic: &declaration::Declared| topic.readers.iter().any(|reader| roles.split(',').any(|role| role == reader));
        for topic in declared.iter().filter(|topic| topic.name != "schemas") {
            let refused = broker.refuses_to_show(user, &prefix, &topic.name);
            assert_eq!(refused.is_none(), reads(topic), "{user} reads {}: {refused:?}", topic.name);
        }
    };
    std::thread::scope(|scope| {
        users.iter().for_each(|user| drop(scope.spawn(|| keeps_to_its_own(*user))));
        scope.spawn(|| is_bounded(&broker, "producer"));
    });
}
