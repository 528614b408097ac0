//! The terminal while it is ours, and as it was before.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::queue;
use crossterm::terminal::{DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What is to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By SIGTERM.
    Terminated,
    /// By SIGINT; control-C is a key.
    Interrupted,
    /// The terminal is gone: by SIGHUP, or where nobody was there to be told.
    HungUp,
}

impl Ended {
    /// The exit code, as a shell has it: 128 and the signal's number.
    pub(super) const fn code(self) -> u8 {
        match self {
            Ended::HungUp => 129,
            Ended::Interrupted => 130,
            Ended::Terminated => 143,
        }
    }
}

/// Each signal that ends it.
const SIGNALS: [(i32, Ended); 3] = [(SIGTERM, Ended::Terminated), (SIGINT, Ended::Interrupted), (SIGHUP, Ended::HungUp)];

/// The terminal in raw mode, on a screen of its own. Dropping it gives it back.
pub(super) struct Terminal {
    signals: Vec<(Arc<AtomicBool>, Ended)>,
}

impl Terminal {
    /// Takes it.
    ///
    /// # Errors
    /// Where it cannot be used so; then it is as it was.
    pub(super) fn take() -> io::Result<Self> {
        let mut signals = Vec::with_capacity(SIGNALS.len());
        for (signal, ended) in SIGNALS {
            let came = Arc::<AtomicBool>::default();
            // The second one ends it as it is: a terminal that takes nothing any more may hold up the first one for good.
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(ended.code()), Arc::clone(&came))?;
            signal_hook::flag::register(signal, Arc::clone(&came))?;
            signals.push((came, ended));
        }
        // A panic's words must not be lost with the screen.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
        enable_raw_mode()?;
        let terminal = Terminal { signals };
        let mut begin = Vec::new();
        queue!(begin, EnterAlternateScreen, DisableLineWrap, Hide)?;
        terminal.write(&begin)?;
        Ok(terminal)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// As the system says.
    #[expect(clippy::unused_self, reason = "only who has the terminal writes to it")]
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        write(bytes)
    }

    /// Whether somebody else ended it, or the terminal is gone.
    pub(super) fn ended(&self) -> Option<Ended> {
        let signal = self.signals.iter().find(|(came, _)| came.load(Ordering::Relaxed)).map(|(_, ended)| *ended);
        signal.or_else(|| is_gone().then_some(Ended::HungUp))
    }

    /// What an error of the terminal comes from.
    ///
    /// # Errors
    /// The error, where the terminal is still there.
    pub(super) fn ended_by(&self, error: io::Error) -> io::Result<Ended> {
        // Of a terminal that is gone everything is EIO; the one that is drawn on need not be the one that is read.
        let gone = error.raw_os_error() == Some(Errno::IO.raw_os_error());
        self.ended().or(gone.then_some(Ended::HungUp)).ok_or(error)
    }
}

/// Whether the other side of the terminal that is read was closed. Only the session whose terminal it was gets a SIGHUP.
fn is_gone() -> bool {
    let stdin = io::stdin();
    // Nothing is asked for: a hang-up is always told.
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    // A signal cuts it short; the next look tells.
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back; what cannot be given back has nobody any more who would see it.
fn give_back() {
    let mut end = Vec::new();
    let _ = queue!(end, EnableLineWrap, Show, LeaveAlternateScreen);
    let _ = write(&end);
    let _ = disable_raw_mode();
}

/// Past the buffer of standard output, which would keep what a terminal that is gone does not take, and fail with it at the end.
fn write(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(io::stdout(), bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
