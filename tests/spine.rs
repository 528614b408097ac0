//! From a metric event to running processes, through the program itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::process::Command;

use common::{FLEET, LOADLINE, Running, SLEEPERS, decisions_are_those_of_an_undisturbed_fold, fleet_of_sleepers, policy_yaml, sleepers, wait_for, waiting};

const AT_ONCE: &str =
    "  behavior: { scaleIn: { stabilization: 1s, policies: [{ percent: 100, period: 1s }] }, scaleOut: { policies: [{ replicas: 10, period: 1s }] } }\n";

/// A sample posted over HTTP becomes a pane, a decision, a command and started processes; and less
/// load removes them again.
#[test]
fn a_fleet_follows_its_load() {
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let data = home.path().join("data");
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    wait_for("the fleet to grow to 4", || {
        loadline.post(&waiting(40.0))?;
        (loadline.status(&SLEEPERS)?["current"] == 4 && sleepers(&data) == 4).then_some(())
    });
    wait_for("the fleet to shrink to 2", || {
        loadline.post(&waiting(20.0))?;
        (loadline.status(&SLEEPERS)?["current"] == 2 && sleepers(&data) == 2).then_some(())
    });
    assert_eq!(loadline.stop(), 0);
    assert_eq!(sleepers(&data), 0, "told to, Loadline ends what it started");
}

/// A valid edit takes effect while it runs; an invalid one leaves the last valid policy in force.
#[test]
fn a_policy_is_changed_while_it_runs() {
    let (home, policies) = fleet_of_sleepers(1, AT_ONCE);
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let grows_to = |count: u32| {
        wait_for("the new policy to act", || {
            loadline.post(&waiting(1000.0))?;
            (loadline.status(&SLEEPERS)?["current"] == count).then_some(())
        });
    };
    grows_to(6);
    std::fs::write(policies.join("policy.yaml"), policy_yaml(6, "  behaviour: {}\n")).unwrap();
    let refused = wait_for("the invalid edit to be told", || {
        let alerts = ureq::get(format!("{}/api/v1/status", loadline.url)).call().ok()?.body_mut().read_to_string().ok()?;
        alerts.contains("PolicyInvalid").then_some(alerts)
    });
    assert!(refused.contains("behavior"), "it says what was meant: {refused}");
    assert_eq!(loadline.status(&SLEEPERS).unwrap()["max"], 6, "the last valid policy stays in force");
    std::fs::write(policies.join("policy.yaml"), policy_yaml(8, AT_ONCE)).unwrap();
    grows_to(8);
    assert_eq!(loadline.stop(), 0);
}

/// A change by hand is seen, recorded with who and why, and respected: its cooldown runs, and what is decided is
/// decided from there.
#[test]
fn a_manual_change_is_seen_recorded_and_respected() {
    let rules = "{ stabilization: 0s, cooldown: 600s, policies: [{ percent: 100, period: 1s }] }";
    let (home, _) = fleet_of_sleepers(2, &format!("  behavior: {{ scaleIn: {rules} }}\n"));
    let data = home.path().join("data");
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let asks = |words: &[&str]| {
        let answer = Command::new(LOADLINE).args(words).args(["--server", &loadline.url]).output().unwrap();
        (answer.status.code(), format!("{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr)))
    };
    wait_for("the load to be known", || {
        loadline.post(&waiting(20.0))?;
        (loadline.status(&SLEEPERS)?["verdict"] == "Hold").then_some(())
    });
    let (code, said) = asks(&["scale", &FLEET, "4", "--actor", "ana", "--reason", "launch at noon"]);
    assert_eq!((code, said), (Some(0), format!("{SLEEPERS}: 2 → 4; its policy goes on from there; set mode: Off to hold it\n")));
    wait_for("the change to be respected", || {
        loadline.post(&waiting(20.0))?;
        let status = loadline.status(&SLEEPERS)?;
        (status["current"] == 4 && sleepers(&data) == 4 && status["binding"] == "Cooldown").then_some(())
    });
    wait_for("the record of it", || asks(&["why", &FLEET]).1.contains("ana set 2 → 4: launch at noon").then_some(()));
    assert_eq!(loadline.status(&SLEEPERS).unwrap()["current"], 4);
    // Who says nothing is who they are, not what the environment says of them; under sudo with the person who became it.
    let sudo = Command::new(LOADLINE).args(["scale", &*FLEET, "5", "--server", &loadline.url]).env("USER", "else").env("SUDO_USER", "anna").status();
    assert!(sudo.unwrap().success());
    let me = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let recorded = format!("{} (sudo of anna)", me.trim());
    wait_for("the person in the record", || asks(&["history", &FLEET]).1.contains(&recorded).then_some(()));
    assert_eq!(loadline.stop(), 0);
}

/// While the freeze file is there nothing is commanded, whatever the load says.
#[test]
fn a_freeze_file_stops_the_actuators() {
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("freeze"), "by a test\n").unwrap();
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let frozen = || {
        let url = format!("{}/api/v1/targets/{SLEEPERS}/decisions?limit=50", loadline.url);
        ureq::get(url).call().ok()?.body_mut().read_to_string().ok().filter(|stories| stories.contains("Frozen"))
    };
    wait_for("an outcome that names the freeze", || {
        loadline.post(&waiting(40.0))?;
        frozen()
    });
    assert_eq!(sleepers(&data), 1);
    assert!(loadline.status(&SLEEPERS).unwrap()["frozen"].as_str().unwrap().ends_with("data/freeze"));
    let by_hand = Command::new(LOADLINE).args(["scale", &*FLEET, "3", "--server", &loadline.url]).output().unwrap();
    let said = String::from_utf8_lossy(&by_hand.stderr);
    assert!(by_hand.status.code() == Some(1) && said.contains("frozen by") && said.contains("remove that file"), "{said}");
    std::fs::remove_file(data.join("freeze")).unwrap();
    wait_for("the fleet to grow once the freeze is lifted", || {
        loadline.post(&waiting(40.0))?;
        (sleepers(&data) == 4).then_some(())
    });
    assert_eq!(loadline.stop(), 0);
}

/// `kill -9` in the middle of the load, four times: the decisions go on as if nothing had happened.
/// What was written down equals an undisturbed fold over the exported signals, and no process is doubled.
#[test]
fn killed_at_any_moment_the_decisions_go_on() {
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let data = home.path().join("data");
    let levels = [4_u32, 1, 6, 2, 5, 3, 6, 1];
    for life in levels.chunks(2) {
        let loadline = Running::start(home.path(), &[]);
        for level in life {
            // Held until the fleet has followed, so that there are changes however fast the machine is.
            wait_for("the fleet to follow its load", || {
                loadline.post(&waiting(f64::from(level * 10)))?;
                (loadline.status(&SLEEPERS)?["current"] == *level).then_some(())
            });
        }
        // The kill comes at another moment of the next change in each life.
        for _ in 0..life[0] * 40 {
            loadline.post(&waiting(55.0)).unwrap();
        }
        loadline.kill();
    }
    let last = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let counted = wait_for("the fleet to be as large as it is asked to be", || {
        let status = last.status(&SLEEPERS)?;
        (status["current"].as_u64()? == sleepers(&data) as u64).then(|| status["current"].as_u64())
    });
    assert!(counted.is_some());
    assert_eq!(last.stop(), 0);
    assert_eq!(sleepers(&data), 0, "nothing was doubled and nothing is left");

    let written = decisions_are_those_of_an_undisturbed_fold(&data);
    assert!(written > 10, "only {written} decisions were written");
}

/// What cannot be used is said before anything is written: what, where, and the mend.
#[test]
fn it_does_not_start_on_a_guess() {
    let (home, policies) = fleet_of_sleepers(1, AT_ONCE);
    let starts = |flags: &[&str]| {
        let ended = Command::new(LOADLINE).current_dir(home.path()).arg("run").args(flags).output().unwrap();
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = starts(&["--listen", &port]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&port) && said.contains("--listen"), "{said}");

    std::fs::write(home.path().join("a-file"), "").unwrap();
    let (code, said) = starts(&["--listen", "127.0.0.1:0", "--data", "a-file/data"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a-file") && said.contains("--data"), "{said}");

    let (code, said) = starts(&["--listen", "127.0.0.1:0", "--policies", "nowhere"]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("nowhere"), "{said}");

    std::fs::write(policies.join("fleet.yaml"), "apiVersion: loadline.dev/v1alpha1\nkind: ProcessFleet\nmetadata: { name: x }\nspec: { comand: sleep }\n")
        .unwrap();
    let (code, said) = starts(&["--listen", "127.0.0.1:0", "--policies", "policies"]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("fleet.yaml: line 4, column 9") && said.contains("did you mean `command`?"), "{said}");

    let (code, said) = starts(&["--set", "pane=1ms"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("pane") && said.contains("250ms"), "{said}");
}

/// A slip in a name is told to who sends it, with what was meant, and counted for who watches; it costs no sample.
#[test]
fn samples_that_no_policy_asks_for_are_told() {
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    let slip = waiting(10.0).replace("queue_depth", "queue_dpeth");
    let answer = wait_for("the policies to be known", || loadline.post(&slip).filter(|answer| !answer["unused"].is_null()));
    assert_eq!((&answer["accepted"], &answer["unused"]), (&1.into(), &1.into()), "{answer}");
    assert_eq!(answer["warnings"][0]["reason"], format!("the policy of {SLEEPERS} has no metric queue_dpeth; did you mean queue_depth?"));
    let answer = loadline.post(&waiting(10.0)).unwrap();
    assert_eq!((&answer["unused"], answer["warnings"].as_array().map(Vec::len)), (&0.into(), Some(0)), "{answer}");
    // And however they came, once they are in a pane.
    loadline.post(&waiting(10.0).replace(&*SLEEPERS, "local/ProcessFleet/nobody"));
    let page = || ureq::get(format!("{}/metrics", loadline.url)).call().unwrap().body_mut().read_to_string().unwrap();
    for why in ["no-metric", "no-policy"] {
        let counted = format!("loadline_aggregate_samples_unused_total{{reason=\"{why}\"}} ");
        wait_for(why, || page().lines().find_map(|line| line.strip_prefix(&counted)?.parse::<u32>().ok()).filter(|count| *count > 0));
    }
    assert!(loadline.said().iter().any(|line| line.contains("samples are not used: no policy names target local/ProcessFleet/nobody")));
    assert_eq!(loadline.stop(), 0);
}
