//! The command line as shells and people know it: completions, manual pages, and the tests of the examples.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

#[path = "common/files.rs"]
mod files;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use files::files_below;

const LOADLINE: &str = env!("CARGO_BIN_EXE_loadline");

fn loadline(args: &[&str]) -> Output {
    Command::new(LOADLINE).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("LOADLINE_CONFIG").output().unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = loadline(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Where a program is missing that a test needs, the test fails with the command that installs it.
#[track_caller]
fn needs(program: &str) {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status().unwrap().success();
    assert!(there, "{program} is missing; `tools/setup --tests` installs it");
}

/// The commands that `loadline --help` lists.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.map(ToOwned::to_owned).collect()
}

/// Bash completes commands, commands below them, and the words of a flag.
#[test]
fn bash_completes() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("loadline.bash");
    std::fs::write(&script, printed(&["completions", "bash"])).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
    for (words, offered) in [
        (vec!["loadline", "pol"], "policy"),
        (vec!["loadline", "policy", "che"], "check"),
        (vec!["loadline", "policy", "check", "--output", "sa"], "sarif"),
        (vec!["loadline", "completions", "f"], "fish"),
        (vec!["loadline", "schema", "Process"], "ProcessFleet"),
    ] {
        let last = words.len() - 1;
        let complete = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={last}; _loadline loadline {} {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.join(" "),
            words[last],
            words[last - 1]
        );
        let output = Command::new("bash").args(["--norc", "-c", &complete]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(answer.lines().any(|line| line == offered), "{words:?}: {answer} {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The scripts of zsh and fish name every command, and are read by their shells.
#[test]
fn zsh_and_fish_know_every_command() {
    for (shell, begins, check) in [("zsh", "#compdef loadline", "-n"), ("fish", "# Print an optspec", "--no-execute")] {
        let text = printed(&["completions", shell]);
        assert!(text.starts_with(begins), "{shell}: {}", text.lines().next().unwrap());
        for command in commands() {
            assert!(text.contains(&command), "{shell} does not know {command}");
        }
        needs(shell);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let output = Command::new(shell).arg(check).arg(file.path()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // The files of the folder are no targets.
    let zsh = printed(&["completions", "zsh"]);
    for target in zsh.lines().filter(|line| line.contains(":target -- ")) {
        assert!(!target.contains("_files") && !target.contains("_default"), "{target}");
    }
    assert!(zsh.lines().filter(|line| line.contains(":target -- ")).count() >= 4, "{zsh}");
    assert_eq!(loadline(&["completions", "tcsh"]).status.code(), Some(2));
}

/// There is a manual page for every command, and the programs that show them have nothing to say against any.
#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("man/man1");
    let made = Command::new(LOADLINE).arg("man").arg(&into).env("SOURCE_DATE_EPOCH", "1772323200").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let page = std::fs::read_to_string(into.join("loadline.1")).unwrap();
    assert!(page.contains(".TH loadline 1 2026-03-01 \"Loadline "), "{page}");
    let pages: BTreeSet<String> = std::fs::read_dir(&into).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    for command in commands().into_iter().filter(|c| c != "help") {
        assert!(pages.contains(&format!("loadline-{command}.1")), "{command}: {pages:?}");
    }
    assert!(pages.contains("loadline.1") && pages.contains("loadline-policy-test.1"), "{pages:?}");
    let test = std::fs::read_to_string(into.join("loadline-policy-test.1")).unwrap();
    for part in [".TH loadline-policy-test 1", ".SH SYNOPSIS", ".SH EXIT STATUS"] {
        assert!(test.contains(part), "{part}: {test}");
    }
    needs("mandoc");
    for page in &pages {
        let path = into.join(page);
        let reads = |flags: &[&str]| Command::new("mandoc").args(flags).arg(&path).output().unwrap();
        let checked = reads(&["-T", "lint", "-W", "error"]);
        assert!(checked.status.success(), "{page}: {}", String::from_utf8_lossy(&checked.stdout));
        let shown = String::from_utf8(reads(&["-T", "utf8"]).stdout).unwrap();
        assert!(shown.contains("loadline"), "{page}: {shown}");
    }
    assert_eq!(loadline(&["man", "/dev/null/man"]).status.code(), Some(2));
}

/// Every policy of the examples has tests, and they pass.
#[test]
fn the_policies_of_the_examples_pass_their_tests() {
    let files = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), "yaml");
    let (tests, others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(|f| std::fs::read_to_string(f).unwrap().contains("kind: PolicyTest"));
    let tested: Vec<(PathBuf, String)> = tests.iter().map(|t| (t.parent().unwrap().to_path_buf(), std::fs::read_to_string(t).unwrap())).collect();
    for policy in others.iter().filter(|f| std::fs::read_to_string(f).unwrap().contains("kind: ScalingPolicy")) {
        let name = policy.file_name().unwrap().to_str().unwrap();
        let named = tested.iter().any(|(folder, text)| policy.parent().unwrap() == folder && text.contains(name));
        assert!(named, "{} has no test", policy.display());
    }
    let paths: Vec<&str> = tests.iter().map(|t| t.to_str().unwrap()).collect();
    let output = loadline(&[&["policy", "test"], &paths[..]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains(": 0 passed"), "{text}");
}

/// What is said of a place or a flag that another command has names the one that this command has, and no value.
#[cfg(feature = "kafka")]
#[test]
fn a_slip_about_kafka_is_answered_with_what_was_meant() {
    let kafka = "--brokers HOST:PORT or --kafka-config FILE";
    let slips: [(&[&str], &str); 6] = [
        (&["export", "--from", "kafka"], kafka),
        (&["export", "--from", "Kafka", "--brokers", "127.0.0.1:1"], kafka),
        (&["replay", "--policy", "examples/storefront/policy.yaml", "--data", "data", "--from", "kafka"], kafka),
        (&["run", "--kafka-set", "sasl.password=hush"], "--set kafka.config=FILE"),
        (&["run", "--kafka-config", "hush"], "--set kafka.config=FILE"),
        (&["config", "--prefix", "hush."], "--set kafka.prefix=PREFIX"),
    ];
    for (slip, mend) in slips {
        let output = loadline(slip);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{slip:?}: {said}");
        assert!(said.contains(mend) && !said.contains("hush"), "{slip:?}: {said}");
    }
    for help in ["run", "config"] {
        assert!(!printed(&[help, "--help"]).contains("--kafka-set"), "{help}");
    }
}

/// What `run` refuses of Kafka before it asks a broker, `config` refuses as well, below where each value comes from.
#[cfg(feature = "kafka")]
#[test]
fn config_shows_what_run_would_refuse_of_kafka() {
    let given = ["--brokers", "127.0.0.1:1", "--set", "kafka.partitions=0"];
    let [config, run] = ["config", "run"].map(|command| loadline(&[&[command], &given[..]].concat()));
    let said = String::from_utf8(config.stderr).unwrap();
    assert_eq!((config.status.code(), run.status.code()), (Some(2), Some(2)), "{said}");
    assert_eq!(said, String::from_utf8(run.stderr).unwrap());
    assert!(said.contains("--set kafka.partitions: kafka.partitions: 0: not a number from 1 to 10000"), "{said}");
    let shown = String::from_utf8(config.stdout).unwrap();
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["kafka.partitions", "0", "--set", "kafka.partitions"])), "{shown}");
    let given = ["config", "--brokers", "127.0.0.1:1", "--set", "kafka.registry.url=https://127.0.0.1:1", "--set", "kafka.registry.ca=Cargo.toml"];
    let registry = loadline(&given);
    let said = String::from_utf8(registry.stderr).unwrap();
    assert_eq!(registry.status.code(), Some(2), "{said}");
    assert!(said.contains("--set kafka.registry.ca: the authorities of a schema registry are a file of certificates"), "{said}");
}
