//! The demo's own policy, fleet, workers and load, through the programs themselves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{LOADLINE, Running, decisions_are_those_of_an_undisturbed_fold, wait_for};
use serde_json::Value;

const STOREFRONT: &str = "local/ProcessFleet/storefront";
const METRICS: [&str; 5] = ["cpu", "memory", "response_time", "connections", "queue_depth"];

/// The demo in a folder of its own.
struct Demo {
    home: tempfile::TempDir,
    loadgen: PathBuf,
    port: u16,
}

/// The driver; dropping it ends it.
struct Drive(Child);

impl Drop for Drive {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Demo {
    fn new() -> Demo {
        let loadgen = Path::new(LOADLINE).with_file_name("loadgen");
        assert!(loadgen.is_file(), "{} is not built; run the tests of the whole workspace", loadgen.display());
        let home = tempfile::tempdir().unwrap();
        let example = home.path().join("examples/storefront");
        std::fs::create_dir_all(&example).unwrap();
        for file in ["loadline.yaml", "policy.yaml", "fleet.yaml", "trace.csv"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/storefront").join(file);
            std::fs::copy(from, example.join(file)).unwrap();
        }
        // Ports beside those of a demo that runs on this machine.
        let first = 20_000 + std::process::id() % 120 * 100;
        let fleet = std::fs::read_to_string(example.join("fleet.yaml")).unwrap();
        assert!(fleet.contains("18100-18199"));
        std::fs::write(example.join("fleet.yaml"), fleet.replace("18100-18199", &format!("{first}-{}", first + 99))).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Demo { home, loadgen, port }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data/storefront")
    }

    fn start(&self) -> Running {
        let mut command = Command::new(LOADLINE);
        let path = std::env::join_paths([self.loadgen.parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        command.current_dir(self.home.path()).env("PATH", path).env_remove("LOADLINE_CONFIG");
        command.env("LOADGEN_REPORT", format!("http://127.0.0.1:{}/api/v1/metrics", self.port));
        command.args(["run", "--config", "examples/storefront/loadline.yaml", "--listen", &format!("127.0.0.1:{}", self.port)]);
        Running::spawn(command)
    }

    /// The morning's rise, from five o'clock on.
    fn drive(&self) -> Drive {
        let mut command = Command::new(&self.loadgen);
        command.current_dir(self.home.path()).args(["drive", "--endpoints", "data/storefront/endpoints.json", "--trace", "examples/storefront/trace.csv"]);
        command.args(["--speed", "60", "--scale", "0.5", "--start-minute", "300"]).stdout(Stdio::null());
        Drive(command.spawn().unwrap())
    }
}

fn proposals(status: &Value) -> Option<Vec<&str>> {
    let metrics = status["metrics"].as_array()?;
    Some(metrics.iter().filter(|m| m["proposal"].is_number()).filter_map(|m| m["name"].as_str()).collect())
}

/// All five metrics have a say, the fleet follows the load out, and Loadline is killed in the middle of it: the fleet
/// is found again, and what was decided is what an undisturbed run would have decided.
#[test]
fn the_fleet_of_the_demo_follows_its_load_through_kills() {
    let demo = Demo::new();
    let first = demo.start();
    wait_for("the workers to serve", || (first.status(STOREFRONT)?["ready"].as_u64()? == 3).then_some(()));
    let driving = demo.drive();
    wait_for("all five metrics to ask for replicas", || (proposals(&first.status(STOREFRONT)?)? == METRICS).then_some(()));
    let grown = wait_for("the first scale-out", || first.status(STOREFRONT)?["current"].as_u64().filter(|current| *current > 3));
    first.kill();
    let second = demo.start();
    let again = wait_for("the fleet to be found again", || second.status(STOREFRONT)?["ready"].as_u64().filter(|ready| *ready >= grown));
    assert!(again >= grown);
    wait_for("all five metrics after the kill", || (proposals(&second.status(STOREFRONT)?)? == METRICS).then_some(()));
    second.kill();
    let last = demo.start();
    wait_for("all five metrics again", || (proposals(&last.status(STOREFRONT)?)? == METRICS).then_some(()));
    drop(driving);
    assert_eq!(last.stop(), 0);
    let written = decisions_are_those_of_an_undisturbed_fold(&demo.data());
    assert!(written > 5, "only {written} decisions were written");
}
