//! The terminal while it is ours, and as it was before.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use signal_hook::consts::{SIGHUP, SIGTERM};

/// What is to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Terminated,
    HungUp,
}

/// The terminal in raw mode, on a screen of its own. Dropping it gives it back.
pub(super) struct Terminal {
    terminated: Arc<AtomicBool>,
    hung_up: Arc<AtomicBool>,
}

impl Terminal {
    /// Takes it.
    ///
    /// # Errors
    /// Where it cannot be used so; then it is as it was.
    pub(super) fn take() -> io::Result<Self> {
        let (terminated, hung_up) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        signal_hook::flag::register(SIGTERM, Arc::clone(&terminated))?;
        signal_hook::flag::register(SIGHUP, Arc::clone(&hung_up))?;
        // A panic's words must not be lost with the screen.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
        enable_raw_mode()?;
        let terminal = Terminal { terminated, hung_up };
        execute!(io::stdout(), EnterAlternateScreen, DisableLineWrap, Hide)?;
        Ok(terminal)
    }

    /// Whether somebody else ended it.
    pub(super) fn ended(&self) -> Option<Ended> {
        match (self.terminated.load(Ordering::Relaxed), self.hung_up.load(Ordering::Relaxed)) {
            (true, _) => Some(Ended::Terminated),
            (_, true) => Some(Ended::HungUp),
            _ => None,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back; what cannot be given back has nobody any more who would see it.
fn give_back() {
    let mut out = io::stdout();
    let _ = execute!(out, EnableLineWrap, Show, LeaveAlternateScreen);
    let _ = out.flush();
    let _ = disable_raw_mode();
}
