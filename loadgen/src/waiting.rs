//! Waiting for what real servers do.

use std::time::Duration;

use anyhow::bail;
use loadline::log::LogError;
use loadline::runtime::clock::Stopwatch;

/// How long a thing may take that is waited for: far beyond what any of them does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// How often it is looked whether it happened.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until `happened` has an answer.
pub(crate) fn wait_for<T>(what: &str, mut happened: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let waiting = Stopwatch::start();
    loop {
        if let Some(answer) = happened()? {
            return Ok(answer);
        }
        if waiting.elapsed() >= PATIENCE {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// The answer of a log, which is asked again as long as it says to.
pub(crate) fn answered<T>(what: &str, mut ask: impl FnMut() -> Result<T, LogError>) -> anyhow::Result<T> {
    wait_for(what, || match ask() {
        Ok(answer) => Ok(Some(answer)),
        Err(LogError::Retry { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    })
}
