//! Waiting for what real servers do.

use std::time::Duration;

use anyhow::bail;
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
