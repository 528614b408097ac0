//! `loadline watch`: the fleet, or a target, live in a terminal.
//!
//! A thread asks the server once a second ([`follow`]), one reads keys ([`keys`]); this one draws when something changed
//! ([`screen`]). What is drawn is made by pure functions ([`fleet`], [`one`]). The terminal is left as it was, however it
//! ends ([`terminal`]): by a key, by a signal, or since the terminal is gone.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::client::{Client, ServerArgs};
use super::{Paint, Unusable};
use crate::edge::api::Status;
use crate::model::TargetId;

mod fleet;
mod follow;
mod keys;
mod one;
mod screen;
mod terminal;

use fleet::Fleet;
use follow::{Follow, Known, Subject};
use keys::Keys;
use one::One;
use screen::Screen;
use terminal::{Ended, Terminal};

/// How long a key is waited for until it is looked whether something is new, or it is to end: fast enough to seem at once, and ten
/// look-ups a second cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Watch the fleet or a target, live in the terminal.
///
/// Exit codes: 0 left with q, 1 not reachable at the start, 2 no terminal, or wrong usage, 129 the terminal is gone, 130 or 143 ended by SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  loadline watch\n  loadline watch storefront\n  ssh -t host loadline watch\n\nKeys: up, down (k, j) choose, Enter opens, Esc goes back, / filters, a shows what needs attention alone, q leaves.\nWhere there is no terminal, use `loadline status`."
)]
pub struct WatchArgs {
    /// The target: namespace/Kind/name, or its end where that is unique [default: the fleet]
    #[arg(value_hint = clap::ValueHint::Other)]
    target: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Watches until it is left.
///
/// # Errors
/// Where there is no terminal, or the server cannot be reached at the start.
pub fn run(args: &WatchArgs) -> anyhow::Result<u8> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Unusable("watch needs a terminal; use `loadline status` or `loadline why TARGET`, with --output json for programs".to_owned()).into());
    }
    // What is wrong with the address or the name is said before the screen is taken.
    let client = Client::new(&args.server);
    let (view, subject) = if let Some(named) = &args.target {
        let target = client.target(named)?;
        let _: crate::edge::api::TargetDetail = client.get(&crate::edge::api::target_path(&target))?;
        (View::One(One::new(target.clone(), false)), Subject::Target(target))
    } else {
        let _: Status = client.get("/api/v1/status")?;
        (View::Fleet(Fleet::default()), Subject::Fleet)
    };
    let follow = Follow::start(&args.server, subject).context("cannot start a thread that asks the server")?;
    let terminal = Terminal::take().context("the terminal cannot be used; use `loadline status`")?;
    let ended =
        Watch { view, fleet: Fleet::default(), known: Known::default(), follow, server: args.server.server.clone(), paint: Paint::for_stdout() }.run(&terminal);
    drop(terminal);
    ended.context("the terminal cannot be used any more")
}

/// What is shown.
enum View {
    Fleet(Fleet),
    One(One),
}

struct Watch {
    view: View,
    /// Where the fleet was left, while a target is shown.
    fleet: Fleet,
    known: Known,
    follow: Follow,
    server: String,
    paint: Paint,
}

impl Watch {
    fn run(mut self, terminal: &Terminal) -> std::io::Result<u8> {
        let keys = Keys::start()?;
        let mut screen = Screen::default();
        loop {
            if let Some(ended) = terminal.ended() {
                return Ok(ended.code());
            }
            self.known.take(&self.follow);
            let turn = self.draw(&mut screen, terminal).and_then(|height| Ok((height, keys.next(LOOK_EVERY)?)));
            let (height, event) = match turn {
                Ok(turn) => turn,
                Err(error) => return terminal.ended_by(error).map(Ended::code),
            };
            match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release && self.key(key, height) => return Ok(0),
                // Whatever a resize left on the screen is drawn over.
                Some(Event::Resize(..)) => screen = Screen::default(),
                _ => {}
            }
        }
    }

    /// Draws what is known; the height of the screen, in lines.
    fn draw(&mut self, screen: &mut Screen, terminal: &Terminal) -> std::io::Result<usize> {
        let (width, height) = crossterm::terminal::size()?;
        let mut changes = Vec::new();
        screen.draw(&mut changes, self.lines(usize::from(width), usize::from(height)), width, height)?;
        terminal.write(&changes)?;
        Ok(usize::from(height))
    }

    fn lines(&mut self, width: usize, height: usize) -> Vec<String> {
        let head = self.known.head(&self.server, self.paint);
        match &mut self.view {
            View::Fleet(fleet) => fleet.lines(&self.known, head, width, height, self.paint),
            View::One(one) => one.lines(&self.known, head, width, height, self.paint),
        }
    }

    /// Does what a key says. `true` where that is to leave.
    fn key(&mut self, key: KeyEvent, height: usize) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return true;
        }
        match &mut self.view {
            View::Fleet(fleet) if fleet.is_typing() => fleet.type_in(key.code),
            View::Fleet(fleet) => match key.code {
                KeyCode::Char('q') => return true,
                KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => {
                    if let Some(target) = fleet.chosen(&self.known) {
                        self.open(target);
                    }
                }
                code => fleet.key(code, &self.known, height),
            },
            View::One(one) => match key.code {
                KeyCode::Char('q') => return true,
                KeyCode::Esc | KeyCode::Left | KeyCode::Backspace | KeyCode::Char('h') => self.back(),
                code => one.key(code, &self.known),
            },
        }
        false
    }

    fn open(&mut self, target: TargetId) {
        self.follow.look_at(Subject::Target(target.clone()));
        if let View::Fleet(fleet) = std::mem::replace(&mut self.view, View::One(One::new(target, true))) {
            self.fleet = fleet;
        }
    }

    fn back(&mut self) {
        self.follow.look_at(Subject::Fleet);
        self.view = View::Fleet(std::mem::take(&mut self.fleet));
    }
}
