//! What Prometheus makes of Loadline: `/metrics` of the running program, scraped by the real thing; alert rules and the
//! dashboard, which only name what is exported; and the pages that tell people of both.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Running, SLEEPERS, fleet_of_sleepers, wait_for, waiting};
use loadline::edge::metrics::families;
use serde_json::Value;

const AT_ONCE: &str =
    "  behavior: { scaleIn: { stabilization: 1s, policies: [{ percent: 100, period: 1s }] }, scaleOut: { policies: [{ replicas: 10, period: 1s }] } }\n";

/// Families of which this story brings no sample: a grant is cut, and snapshots are written, only after minutes; nothing waits for a schema registry.
const LATER: [&str; 3] = ["loadline_limited_grants_total", "loadline_snapshot_last_commit_timestamp_seconds", "loadline_partition_held_seconds"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A program of Prometheus: the machine's, or the one that `tools/setup --tests` unpacked.
fn tool(name: &str) -> Command {
    let tools = std::env::var_os("LOADLINE_TEST_TOOLS").map_or_else(|| repository("target/test-tools"), Into::into);
    let unpacked = tools.join("prometheus/usr/bin").join(name);
    let there = std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|folder| folder.join(name)).find(|path| path.is_file());
    let path = there.or_else(|| unpacked.is_file().then_some(unpacked)).unwrap_or_else(|| panic!("{name} is not there; run tools/setup --tests"));
    Command::new(path)
}

/// Runs `promtool`, with what is to be read from standard input.
fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = tool("promtool").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(said) }
}

fn scrape(loadline: &Running, accept: &str) -> Option<(String, String)> {
    let mut answer = ureq::get(format!("{}/metrics", loadline.url)).header("accept", accept).call().ok()?;
    let format = answer.headers().get("content-type")?.to_str().ok()?.to_owned();
    Some((format, answer.body_mut().read_to_string().ok()?))
}

/// The value of a sample; `None` where it is absent.
fn value(page: &str, sample: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

/// The names of all samples of a page.
fn names(page: &str) -> BTreeSet<String> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// A fleet that has followed its load, with a policy for a target that is not there and a request that was refused.
struct Story {
    _home: tempfile::TempDir,
    loadline: Running,
    page: String,
}

fn story() -> Story {
    let (home, policies) = fleet_of_sleepers(1, AT_ONCE);
    let nobody = "apiVersion: loadline.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: { namespace: local, name: nobody }\nspec:\n  target: { kind: ProcessFleet, name: nobody }\n  replicas: { min: 1, max: 9 }\n  metrics: [{ name: cpu, track: { perReplica: 1 } }]\n";
    std::fs::write(policies.join("nobody.yaml"), nobody).unwrap();
    // A second metric, with limits in place of a target.
    let policy = policies.join("policy.yaml");
    let delay = "    - { name: delay, kind: Gauge, unit: seconds, threshold: { scaleOutAbove: 10s, scaleInBelow: 1ms, for: 30s }, window: 1s }\n";
    std::fs::write(&policy, std::fs::read_to_string(&policy).unwrap().replace("  metrics:\n", &format!("  metrics:\n{delay}"))).unwrap();
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    assert!(loadline.post("no sample\n").is_none());
    let page = wait_for("the metrics of a fleet that has followed its load, and the alert about the target that is not there", || {
        loadline.post(&format!("{}{{\"target\":\"{SLEEPERS}\",\"metric\":\"delay\",\"kind\":\"Gauge\",\"value\":0.5}}\n", waiting(40.0)))?;
        let (_, page) = scrape(&loadline, "*/*")?;
        let of = |name: &str| value(&page, &format!("{name}{{target=\"{SLEEPERS}\"}}"));
        let applied = value(&page, &format!("loadline_commands_total{{target=\"{SLEEPERS}\",result=\"Applied\"}}"))?;
        let alert = value(&page, "loadline_alerts_firing{alert=\"TargetNotSeen\",severity=\"Warning\",target=\"local/ProcessFleet/nobody\"}")?;
        (of("loadline_target_status_ready_replicas") == Some(4.0) && applied >= 1.0 && alert >= 1.0).then_some(page)
    });
    Story { _home: home, loadline, page }
}

/// The numbers are those of the fleet; what is not known is absent; and both formats are what they say.
#[test]
fn metrics_tell_what_the_program_knows() {
    let Story { _home, loadline, page } = story();
    let labelled = |name: &str, more: &str| value(&page, &format!("{name}{{target=\"{SLEEPERS}\"{more}}}"));
    for (name, more, expected) in [
        ("loadline_target_spec_min_replicas", "", 1.0),
        ("loadline_target_spec_max_replicas", "", 6.0),
        ("loadline_target_status_current_replicas", "", 4.0),
        ("loadline_target_status_desired_replicas", "", 4.0),
        ("loadline_target_metric_value", ",metric=\"queue_depth\",unit=\"count\"", 10.0),
        ("loadline_target_metric_target_value", ",metric=\"queue_depth\",unit=\"count\"", 10.0),
        ("loadline_target_metric_target_value", ",metric=\"delay\",unit=\"seconds\"", 10.0),
        ("loadline_target_metric_scale_in_below", ",metric=\"delay\",unit=\"seconds\"", 0.001),
        ("loadline_target_metric_status", ",metric=\"queue_depth\",status=\"Ok\",while_blind=\"HoldIn\"", 1.0),
        ("loadline_target_frozen", "", 0.0),
        ("loadline_decisions_total", ",verdict=\"ScaleOut\",step=\"Combine\"", 1.0),
        ("loadline_commands_total", ",result=\"Failed\"", 0.0),
    ] {
        assert_eq!(labelled(name, more), Some(expected), "{name}{more}");
    }
    assert!(labelled("loadline_target_metric_age_seconds", ",metric=\"queue_depth\"").unwrap() < 60.0);
    assert!(value(&page, "loadline_ingest_requests_refused_total{reason=\"unusable\"}").unwrap() >= 1.0);
    assert!(value(&page, "loadline_log_commit_duration_seconds_count").unwrap() > 0.0);
    for unknown in ["loadline_target_status_current_replicas", "loadline_target_status_desired_replicas", "loadline_target_data_age_seconds"] {
        let nobody = format!("{unknown}{{target=\"local/ProcessFleet/nobody\"");
        assert!(!page.contains(&nobody), "nobody has seen its replicas: {unknown} is absent, not 0");
    }

    let (format, text) = scrape(&loadline, "text/plain;version=0.0.4").unwrap();
    assert_eq!(format, "text/plain; version=0.0.4; charset=utf-8");
    promtool(&["check", "metrics"], &text).unwrap_or_else(|said| panic!("{said}\n{text}"));
    let (format, open) = scrape(&loadline, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5").unwrap();
    assert_eq!(format, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.ends_with("# EOF\n"));
    assert_eq!(names(&text), names(&open), "both have the same samples");
    assert_eq!(loadline.stop(), 0);
}

/// A free port of loopback.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A real Prometheus scrapes it in OpenMetrics, answers queries about it, and its rules are in order on real data.
#[test]
fn prometheus_scrapes_it() {
    let Story { _home, loadline, .. } = story();
    let home = tempfile::tempdir().unwrap();
    let rules = repository("topology/prometheus/loadline.rules.yml");
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\nscrape_configs:\n  - job_name: loadline\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
        rules.display(),
        loadline.url.trim_start_matches("http://")
    );
    std::fs::write(home.path().join("prometheus.yml"), config).unwrap();
    let url = format!("127.0.0.1:{}", free_port());
    let mut command = tool("prometheus");
    command.current_dir(home.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", &format!("--web.listen-address={url}")]);
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let mut prometheus = Killed(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let mut get = |path: &str| -> Option<Value> {
        if let Some(ended) = prometheus.0.try_wait().unwrap() {
            panic!("prometheus ended with {ended}: {}", std::fs::read_to_string(home.path().join("log")).unwrap());
        }
        let mut answer = ureq::get(format!("http://{url}/api/v1/{path}")).call().ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    };
    wait_for("the target to be up", || {
        let targets = get("targets")?;
        let target = targets["data"]["activeTargets"].get(0)?.clone();
        assert!(target["lastError"] == "" || target["health"] != "down", "the scrape fails: {}", target["lastError"]);
        (target["health"] == "up").then_some(())
    });
    let query = format!("query?query=loadline_target_status_current_replicas%7Btarget%3D%22{}%22%7D", SLEEPERS.replace('/', "%2F"));
    wait_for("the fleet's count", || {
        let answer = get(&query)?;
        (answer["data"]["result"].get(0)?["value"][1] == "4").then_some(())
    });
    wait_for("the rules to be evaluated, without an error", || {
        let groups = get("rules")?;
        let rules = groups["data"]["groups"].get(0)?["rules"].as_array()?.clone();
        let evaluated = rules.iter().all(|rule| rule["lastEvaluation"].as_str().is_some_and(|at| !at.starts_with("0001")));
        rules.iter().for_each(|rule| assert!(rule["health"] != "err", "{}: {}", rule["name"], rule["lastError"]));
        (evaluated && !rules.is_empty()).then_some(())
    });
    assert_eq!(loadline.stop(), 0);
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The alerts by name, as (expression, runbook).
fn alerts() -> BTreeMap<String, (String, String)> {
    let rules = yaml("topology/prometheus/loadline.rules.yml");
    let rules = rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect::<Vec<_>>();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules.iter().map(|rule| (text(&rule["alert"]), (text(&rule["expr"]), text(&rule["annotations"]["runbook"])))).collect()
}

/// Each alert has a test in which it fires and one in which it does not, and a section of its own in the runbook.
#[test]
fn every_alert_is_tested_and_has_a_runbook() {
    let (operations, tests) = (read("docs/operations.md"), yaml("topology/prometheus/loadline.rules.test.yml"));
    let mut fires: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for test in tests["tests"].as_array().unwrap().iter().flat_map(|test| test["alert_rule_test"].as_array().unwrap()) {
        let (fired, silent) = fires.entry(test["alertname"].as_str().unwrap().to_owned()).or_default();
        let none = test["exp_alerts"].as_array().unwrap().is_empty();
        (*fired, *silent) = (*fired || !none, *silent || none);
    }
    for (alert, (_, runbook)) in alerts() {
        assert_eq!(fires.get(&alert), Some(&(true, true)), "{alert} needs a test in which it fires, and one in which it does not");
        assert_eq!(runbook, format!("docs/operations.md#{}", alert.to_lowercase()));
        let section = operations.split(&format!("\n### {alert}\n")).nth(1).unwrap_or_else(|| panic!("docs/operations.md has no section {alert}"));
        assert!(section.split("\n#").next().unwrap().trim().len() > 80, "the section of {alert} says what to do");
    }
    let folder = repository("topology/prometheus");
    let check = |arguments: &[&str]| {
        let output = tool("promtool").current_dir(&folder).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    };
    check(&["check", "rules", "loadline.rules.yml"]);
    check(&["check", "config", "prometheus.yml"]);
    check(&["test", "rules", "loadline.rules.test.yml"]);
}

/// Every expression of the dashboard, as Grafana would send it.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("topology/grafana/loadline.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().unwrap().replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$target", ".*"));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().filter(|v| v["type"] == "query") {
        let definition = variable["definition"].as_str().unwrap();
        let expression = definition.trim_start_matches("label_values(").rsplit_once(',').unwrap().0;
        expressions.push(expression.replace("$instance", ".*"));
    }
    expressions
}

/// The names of series in an expression.
fn series(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("loadline_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Each expression of the dashboard is valid, and each name in it and in the rules is exported by the running program.
#[test]
fn rules_and_dashboard_name_only_what_is_exported() {
    let Story { _home, loadline, page } = story();
    let exported = names(&page);
    let announced: BTreeSet<String> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect();
    let expressions: Vec<String> = dashboard().into_iter().chain(alerts().into_values().map(|(expression, _)| expression)).collect();
    assert!(expressions.len() > 50, "{}", expressions.len());
    for expression in &expressions {
        for name in series(expression) {
            let there = exported.contains(&name) || LATER.contains(&name.as_str()) && announced.contains(&name);
            assert!(there, "{name} is not exported: {expression}");
        }
    }
    let rules: Vec<Value> = dashboard().iter().enumerate().map(|(n, expr)| serde_json::json!({ "record": format!("dashboard:{n}"), "expr": expr })).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    // JSON is YAML.
    std::fs::write(file.path(), serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "").unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(loadline.stop(), 0);
}

/// The configurations that come with it are ones that Prometheus takes.
#[test]
fn prometheus_takes_its_configurations() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(repository("topology/prometheus/loadline.rules.yml"), folder.path().join("loadline.rules.yml")).unwrap();
    for path in ["topology/prometheus/prometheus.yml", "topology/compose/prometheus.yml"] {
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, read(path).replace("/etc/prometheus/", "")).unwrap();
        let said = promtool(&["check", "config", config.to_str().unwrap()], "").unwrap_or_else(|said| panic!("{path}: {said}"));
        assert!(said.contains("1 rule files found"), "{path}: {said}");
    }
}

/// Every family is in docs/metrics.md, which names no other, and the running program has samples of each.
#[test]
fn every_family_is_documented_and_exported() {
    let Story { _home, loadline, page } = story();
    let documented: BTreeSet<String> = read("docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let families: BTreeSet<String> = families::ALL.iter().map(|family| family.sample()).collect();
    assert_eq!(documented, families);
    let exported = names(&page);
    let missing: Vec<&String> =
        families.iter().filter(|name| !exported.contains(*name) && !exported.contains(&format!("{name}_count")) && !LATER.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "no sample of {missing:?} in\n{page}");
    assert_eq!(loadline.stop(), 0);
}
