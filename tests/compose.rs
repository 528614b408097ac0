//! `docker-compose.yml` and `Dockerfile` against the program: there is no container engine where the tests run, so what they say is held
//! against what the program, its example and its other files say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use clap::Parser as _;
use common::{LOADLINE, Running};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Service {
    image: String,
    build: Option<String>,
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Value>,
    network_mode: Option<String>,
    deploy: Option<Value>,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Compose {
    serde_saphyr::from_str(&read("docker-compose.yml")).unwrap_or_else(|error| panic!("{error}"))
}

/// The services that run `loadline run`, each with its effective configuration.
fn processes(compose: &Compose) -> BTreeMap<String, Settings> {
    let ours = compose.services.iter().filter(|(_, service)| service.build.is_some() && service.entrypoint.is_none());
    let runs = ours.filter(|(_, service)| service.command.first().is_some_and(|command| command == "run"));
    let configured = runs.map(|(name, service)| (name.clone(), settings(name, &service.command[1..], &service.environment)));
    configured.collect()
}

/// Effective settings by their paths.
type Settings = BTreeMap<String, String>;

fn settings(of: &str, flags: &[String], environment: &BTreeMap<String, String>) -> Settings {
    #[derive(Deserialize)]
    struct Setting {
        path: String,
        value: String,
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(LOADLINE);
    command.current_dir(folder.path()).arg("config").args(flags).args(["--output", "json"]).env_remove("LOADLINE_CONFIG").envs(environment);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{of}: {}", String::from_utf8_lossy(&output.stderr));
    let settings: Vec<Setting> = serde_json::from_slice(&output.stdout).unwrap();
    settings.into_iter().map(|setting| (setting.path, setting.value)).collect()
}

fn roles(settings: &Settings) -> Vec<String> {
    settings["roles"].split(", ").map(ToOwned::to_owned).collect()
}

/// The line of a file that begins so, without that.
fn after<'a>(text: &'a str, beginning: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(beginning)).unwrap_or_else(|| panic!("no line begins with {beginning:?}"))
}

#[test]
fn images_are_pinned_and_of_the_versions_that_are_tested() {
    let compose = compose();
    let dockerfile = read("Dockerfile");
    let mut images: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).map(|line| line.split(' ').next().unwrap()).collect();
    images.extend(compose.services.values().filter(|service| service.build.is_none()).map(|service| service.image.as_str()));
    for image in &images {
        let (_, tag) = image.split_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        let numbers = tag.trim_start_matches('v').split(['.', '-']).filter(|part| part.parse::<u32>().is_ok()).count();
        assert!(numbers >= 3 || tag.contains("-20"), "{image} does not name one version");
    }
    let rust = after(&read("rust-toolchain.toml"), "channel = ").trim_matches('"').to_owned();
    assert!(images.contains(&format!("rust:{rust}-bookworm").as_str()), "{images:?}: rust-toolchain.toml has {rust}");
    assert!(images.iter().any(|image| image.starts_with("debian:bookworm-")), "{images:?}: built and run on the same system");
    let kafka = after(&read("tests/env/kafka.sh"), "version=").to_owned();
    assert_eq!(compose.services["kafka"].image, format!("apache/kafka:{kafka}"), "the broker that is tested");
    let registry = after(&read("tests/env/registry.sh"), "version=").to_owned();
    assert_eq!(compose.services["registry"].image, format!("apicurio/apicurio-registry-kafkasql:{registry}"), "the registry that is tested");
    // What is built here is built by everybody who asks for it, and nobody else's is taken for it.
    for service in compose.services.values().filter(|service| service.build.is_some()) {
        assert_eq!((service.build.as_deref(), service.image.as_str()), (Some("."), "loadline:local"));
    }
}

#[test]
fn its_processes_are_a_whole_installation() {
    let compose = compose();
    let processes = processes(&compose);
    let mut shared: Vec<String> = Vec::new();
    for (name, settings) in &processes {
        let own = roles(settings);
        let many = compose.services[name].deploy.as_ref().is_some_and(|deploy| deploy["replicas"].as_u64() > Some(1));
        assert!(!many || !own.contains(&"policies".to_owned()), "{name}: the policies are one process's");
        shared.extend(own);
        assert_eq!(settings["kafka.brokers"], "kafka:9092", "{name}");
        assert_eq!(settings["listen"], "0.0.0.0:8080", "{name}: whoever scrapes it is in another container");
    }
    let all: BTreeSet<&String> = shared.iter().collect();
    assert_eq!(all.len(), shared.len(), "each role is one service's: {shared:?}");
    let every = roles(&settings("the default", &[], &BTreeMap::new()));
    assert_eq!(all, every.iter().collect(), "every role is somebody's");

    // All processes of an installation have these in common; here they are the demo's own.
    let example: Value = serde_saphyr::from_str(&read("examples/storefront/loadline.yaml")).unwrap();
    for settings in processes.values() {
        for (name, wanted) in [("pane", &example["pane"]), ("grace", &example["grace"]), ("removals.period", &example["removals"]["period"])] {
            assert_eq!(&settings[name], wanted, "{name}");
        }
    }
}

#[test]
fn the_cluster_is_one_that_loadline_runs_on() {
    let compose = compose();
    let kafka = &compose.services["kafka"].environment;
    assert_eq!(kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"], "false");
    assert!(kafka["KAFKA_ADVERTISED_LISTENERS"].contains("INSIDE://kafka:9092"), "where Loadline finds it");
    let open = &compose.services["kafka"].ports[0];
    let outside = open.rsplit_once(':').unwrap().0;
    assert!(kafka["KAFKA_ADVERTISED_LISTENERS"].contains(&format!("OUTSIDE://{outside}")), "where others find it: {open}");
    // The command that creates the topics is understood, and creates them in the shape that the processes expect.
    let topics = &compose.services["topics"];
    let schemas = &compose.services["schemas"];
    for command in [&topics.command, &schemas.command] {
        let parsed = loadline::cli::Cli::try_parse_from(std::iter::once("loadline").chain(command.iter().map(String::as_str)));
        assert!(parsed.is_ok(), "{}", parsed.err().unwrap());
    }
    // One registry, where the image has its interface.
    let registry = schemas.command.last().unwrap();
    assert!(registry.starts_with("http://registry:8080/") && compose.services["registry"].ports[0].ends_with(":8080"), "{registry}");
    assert!(processes(&compose).values().all(|settings| settings["kafka.registry.url"] == *registry));
    let broker = &compose.services["registry"].environment["KAFKA_BOOTSTRAP_SERVERS"];
    assert_eq!(Some(broker), topics.command.iter().skip_while(|word| *word != "--brokers").nth(1));
    let replicas = topics.command.iter().skip_while(|word| *word != "--replication").nth(1);
    for name in processes(&compose).keys() {
        let service = &compose.services[name];
        assert_eq!(service.environment.get("LOADLINE_KAFKA_REPLICATION"), replicas, "{name}");
        assert!(service.depends_on.contains_key("topics"), "{name} starts when the topics are there");
    }
}

#[test]
fn nothing_is_open_to_other_machines_and_every_file_is_there() {
    let compose = compose();
    let mut opened = BTreeSet::new();
    for (name, service) in &compose.services {
        for port in &service.ports {
            // Inside, where what runs there listens: Loadline by its settings, the broker by its own, the others where their documentation says.
            let inside = match name.as_str() {
                "kafka" => compose.services["kafka"].environment["KAFKA_LISTENERS"].split("OUTSIDE://:").nth(1).unwrap().split(',').next().unwrap().to_owned(),
                "registry" => "8080".to_owned(),
                "prometheus" => "9090".to_owned(),
                "alertmanager" => "9093".to_owned(),
                process => processes(&compose)[process]["listen"].rsplit_once(':').unwrap().1.to_owned(),
            };
            let [address, outside, at] = port.split(':').collect::<Vec<_>>()[..] else { panic!("{name} opens {port}") };
            assert_eq!((address, at), ("127.0.0.1", inside.as_str()), "{name} opens {port}");
            assert!(opened.insert(outside), "{name} opens {port}, which another one has");
        }
        for volume in &service.volumes {
            let from = volume.split(':').next().unwrap();
            let there = if from.starts_with('.') { Path::new(env!("CARGO_MANIFEST_DIR")).join(from).exists() } else { compose.volumes.contains_key(from) };
            assert!(there, "{name} mounts {from}, which is not there");
        }
    }
    // The policies that are named are those of the example, where it is mounted.
    let front = &compose.services["front"];
    for path in front.command.iter().filter_map(|word| word.strip_prefix("--policies=/etc/loadline/")) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/storefront").join(path).is_file(), "{path}");
    }
    // The load's flags are fields of what it is told, and it reaches the fleet's processes.
    let load = &compose.services["load"];
    assert_eq!((load.entrypoint.as_deref(), load.network_mode.as_deref()), (Some(&["loadgen".to_owned()][..]), Some("service:front")));
    let known = read("loadgen/src/drive.rs");
    for flag in load.command.iter().filter_map(|word| word.strip_prefix("--")) {
        let field = format!("    pub {}:", flag.split('=').next().unwrap().replace('-', "_"));
        assert!(known.contains(&field), "loadgen drive has no --{flag}");
    }
}

#[test]
fn prometheus_finds_every_process_and_the_rules() {
    let compose = compose();
    let config: Value = serde_saphyr::from_str(&read("topology/compose/prometheus.yml")).unwrap();
    let job = &config["scrape_configs"][0];
    let alone: Value = serde_saphyr::from_str(&read("topology/prometheus/prometheus.yml")).unwrap();
    assert_eq!(job["job_name"], alone["scrape_configs"][0]["job_name"], "the rules ask for it by this name");
    let found: BTreeSet<&str> = job["dns_sd_configs"][0]["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let processes = processes(&compose);
    assert_eq!(found, processes.keys().map(String::as_str).collect());
    assert_eq!(job["dns_sd_configs"][0]["port"], 8080);
    let mounted: BTreeSet<String> =
        compose.services["prometheus"].volumes.iter().filter_map(|volume| volume.split(':').nth(1)).map(ToOwned::to_owned).collect();
    for rules in config["rule_files"].as_array().unwrap() {
        assert!(mounted.contains(rules.as_str().unwrap()), "{rules} is not mounted: {mounted:?}");
    }
    let told = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0].as_str().unwrap();
    assert!(compose.services.contains_key(told.split(':').next().unwrap()), "{told}");
    let alertmanager: Value = serde_saphyr::from_str(&read("topology/compose/alertmanager.yml")).unwrap();
    let receivers: Vec<&Value> = alertmanager["receivers"].as_array().unwrap().iter().map(|receiver| &receiver["name"]).collect();
    assert!(receivers.contains(&&alertmanager["route"]["receiver"]), "{receivers:?}");
}

/// The image's own check, run against the program: healthy while it runs, and not after.
#[test]
fn the_health_check_tells_a_process_that_is_ready_from_none() {
    let dockerfile = read("Dockerfile");
    let check = dockerfile.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
    let check: Vec<String> = serde_json::from_str(check.split_once(" CMD ").unwrap().1).unwrap();
    assert!(dockerfile.contains("\nEXPOSE 8080\n") && check[2].contains("/8080"));
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("policies")).unwrap();
    let program = Running::start(directory.path(), &[]);
    let port = program.url.rsplit(':').next().unwrap().to_owned();
    let is_healthy = || Command::new(&check[0]).arg(&check[1]).arg(check[2].replace("/8080", &format!("/{port}"))).status().unwrap().success();
    assert!(is_healthy());
    program.kill();
    assert!(!is_healthy());
}
