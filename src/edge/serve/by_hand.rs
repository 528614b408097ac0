//! Setting a count by hand.
//!
//! A count is refused where everything is frozen, and beyond the bounds of the target's policy unless the request says
//! that it is meant (`force`): what was decided with care is not undone by a slip of the finger. This is the one place
//! that says so; `loadline scale` only asks. What is changed is recorded with who and why, however long that takes: it has taken
//! effect by then.

use std::cmp::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SendError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::targets::{Parts, parse, unknown};
use super::{ScaleError, Services};
use crate::edge::api::{Problem, ScaleRequest, Scaled};
use crate::edge::events::HandNotRecorded;
use crate::edge::log_watch;
use crate::edge::view::Allowed;
use crate::log::{Log, LogError, Topic};
use crate::model::{Audit, ManualChange, Message, TargetId};
use crate::runtime::publish;
use crate::stages::Effects;

/// What was done by hand, and is not on the log yet.
#[derive(Debug, Default)]
pub struct Unrecorded(Mutex<Vec<ManualChange>>);

impl Unrecorded {
    fn waits(&self, change: &ManualChange) {
        self.lock().push(change.clone());
    }

    fn is_written(&self, change: &ManualChange) {
        let mut waiting = self.lock();
        if let Some(index) = waiting.iter().position(|waits| waits == change) {
            waiting.remove(index);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ManualChange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what will never be on the log: the process ends.
    pub fn tell(&self) {
        let waiting = std::mem::take(&mut *self.lock());
        waiting.iter().for_each(|change| HandNotRecorded { change, never: Some("the process ends") }.emit());
    }
}

/// How long a request waits for the record of what it did: well below what whoever asks waits for the answer.
const RECORDED_WITHIN: Duration = Duration::from_secs(3);

/// How soon it is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// `POST /api/v1/targets/…/scale`.
pub(super) async fn scale(
    State(services): State<Services>,
    Path((namespace, kind, name)): Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Scaled>, Problem> {
    let target = parse(&namespace, &kind, &name)?;
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text(), ScaleRequest::EXAMPLE))?;
    let ScaleRequest { replicas: to, actor, reason, force } = ScaleRequest::read(&body)?;
    if let Some(file) = services.freeze.mark_for(target.namespace()) {
        let reason = format!("scaling is frozen by {file}");
        return Err(Problem::new(StatusCode::CONFLICT, reason, "remove that file to let changes through again").at(target.to_string()));
    }
    // It would take effect, and nobody could ever see who did it.
    if let Some(trouble) = services.log.trouble().filter(|trouble| trouble.of.is_none()) {
        let title = format!("who sets a count, and why, cannot be recorded: {}", log_watch::words(&trouble));
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, trouble.mend).at(trouble.place).retry_after(1));
    }
    let allowed = services.view.allowed(&target, services.clock.now());
    let beyond = beyond(&target, &allowed, to);
    let forced = beyond.is_some();
    if let Some(refused) = beyond.filter(|_| !force) {
        return Err(refused);
    }
    let mut note = note(&allowed, to);
    let (manual, log, unrecorded, of) = (Arc::clone(&services.manual), Arc::clone(&services.log), Arc::clone(&services.unrecorded), target.clone());
    let result = tokio::task::spawn_blocking(move || {
        let from = manual.scale(&of, to, &actor)?;
        let is_recorded = from == to || record(log, &unrecorded, &ManualChange { target: of, from, to, actor, reason, forced })?;
        Ok((from, is_recorded))
    });
    match result.await {
        Ok(Ok((from, is_recorded))) => {
            if !is_recorded {
                note.push_str("; who set it, and why, is not recorded yet, which is tried for as long as this process runs");
            }
            Ok(Json(Scaled { target, from, to, note }))
        }
        Ok(Err(ScaleError::Unknown(target))) => Err(unknown(&services, &target)),
        Ok(Err(ScaleError::Refused(reason))) => Err(Problem::new(StatusCode::CONFLICT, reason, "see loadline status").at(target.to_string())),
        Ok(Err(ScaleError::Failed(reason))) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason, "try again").at(target.to_string()).retry_after(1)),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in the program while scaling", "report it").at(target.to_string())),
    }
}

/// The refusal of a count beyond what the policy allows; `None` within it, or where no bound is known.
fn beyond(target: &TargetId, allowed: &Allowed, to: u32) -> Option<Problem> {
    let Allowed::Within { min, max, version, .. } = allowed else { return None };
    let bound = match (to.cmp(min), to.cmp(max)) {
        (Ordering::Less, _) => format!("less than the minimum, {min},"),
        (_, Ordering::Greater) => format!("more than the maximum, {max},"),
        _ => return None,
    };
    let title = format!("{to} is {bound} of the policy of {target} ({version})");
    let range = if min == max { min.to_string() } else { format!("{min} to {max}") };
    let nothing = if to == 0 { "; at 0 it is left alone until somebody sets it above 0" } else { "" };
    let mend = format!("set {range}, or say that {to} is meant, with --force (in a request \"force\":true){nothing}");
    Some(Problem::new(StatusCode::CONFLICT, title, mend).at("replicas"))
}

/// Writes down who changed a count, and why; whether that is done by the time the request is to be answered.
fn record(log: Arc<dyn Log>, unrecorded: &Arc<Unrecorded>, change: &ManualChange) -> Result<bool, ScaleError> {
    unrecorded.waits(change);
    let (written, waits) = (change.clone(), Arc::clone(unrecorded));
    let write = move || {
        let mut effects = Effects::new();
        effects.to_key(Topic::Audit, written.target.as_str().to_owned(), Message::Audit(Audit::ByHand(written.clone())));
        publish(log.as_ref(), effects).inspect(|()| waits.is_written(&written))
    };
    let never = |reason: String| {
        unrecorded.is_written(change);
        HandNotRecorded { change, never: Some(&reason) }.emit();
        ScaleError::Failed(format!("the count is set, but who set it could not be recorded: {reason}"))
    };
    let (lost, waits) = (change.clone(), Arc::clone(unrecorded));
    let too_late = move |reason: String| {
        waits.is_written(&lost);
        HandNotRecorded { change: &lost, never: Some(&reason) }.emit();
    };
    let is_recorded = written_within(RECORDED_WITHIN, RECORD_AGAIN, write, too_late).map_err(never)?;
    if !is_recorded {
        HandNotRecorded { change, never: None }.emit();
    }
    Ok(is_recorded)
}

/// Writes until it is written, for as long as the process runs; whether it was `within` that time. That it never will be is told to whoever asked, or else `too_late`.
///
/// # Errors
/// Why it never will be.
fn written_within(
    within: Duration,
    again: Duration,
    write: impl Fn() -> Result<(), LogError> + Send + 'static,
    too_late: impl FnOnce(String) + Send + 'static,
) -> Result<bool, String> {
    let (done, ended) = channel();
    let writing = move || {
        let outcome = loop {
            match write() {
                Err(LogError::Retry { .. } | LogError::Unknown { .. } | LogError::UnderWay { .. }) => std::thread::sleep(again),
                outcome => break outcome.map_err(|error| error.to_string()),
            }
        };
        if let Err(SendError(Err(reason))) = done.send(outcome) {
            too_late(reason);
        }
    };
    std::thread::Builder::new().name("by-hand".to_owned()).spawn(writing).map_err(|error| error.to_string())?;
    match ended.recv_timeout(within) {
        Ok(outcome) => outcome.map(|()| true),
        Err(RecvTimeoutError::Timeout) => Ok(false),
        Err(RecvTimeoutError::Disconnected) => Err("a fault in the program".to_owned()),
    }
}

/// What will happen next to a count that was set by hand.
fn note(allowed: &Allowed, to: u32) -> String {
    let (min, max, mode) = match allowed {
        Allowed::NoPolicy => return "there is no policy for it, so it stays".to_owned(),
        Allowed::NotKnown => return format!("what its policy allows is not known now, so {to} was not held against its bounds; see `loadline status`"),
        Allowed::Within { min, max, mode, .. } => (min, max, mode),
    };
    match mode.as_str() {
        "Off" | "Advise" => format!("its policy's mode is {mode}, so it stays"),
        _ if to == 0 => "a target that was set to 0 by hand is left alone until it is set above 0".to_owned(),
        _ if to < *min => format!("its policy's minimum is {min}, so it goes back to that at once; set mode: Off to hold it"),
        "OutOnly" if to > *max => format!("its policy's maximum is {max}, and its mode, OutOnly, lets nothing shrink; so it stays"),
        _ if to > *max => format!("its policy's maximum is {max}, so it shrinks to that; set mode: Off to hold it"),
        _ => "its policy goes on from there; set mode: Off to hold it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// What cannot be written now is written when it can be, though nobody waits for it any more; what can never be is told as that.
    #[test]
    fn what_was_done_is_written_down_however_long_that_takes() {
        let (tries, (told, written)) = (Arc::new(AtomicU32::new(0)), channel());
        let counted = Arc::clone(&tries);
        let write = move || match counted.fetch_add(1, SeqCst) {
            0..20 => Err(LogError::Retry { reason: "nobody leads it".to_owned() }),
            count => {
                told.send(count).unwrap();
                Ok(())
            }
        };
        assert_eq!(written_within(Duration::ZERO, Duration::from_millis(1), write, |_| unreachable!("it is written")), Ok(false));
        assert_eq!((written.recv(), written.recv().is_err(), tries.load(SeqCst)), (Ok(20), true, 21), "and once");
        assert_eq!(written_within(Duration::MAX, Duration::ZERO, || Ok(()), |_| unreachable!("it is written")), Ok(true));
        let closed = || Err(LogError::Fatal { reason: "it is closed".to_owned() });
        assert_eq!(written_within(Duration::MAX, Duration::ZERO, closed, |_| unreachable!("who asked is told")), Err("it is closed".to_owned()));
        let (tells, told) = channel();
        let slowly = move || {
            std::thread::sleep(Duration::from_millis(50));
            closed()
        };
        assert_eq!(written_within(Duration::ZERO, Duration::ZERO, slowly, move |reason| drop(tells.send(reason))), Ok(false));
        assert_eq!(told.recv(), Ok("it is closed".to_owned()), "nobody asks any more");
    }
}
