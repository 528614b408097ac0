//! `watch` in a real terminal, `history` and `why` of the running program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{FLEET, LOADLINE, Running, SLEEPERS, fleet_of_sleepers, wait_for, waiting};
use pty_process::Size;
use pty_process::blocking::Pty;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::Value;

const AT_ONCE: &str =
    "  behavior: { scaleIn: { stabilization: 1s, policies: [{ percent: 100, period: 1s }] }, scaleOut: { policies: [{ replicas: 10, period: 1s }] } }\n";

/// `loadline watch` in a terminal. Dropping it kills it.
struct Watch {
    child: Child,
    terminal: Arc<Pty>,
    screen: Arc<Mutex<vt100::Parser>>,
    before: LocalModes,
}

impl Watch {
    fn start(url: &str, arguments: &[&str], rows: u16, columns: u16) -> Watch {
        let (terminal, end) = pty_process::blocking::open().unwrap();
        terminal.resize(Size::new(rows, columns)).unwrap();
        let terminal = Arc::new(terminal);
        let before = tcgetattr(&*terminal).unwrap().local_modes;
        let command = pty_process::blocking::Command::new(LOADLINE).arg("watch").args(arguments).args(["--server", url]).env("TERM", "xterm-256color");
        let child = command.env_remove("NO_COLOR").spawn(end).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (from, onto) = (Arc::clone(&terminal), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = (&*from).read(&mut bytes) {
                onto.lock().unwrap().process(&bytes[..read]);
            }
        });
        Watch { child, terminal, screen, before }
    }

    /// What is on the screen.
    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn shows(&self, what: &str, words: &[&str]) -> String {
        wait_for(&format!("{what}: {words:?} on the screen"), || {
            let text = self.text();
            words.iter().all(|word| text.contains(word)).then_some(text)
        })
    }

    /// Goes down until a decision with these words is the chosen one. Newer ones may come meanwhile.
    fn chooses(&self, words: &[&str]) -> String {
        // Closed, each is a line; open, one that is longer than the screen is scrolled first.
        self.types("\r");
        wait_for("the steps to be closed", || (!self.text().contains("STEP")).then_some(()));
        let chosen = || self.text().lines().find(|line| line.starts_with('›')).map(str::to_owned);
        loop {
            let before = wait_for("a decision to be chosen", chosen);
            if words.iter().all(|word| before.contains(word)) {
                self.types("\r");
                self.shows("its steps", &["STEP"]);
                return before;
            }
            self.types("j");
            wait_for("another to be chosen", || chosen().filter(|line| *line != before));
        }
    }

    fn types(&self, keys: &str) {
        (&*self.terminal).write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, rows: u16, columns: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
        self.terminal.resize(Size::new(rows, columns)).unwrap();
    }

    /// Its exit code, once it has ended; the terminal is as it was then.
    fn ends(mut self) -> i32 {
        let status = wait_for("watch to end", || self.child.try_wait().unwrap());
        wait_for("the screen to be given back", || (!self.screen.lock().unwrap().screen().alternate_screen()).then_some(()));
        assert!(!self.screen.lock().unwrap().screen().hide_cursor(), "the cursor is there again");
        assert_eq!(tcgetattr(&*self.terminal).unwrap().local_modes, self.before, "what is typed is seen again");
        status.code().unwrap_or(-1)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A fleet that has grown from 1 to 4.
fn grown() -> (tempfile::TempDir, Running) {
    let (home, _) = fleet_of_sleepers(1, AT_ONCE);
    let loadline = Running::start(home.path(), &["--stop-fleets-on-exit"]);
    wait_for("the fleet to grow to 4, and to rest", || {
        loadline.post(&waiting(40.0))?;
        let status = loadline.status(&SLEEPERS)?;
        (status["current"] == 4 && status["ready"] == 4 && status["verdict"] == "Hold").then_some(())
    });
    (home, loadline)
}

/// From the fleet to a target and back, in a terminal that changes its size; `q` leaves, and all is as it was.
#[test]
fn the_fleet_and_a_target_are_watched_live() {
    let (_home, loadline) = grown();
    let watch = Watch::start(&loadline.url, &[], 24, 100);
    let text = watch.shows("the fleet", &["1 target", "TARGET", &SLEEPERS, "1–6", "holds", "q quit", "updated"]);
    assert!(text.lines().count() <= 24, "{text}");
    assert!(tcgetattr(&*watch.terminal).unwrap().local_modes != watch.before, "keys are read as they are pressed");

    watch.types("\r");
    watch.shows("the target", &["replicas 4", "range 1–6", "METRIC", "queue_depth", "› ", "STEP", "Combine *", "Esc back"]);
    watch.chooses(&["1 → 4", "applied"]);

    watch.resize(12, 50);
    let small = watch.shows("the target in a small terminal, at what is chosen", &["1 → 4", "q quit"]);
    assert!(small.lines().count() <= 12 && small.lines().all(|line| line.chars().count() <= 50), "{small}");
    watch.resize(40, 160);
    watch.shows("the target in a large one", &["Outcome", "Command", "Grant", "q quit"]);

    watch.types("\u{1b}");
    watch.shows("the fleet again", &["1 target", "/ filter"]);
    watch.types("/nobody\r");
    watch.shows("no target", &["No target matches.", "0 shown"]);
    watch.types("q");
    assert_eq!(watch.ends(), 0);
    assert_eq!(loadline.stop(), 0);
}

/// A lost connection is said while what was known stays, and so is that it is there again.
#[test]
fn a_lost_connection_is_said_and_comes_back() {
    let (home, loadline) = grown();
    let (url, port) = (loadline.url.clone(), loadline.url.rsplit(':').next().unwrap().to_owned());
    let watch = Watch::start(&url, &[&FLEET], 24, 140);
    watch.shows("the target", &[&SLEEPERS, "replicas 4"]);
    loadline.kill();
    let text = watch.shows("the loss", &["no connection for", "trying again"]);
    assert!(text.contains("replicas 4"), "what was known stays: {text}");
    let mut command = Command::new(LOADLINE);
    command.current_dir(home.path()).args(["run", "--data", "data", "--policies", "policies", "--listen", &format!("127.0.0.1:{port}")]);
    command.args(["--pane", "250ms", "--grace", "100ms", "--stop-fleets-on-exit"]).env_remove("LOADLINE_CONFIG");
    let again = Running::spawn(command);
    watch.shows("the return", &["connected again", "replicas 4"]);
    watch.types("\u{3}");
    assert_eq!(watch.ends(), 0);
    assert_eq!(again.stop(), 0);
}

/// On a terminal of the usual size the sentence that says why is read to its end: of the chosen row, and of the target that is opened.
#[test]
fn why_is_read_at_80_by_24() {
    let (_home, loadline) = grown();
    let watch = Watch::start(&loadline.url, &[], 24, 80);
    let joined = || watch.text().lines().map(str::trim).collect::<Vec<_>>().join(" ");
    wait_for("the reason of the chosen row", || {
        let reason = loadline.status(&SLEEPERS)?["reason"].as_str()?.to_owned();
        joined().contains(&format!("› {SLEEPERS}: {reason}")).then_some(())
    });
    watch.types("\r");
    wait_for("when it was evaluated", || {
        let text = joined();
        let (_, evaluated) = text.split_once(", evaluated ")?;
        evaluated.split_whitespace().nth(2).filter(|zone| *zone == "UTC").map(drop)
    });
    watch.types("q");
    assert_eq!(watch.ends(), 0);
    assert_eq!(loadline.stop(), 0);
}

/// Each signal that ends it gives the terminal back, too.
#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let (_home, loadline) = grown();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let watch = Watch::start(&loadline.url, &[], 24, 80);
        watch.shows("the fleet", &[&SLEEPERS]);
        kill_process(Pid::from_child(&watch.child), signal).unwrap();
        assert_eq!(watch.ends(), code);
    }
    assert_eq!(loadline.stop(), 0);
}

/// A program. Dropping it kills it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `loadline watch` in a terminal of this size that is nobody's: no session is told when it goes. The side that is read, and the program.
fn in_a_terminal_of_nobody(url: &str, size: Size) -> (Pty, Program) {
    let (terminal, end) = pty_process::blocking::open().unwrap();
    terminal.resize(size).unwrap();
    let side = || Stdio::from(end.as_fd().try_clone_to_owned().unwrap());
    let mut command = Command::new(LOADLINE);
    command.args(["watch", "--server", url]).env("TERM", "xterm-256color").stdin(side()).stdout(side()).stderr(side());
    (terminal, Program(command.spawn().unwrap()))
}

/// A terminal may go without a SIGHUP.
#[test]
fn a_terminal_that_is_gone_ends_it() {
    let (_home, loadline) = grown();
    let (mut terminal, mut watch) = in_a_terminal_of_nobody(&loadline.url, Size::new(24, 80));
    let (mut said, mut bytes) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&said).contains(&*SLEEPERS) {
        let read = terminal.read(&mut bytes).unwrap();
        said.extend_from_slice(&bytes[..read]);
    }
    drop(terminal);
    let status = wait_for("watch to end", || watch.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(129));
    assert_eq!(loadline.stop(), 0);
}

/// A terminal that nobody reads holds up what is drawn; a second signal ends it all the same.
#[test]
fn a_terminal_that_takes_nothing_holds_up_no_second_signal() {
    let (_home, loadline) = grown();
    // One screen is more than a terminal keeps for whoever reads late.
    let (_terminal, mut watch) = in_a_terminal_of_nobody(&loadline.url, Size::new(500, 500));
    let (path, write) = (format!("/proc/{}/syscall", watch.0.id()), if cfg!(target_arch = "x86_64") { "1 0x1 " } else { "64 0x1 " });
    wait_for("it to wait for its terminal", || std::fs::read_to_string(&path).is_ok_and(|call| call.starts_with(write)).then_some(()));
    let pid = Pid::from_child(&watch.0);
    let status = wait_for("watch to end", || {
        kill_process(pid, Signal::TERM).unwrap();
        watch.0.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(143));
    assert_eq!(loadline.stop(), 0);
}

/// Without a terminal, or a server, it says so before it takes the screen.
#[test]
fn what_it_cannot_do_is_said_at_once() {
    let piped = Command::new(LOADLINE).args(["watch", "--server", "127.0.0.1:1"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&piped.stderr);
    assert!(piped.status.code() == Some(2) && said.contains("loadline status"), "{said}");
    assert!(piped.stdout.is_empty());
    let watch = Watch::start("127.0.0.1:1", &[], 24, 100);
    watch.shows("the reason", &["cannot be reached", "--server"]);
    assert_eq!(watch.ends(), 1);
}

/// Decisions with what came of them, and what is so now.
#[test]
fn history_and_why_tell_what_came_of_a_decision() {
    let (_home, loadline) = grown();
    let asks = |words: &[&str]| {
        let answer = Command::new(LOADLINE).args(words).args(["--server", &loadline.url]).output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap()
    };
    let changes = asks(&["history", &FLEET, "--since", "1h", "--changes"]);
    let lines: Vec<&str> = changes.lines().collect();
    assert!(lines[0].starts_with("TIME (UTC)") && lines.len() == 2, "{changes}");
    assert!(["1 → 4", "out", "Combine", "applied", "queue_depth 40 against 10 asks for 4"].iter().all(|word| lines[1].contains(word)), "{changes}");
    assert!(asks(&["history", &FLEET]).lines().count() > 2, "all that was written down");
    let found: Value = serde_json::from_str(&asks(&["history", &FLEET, "--since", "1h", "--output", "json"])).unwrap();
    let grew =
        found["decisions"].as_array().unwrap().iter().find(|story| story["decision"]["desired"] == 4 && story["decision"]["current"] == 1).unwrap().clone();
    assert_eq!((&grew["outcomes"][0]["record"]["result"], &grew["commands"][0]["record"]["to"]), (&"Applied".into(), &4.into()));
    assert_eq!(asks(&["history", &FLEET, "--since", "0s"]), format!("No decision about {SLEEPERS} was written down since then.\n"));

    let why = asks(&["why", &FLEET]);
    assert!(why.contains("\nNow      4 asked for, 4 ready"), "{why}");
    assert_eq!(loadline.stop(), 0);
}
