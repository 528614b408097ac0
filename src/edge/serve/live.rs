//! Pages that stay up to date: a message a second to each that follows, by server-sent events.
//!
//! Bounded: so many may follow at once; each has one message under way and none waiting, since the next one is made when the last
//! was taken; one that takes none for 10 s is dropped. A message comes every second also where nothing changed, so that a page
//! notices a silent loss.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Services, fleet};
use crate::edge::api::{Problem, Series, Status};
use crate::model::Timestamp;
use crate::runtime::clock::Stopwatch;

/// The most pages that follow at once: a team with several windows each. A message costs some 2 ms at 1,000 targets.
const MOST: usize = 64;
/// How often a page is brought up to date.
const EVERY: Duration = Duration::from_secs(1);
/// How long a page may take no message.
const SLOW: Duration = Duration::from_secs(10);
/// For how long what was found of the whole fleet serves all who follow.
const SHARED: Duration = Duration::from_millis(500);

/// What was found of the whole fleet, and since when it is known.
type Looked = (Stopwatch, Arc<Status>);

/// Who follows.
#[derive(Clone)]
pub struct Live {
    seats: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    fleet: Arc<Mutex<Option<Looked>>>,
}

impl Default for Live {
    fn default() -> Self {
        Live { seats: Arc::new(Semaphore::new(MOST)), closing: watch::Sender::new(false), fleet: Arc::default() }
    }
}

/// What changed of a page.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    /// When.
    pub(super) at: Timestamp,
    /// Elements by their id, whole.
    pub(super) blocks: BTreeMap<String, String>,
    /// New rows of the charts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) series: Option<Series>,
}

impl Live {
    /// Nobody follows any more, and nobody may begin to.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// The fleet as it was found at most half a second ago.
    pub(super) fn fleet(&self, services: &Services) -> Arc<Status> {
        let mut found = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((since, status)) if since.elapsed() < SHARED => Arc::clone(status),
            _ => {
                let status = Arc::new(fleet::look(services));
                *found = Some((Stopwatch::start(), Arc::clone(&status)));
                status
            }
        }
    }

    /// Sends what `look` sees once a second. Where it sees nothing any more, it ends.
    pub(super) fn follow(&self, mut look: impl FnMut() -> Option<Message> + Send + 'static) -> Response {
        let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{MOST} pages follow already"), "close some; reload to see what is new");
            return problem.retry_after(10).into_response();
        };
        // One is under way while the next is made.
        let (sender, receiver) = mpsc::channel::<Message>(1);
        let mut closing = self.closing.subscribe();
        tokio::spawn(async move {
            let _seat = seat;
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = closing.wait_for(|closing| *closing) => break,
                    () = sender.closed() => break,
                    _ = ticks.tick() => {}
                }
                let Some(message) = look() else { break };
                if !matches!(timeout(SLOW, sender.send(message)).await, Ok(Ok(()))) {
                    break;
                }
            }
        });
        let events = stream::unfold(receiver, |mut receiver| async {
            let message = receiver.recv().await?;
            let text = serde_json::to_string(&message).unwrap_or_default();
            Some((Ok::<_, Infallible>(Event::default().data(text)), receiver))
        });
        Sse::new(events).into_response()
    }

    /// How many follow.
    #[cfg(test)]
    pub(super) fn followers(&self) -> usize {
        MOST - self.seats.available_permits()
    }
}

/// What was sent of a page: only what differs is sent again.
#[derive(Debug, Default)]
pub(super) struct Sent(BTreeMap<String, String>);

impl Sent {
    /// Those of `blocks` that are new or changed. The first time all are, since the page may be older than this.
    pub(super) fn changed(&mut self, blocks: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let changed = blocks.iter().filter(|(id, text)| self.0.get(*id) != Some(text)).map(|(id, text)| (id.clone(), text.clone())).collect();
        self.0 = blocks;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message { at: Timestamp::from_millis(0), blocks: BTreeMap::new(), series: None }
    }

    fn block(id: &str, text: &str) -> (String, String) {
        (id.to_owned(), text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_takes_nothing_is_dropped_and_frees_its_seat() {
        let live = Live::default();
        let unread = live.follow(|| Some(message()));
        assert_eq!(live.followers(), 1);
        // The first message goes into the channel, the second waits for 10 s.
        tokio::time::sleep(Duration::from_secs(13)).await;
        assert_eq!(live.followers(), 0);
        drop(unread);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_reads_is_kept_and_one_that_goes_is_not() {
        let live = Live::default();
        let mut body = live.follow(|| Some(message())).into_body().into_data_stream();
        for _ in 0..60 {
            let chunk = futures_util::StreamExt::next(&mut body).await.unwrap().unwrap();
            assert!(chunk.starts_with(b"data: {\"at\":0"), "{chunk:?}");
        }
        assert_eq!(live.followers(), 1);
        drop(body);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(live.followers(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_may_follow_and_no_more_and_none_after_the_end() {
        let live = Live::default();
        let all: Vec<Response> = (0..MOST).map(|_| live.follow(|| Some(message()))).collect();
        let refused = live.follow(|| Some(message()));
        assert_eq!((refused.status(), refused.headers()["retry-after"].as_bytes()), (StatusCode::SERVICE_UNAVAILABLE, b"10".as_slice()));
        live.close();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(live.followers(), 0, "a server that stops waits for no page");
        for response in all {
            let mut body = response.into_body().into_data_stream();
            while futures_util::StreamExt::next(&mut body).await.is_some() {}
        }
    }

    #[test]
    fn what_did_not_change_is_not_sent_again() {
        let mut sent = Sent::default();
        let first = BTreeMap::from([block("a", "1"), block("b", "1")]);
        assert_eq!(sent.changed(first.clone()), first);
        assert_eq!(sent.changed(BTreeMap::from([block("a", "1"), block("b", "2")])), BTreeMap::from([block("b", "2")]));
        assert_eq!(sent.changed(BTreeMap::from([block("a", "2")])), BTreeMap::from([block("a", "2")]));
        assert_eq!(sent.changed(first), BTreeMap::from([block("a", "1"), block("b", "1")]), "what went and comes again is new");
    }
}
