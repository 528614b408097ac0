//! Keys and changes of the size, read on a thread of their own.
//!
//! A read from a terminal that is gone does not come back, and reads nothing again and again: whoever waits for keys must not
//! be the one who reads them.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crossterm::event::{Event, read};

/// Keys that wait: more than a person types while a screen is drawn. A reader that is faster waits.
const WAITING: usize = 64;

/// The thread that reads. It ends with the process: nothing else wakes it from its read.
pub(super) struct Keys(Receiver<io::Result<Event>>);

impl Keys {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        let (read, keys) = sync_channel(WAITING);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_all(&read))?;
        Ok(Keys(keys))
    }

    /// The next one, waited for at most so long; `None` where none came.
    ///
    /// # Errors
    /// Where nothing can be read from the terminal any more.
    pub(super) fn next(&self, wait: Duration) -> io::Result<Option<Event>> {
        match self.0.recv_timeout(wait) {
            Ok(event) => event.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("nothing is read from the terminal any more")),
        }
    }
}

fn read_all(keys: &SyncSender<io::Result<Event>>) {
    loop {
        let event = read();
        let failed = event.is_err();
        if keys.send(event).is_err() || failed {
            return;
        }
    }
}
