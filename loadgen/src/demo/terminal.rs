//! Puts frames on the screen: redrawn in place on a terminal, now and then a line elsewhere.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use tokio::time::Instant;

use super::screen::Frame;

/// Where it is not a terminal, a line this often, and one whenever the replicas change.
const LINE: Duration = Duration::from_secs(10);

/// Where the terminal does not say how wide it is.
const WIDTH: usize = 80;

/// Ready and desired.
type Replicas = (Option<u64>, Option<u64>);

/// The screen.
pub(super) struct Terminal {
    in_place: bool,
    drawn: usize,
    said: Option<(Instant, Option<Replicas>)>,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Terminal { in_place: stdout().is_terminal(), drawn: 0, said: None }
    }

    pub(super) fn show(&mut self, frame: &Frame<'_>) {
        if self.in_place { self.redraw(frame) } else { self.say(frame) }
    }

    fn redraw(&mut self, frame: &Frame<'_>) {
        let width = tcgetwinsize(stdout()).map_or(WIDTH, |size| usize::from(size.ws_col));
        // A full line would wrap, and the way back up would be too short.
        let lines = frame.lines(if width > 1 { width - 1 } else { WIDTH });
        let mut text = String::new();
        if self.drawn > 0 {
            // Writing to a string never fails.
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            text.push_str(line);
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        print(&text);
    }

    fn say(&mut self, frame: &Frame<'_>) {
        let replicas = frame.status.as_ref().ok().map(|status| (status.ready, status.desired));
        if self.said.is_none_or(|(at, said)| at.elapsed() >= LINE || said != replicas) {
            self.said = Some((Instant::now(), replicas));
            print(&format!("{}\n", frame.line()));
        }
    }
}

/// A screen that went away is no reason to leave a fleet running: nothing is printed then.
pub(super) fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
