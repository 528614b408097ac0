//! `loadgen bench kafka` in small: every scenario on a real broker, and every figure in what it prints. Of speed nothing is asserted.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Each figure of a scenario, by the beginning of its name; those with a count are held against it.
const FIGURES: [(&str, &str); 24] = [
    ("aggregate", "1 a record: bare consumer, processor time a record"),
    ("aggregate", "1 a record: bare consumer, records a second"),
    ("aggregate", "1 a record: aggregate, processor time a record"),
    ("aggregate", "1 a record: aggregate, of the bare consumer's"),
    ("aggregate", "1 a record: aggregate, records a second"),
    ("aggregate", "1 a record: records told in marks"),
    ("aggregate", "1 a record: samples in panes"),
    ("aggregate", "100 a record: bare consumer, processor time a record"),
    ("aggregate", "100 a record: aggregate, samples a processor second"),
    ("aggregate", "100 a record: aggregate, samples a second"),
    ("aggregate", "100 a record: samples in panes"),
    ("commits", "a commit of 10 records and a position: p50 of 20"),
    ("commits", "a commit of 10 records and a position: p99 of 20"),
    ("commits", "records appended by them"),
    ("steady", "samples a second, of 4 targets"),
    ("steady", "from the end of a pane to the command, 1 partitions: p50"),
    ("steady", "from the end of a pane to the command, 1 partitions: p99"),
    ("hand-over", "partitions of the killed process"),
    ("hand-over", "killed, until each of them is decided on again"),
    ("hand-over", "targets restored from snapshots"),
    ("hand-over", "targets restored a second"),
    ("idle", "all roles, 3 partitions: share of a core"),
    ("idle", "all roles, 3 partitions: threads"),
    ("idle", "all roles, 3 partitions: resident memory"),
];

/// Only small figures may be too little to measure: of the clock that counts processor time in hundredths of a second, and of one commit.
const MAY_BE_UNKNOWN: &str = "aggregate, ";

#[test]
fn every_scenario_runs_and_its_counts_add_up() {
    let loadgen = Path::new(env!("CARGO_BIN_EXE_loadgen"));
    let loadline = loadgen.with_file_name("loadline");
    assert!(loadline.exists(), "{} is what is measured: cargo build -p loadline", loadline.display());
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = Command::new(loadgen);
    command.args(["bench", "kafka", "--output", "json", "--samples", "20000", "--commits", "20", "--rate", "500", "--for", "2s", "--targets", "4"]);
    command.args(["--states", "20", "--undisturbed", "0s", "--partitions", "3", "--idle", "1s", "--idle-partitions", "3", "--data"]).arg(data.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = report["figures"].as_array().unwrap();
    for (scenario, what) in FIGURES {
        let named: Vec<&Value> = figures.iter().filter(|figure| figure["scenario"] == scenario && figure["what"].as_str().unwrap().starts_with(what)).collect();
        assert_eq!(named.len(), 1, "{scenario}: {what}: {report:#}");
        assert!(named[0]["value"].is_number() || what.contains(MAY_BE_UNKNOWN), "{scenario}: {what}: {report:#}");
    }
    // What is exact is a count, and every count adds up.
    let counts: Vec<&Value> = figures.iter().filter(|figure| figure["target"]["exactly"].is_number()).collect();
    assert_eq!(counts.len(), 7, "{report:#}");
    counts.into_iter().for_each(|count| assert_eq!(count["reached"], true, "{count}"));
    for targeted in figures.iter().filter(|figure| !figure["target"].is_null()) {
        assert_eq!(targeted["reached"].is_null(), targeted["value"].is_null(), "{targeted}");
    }
    assert_eq!(report["seed"], 1);
    assert_eq!(report["optimised"], !cfg!(debug_assertions));
}
