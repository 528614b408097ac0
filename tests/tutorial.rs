//! `docs/tutorial.md`, done as a newcomer does it: its commands run in order in one shell, and what they print is held against
//! what the page shows.
//!
//! A `text` block is what the `sh` block before it prints, to the letter. A `text example` block is the same but for numbers and times.
//! `README.md` likewise, but for the blocks that say that they are not run.
//!
//! Two things are not as the reader has them: the port, since tests run beside each other, and `make run`, which would build
//! for minutes: it is looked up in the Makefile, and the demo that it starts has tests of its own (`tests/storefront.rs`,
//! `loadgen/tests/demo.rs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;
#[path = "common/page.rs"]
mod page;

use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{LOADLINE, Running, wait_for};
use loadline::runtime::clock::Stopwatch;
use page::{Block, Page};
use rustix::process::{Pid, Signal, kill_process_group};

/// The address of the page.
const ADDRESS: &str = "127.0.0.1:8080";
/// Where the reader of the page works.
const HOME: &str = "/home/ana";
/// Stands before what a block prints.
const BEGINS: &str = "@@@ line ";
/// How long the whole page may take: five times what it takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(480);

/// A shell, and everything that it started. Dropping it ends all of it.
struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        // Loadline ends its fleet on SIGTERM.
        let group = Pid::from_child(&self.0);
        let _ = kill_process_group(group, Signal::TERM);
        drop(self.0.wait());
        let waiting = Stopwatch::start();
        while rustix::process::test_kill_process_group(group).is_ok() && waiting.elapsed() < Duration::from_secs(40) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// A command, and what the page says that it prints.
struct Step<'a> {
    run: &'a Block,
    shown: Option<&'a Block>,
}

fn steps(page: &Page) -> Vec<Step<'_>> {
    let shell = |b: &&Block| b.info == "sh";
    let next = |i: usize| page.blocks.get(i + 1).filter(|b| b.info.starts_with("text"));
    let blocks = page.blocks.iter().enumerate();
    blocks.filter(|(_, b)| shell(b) && !b.text.contains("make run")).map(|(i, run)| Step { run, shown: next(i) }).collect()
}

/// The page as one script: each block says where it begins, and ends the script where it fails unless the page shows an error.
///
/// Before it stops what runs, what a reader has opened in a browser is asked for.
fn script(page: &Page, steps: &[Step<'_>], address: &str) -> String {
    let mut links = String::new();
    for (link, _) in page.text.split("<http://").skip(1).filter_map(|rest| rest.split_once('>')) {
        writeln!(links, "curl -fsS http://{} | grep -q workers", link.replace(ADDRESS, address)).unwrap();
    }
    let mut script = String::from("set -e\n");
    for Step { run, shown } in steps {
        let fails = shown.is_some_and(|shown| shown.text.starts_with("error"));
        let text = run.text.replace(ADDRESS, address);
        let text = if fails { format!("if ! {{\n{text}}}; then :; else echo 'it should have failed'; exit 1; fi\n") } else { text };
        let asked = if text.contains("kill ") { links.as_str() } else { "" };
        write!(script, "echo '{BEGINS}{}'\n{asked}{text}", run.line).unwrap();
    }
    script + "echo '@@@ end'\n"
}

/// Without what differs from one time to the next.
fn alike(text: &str) -> String {
    let mut alike = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if alike.ends_with('#') => {}
            '0'..='9' => alike.push('#'),
            c => alike.push(c),
        }
    }
    for (varies, same) in [("#.#", "#"), ("#,#", "#"), ("#-#-#T#:#:#Z", "TIME"), ("#-#-# #:#:# UTC", "TIME"), ("#:#:# UTC", "TIME"), (" until TIME", "")] {
        alike = alike.replace(varies, same);
    }
    // Columns are as wide as what stands in them.
    alike.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

/// An address of loopback that nobody listens on.
fn free_address() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("127.0.0.1:{port}")
}

/// Runs a script of [`script`] in `home` to its end: what it printed. `log` is what Loadline writes beside it.
fn run(script: &str, home: &Path, address: &str, log: &Path) -> String {
    std::fs::write(home.join("session.sh"), script).unwrap();
    let path = std::env::join_paths([Path::new(LOADLINE).parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let printed = home.join("printed");
    let output = std::fs::File::create(&printed).unwrap();
    let mut command = Command::new("sh");
    command.arg("session.sh").current_dir(home).process_group(0).stdin(Stdio::null());
    command.stdout(output.try_clone().unwrap()).stderr(output).env("PATH", path).env_remove("LOADLINE_CONFIG");
    command.env("LOADLINE_LISTEN", address).env("LOADLINE_SERVER", format!("http://{address}"));
    let mut session = Session(command.spawn().unwrap());
    let said = || std::fs::read_to_string(&printed).unwrap();
    let running = Stopwatch::start();
    let ended = loop {
        if let Some(ended) = session.0.try_wait().unwrap() {
            break ended;
        }
        assert!(running.elapsed() < PATIENCE, "it waits for what does not come; so far:\n{}", said());
        std::thread::park_timeout(Duration::from_millis(50));
    };
    assert!(ended.success(), "{ended}:\n{}\nloadline:\n{}", said(), std::fs::read_to_string(log).unwrap_or_default());
    said()
}

/// What the block of this line printed.
fn printed_by(said: &str, line: usize) -> &str {
    let begin = format!("{BEGINS}{line}\n");
    let (_, printed) = said.split_once(&begin).unwrap_or_else(|| panic!("the block of line {line} did not run:\n{said}"));
    printed.split("@@@ ").next().unwrap()
}

#[test]
fn every_command_does_what_the_page_says() {
    let page = Page::read("docs/tutorial.md");
    let steps = steps(&page);
    let home = tempfile::tempdir().unwrap();
    let address = free_address();
    let log = home.path().join("first-fleet/loadline.log");
    let said = run(&script(&page, &steps, &address), home.path(), &address, &log);
    let said = said.replace(home.path().to_str().unwrap(), HOME);
    for Step { run, shown } in &steps {
        let printed = printed_by(&said, run.line);
        match shown {
            Some(shown) if shown.info == "text" => assert!(printed.ends_with(&shown.text), "line {}: it prints\n{printed}", shown.line),
            Some(shown) => assert_eq!(alike(printed), alike(&shown.text), "line {}: it prints\n{printed}", shown.line),
            None => {}
        }
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(log.matches("instance-started").count(), log.matches("instance-left").count(), "a worker is left:\n{log}");
}

/// Stands before a block of commands that no test can run, with why.
const NOT_RUN: &str = "<!-- not run by the tests: ";

/// The commands of the README, beside the demo's own fleet, but for those that say that they are not run.
#[test]
fn the_commands_of_the_readme_work() {
    let page = Page::read("README.md");
    let lines: Vec<&str> = page.text.lines().collect();
    let marked = |block: &&Block| lines[block.line - 2].starts_with(NOT_RUN);
    let commands: Vec<&Block> =
        page.blocks.iter().filter(|block| block.text.contains("loadline ") || block.text.contains("make ") || block.info == "sh").collect();
    assert!(commands.iter().all(|block| block.info == "sh"), "a block of commands is no sh block, so nothing runs it");
    let (left_out, run_here): (Vec<&Block>, Vec<&Block>) = commands.into_iter().partition(marked);
    assert_eq!((left_out.len(), run_here.len()), (3, 3));

    let home = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = home.path().join("examples/storefront");
    std::fs::create_dir_all(&example).unwrap();
    for file in ["loadline.yaml", "policy.yaml", "fleet.yaml", "trace.csv"] {
        std::fs::copy(root.join("examples/storefront").join(file), example.join(file)).unwrap();
    }
    // Ports beside those of a demo that runs on this machine, and of its other tests.
    let first = 33_000 + std::process::id() % 120 * 100;
    let fleet = std::fs::read_to_string(example.join("fleet.yaml")).unwrap();
    std::fs::write(example.join("fleet.yaml"), fleet.replace("18100-18199", &format!("{first}-{}", first + 99))).unwrap();
    std::fs::create_dir_all(home.path().join("target/release")).unwrap();
    std::os::unix::fs::symlink(LOADLINE, home.path().join("target/release/loadline")).unwrap();

    let address = free_address();
    let programs = Path::new(LOADLINE).parent().unwrap();
    assert!(programs.join("loadgen").is_file(), "loadgen is not built; run the tests of the whole workspace");
    let mut command = Command::new(LOADLINE);
    let path = std::env::join_paths([programs, Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    command.current_dir(home.path()).env("PATH", path).env_remove("LOADLINE_CONFIG");
    command.env("LOADGEN_REPORT", format!("http://{address}/api/v1/metrics"));
    command.args(["run", "--config", "examples/storefront/loadline.yaml", "--listen", &address]);
    let demo = Running::spawn(command);
    let storefront = "local/ProcessFleet/storefront";
    wait_for("the workers to serve, and a decision", || {
        let status = demo.status(storefront)?;
        (status["ready"].as_u64()? == 3 && status["verdict"].is_string()).then_some(())
    });
    wait_for("a decision that is written down", || {
        let path = format!("{}/api/v1/targets/{storefront}/decisions", demo.url);
        let text = ureq::get(&path).call().ok()?.body_mut().read_to_string().ok()?;
        text.contains("\"sentence\"").then_some(())
    });
    let steps: Vec<Step<'_>> = run_here.iter().map(|run| Step { run, shown: None }).collect();
    let said = run(&script(&page, &steps, &address), home.path(), &address, Path::new(""));
    let printed = |i: usize| printed_by(&said, run_here[i].line);
    for part in [storefront, "* the step that bound", "BOUND BY", "0 errors"] {
        assert!(printed(0).contains(part), "{part} is not there:\n{}", printed(0));
    }
    assert!(printed(1).contains("\"accepted\":1"), "{}", printed(1));
    let last: serde_json::Value = serde_json::from_str(printed(2).trim()).unwrap_or_else(|error| panic!("{error}: {}", printed(2)));
    assert_eq!(last["target"], storefront, "{last}");
    assert_eq!(demo.stop(), 0);
}

#[test]
fn the_first_command_starts_the_demo() {
    let page = Page::read("docs/tutorial.md");
    assert!(page.blocks[0].text == "make run\n", "the page begins with it");
    let mut make = Command::new("make");
    make.args(["-n", "run"]).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let plan = make.output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    for part in ["tools/setup", "cargo build --quiet --locked --release --package loadline", "target/release/loadgen demo"] {
        assert!(plan.contains(part), "{part} is not part of `make run`:\n{plan}");
    }
}
