//! Who is served, who waits, who is refused.
//!
//! Invariants: at most `concurrency` passes are out; at most `queue` requests wait; a request that got in is never refused later;
//! a client that goes away frees its place at once.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Warming up: not healthy yet, serves nothing.
    Starting,
    /// Healthy.
    Serving,
    /// Serves what it has, takes nothing new.
    Draining,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is warming up.
    Starting,
    /// It is draining.
    Draining,
    /// All places are taken, those of the queue too.
    Full,
}

impl Refusal {
    /// The word in the answer.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Starting => "starting",
            Refusal::Draining => "draining",
            Refusal::Full => "full",
        }
    }
}

/// The gate of a worker.
#[derive(Debug)]
pub struct Gate {
    phase: AtomicU8,
    places: Semaphore,
    queue: u32,
    open: AtomicU32,
    waiting: AtomicU32,
    served: AtomicU64,
    refused: AtomicU64,
    left: Notify,
}

impl Gate {
    /// A gate that is [`Phase::Starting`].
    pub fn new(concurrency: u32, queue: u32) -> Self {
        Gate {
            phase: AtomicU8::new(Phase::Starting as u8),
            places: Semaphore::new(concurrency as usize),
            queue,
            open: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            served: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            left: Notify::new(),
        }
    }

    /// Where the worker is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Serving as u8 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Goes on to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// Waits for a place. Dropped while it waits, it has left the queue.
    ///
    /// # Errors
    /// The reason why there is none.
    pub async fn pass(&self) -> Result<Pass<'_>, Refusal> {
        let refuse = |refusal| {
            self.refused.fetch_add(1, Ordering::SeqCst);
            Err(refusal)
        };
        match self.phase() {
            Phase::Starting => return refuse(Refusal::Starting),
            Phase::Draining => return refuse(Refusal::Draining),
            Phase::Serving => {}
        }
        if let Ok(place) = self.places.try_acquire() {
            return Ok(Pass { place: Some(place), open: Open::new(self) });
        }
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= self.queue {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return refuse(Refusal::Full);
        }
        let waiting = Waiting(self);
        let open = Open::new(self);
        // The semaphore is never closed; were it, draining would be the truth.
        let Ok(place) = self.places.acquire().await else { return refuse(Refusal::Draining) };
        drop(waiting);
        Ok(Pass { place: Some(place), open })
    }

    /// Requests that wait or are in service.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Requests served since the start.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// Requests refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Waits until no request is open.
    pub async fn idle(&self) {
        loop {
            let left = self.left.notified();
            if self.open() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Pass<'a> {
    place: Option<SemaphorePermit<'a>>,
    open: Open<'a>,
}

impl Pass<'_> {
    /// The request was served.
    pub fn served(mut self) {
        self.place = None;
        self.open.0.served.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Open<'a>(&'a Gate);

impl<'a> Open<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.open.fetch_add(1, Ordering::SeqCst);
        Open(gate)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_waiters();
    }
}

struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn serving(concurrency: u32, queue: u32) -> Gate {
        let gate = Gate::new(concurrency, queue);
        gate.enter(Phase::Serving);
        gate
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn places_then_the_queue_then_refusal() {
        let gate = serving(1, 1);
        let Poll::Ready(Ok(first)) = poll(pin!(gate.pass())) else { panic!("the first gets the place") };
        let mut second = pin!(gate.pass());
        assert!(poll(second.as_mut()).is_pending());
        assert_eq!((gate.open(), gate.waiting()), (2, 1));
        assert!(matches!(poll(pin!(gate.pass())), Poll::Ready(Err(Refusal::Full))));
        assert_eq!((gate.refused(), gate.waiting()), (1, 1));
        first.served();
        let Poll::Ready(Ok(second)) = poll(second.as_mut()) else { panic!("the second follows the first") };
        assert_eq!((gate.open(), gate.waiting(), gate.served()), (1, 0, 1));
        drop(second);
        assert_eq!((gate.open(), gate.served()), (0, 1), "what was given up is not served");
    }

    #[test]
    fn a_client_that_goes_away_frees_its_place_in_the_queue() {
        let gate = serving(1, 1);
        let Poll::Ready(Ok(_first)) = poll(pin!(gate.pass())) else { panic!("the first gets the place") };
        {
            let mut second = Box::pin(gate.pass());
            assert!(poll(second.as_mut()).is_pending());
        }
        assert_eq!((gate.open(), gate.waiting()), (1, 0));
    }

    #[test]
    fn draining_serves_what_waits_and_refuses_what_comes() {
        let gate = serving(1, 5);
        let Poll::Ready(Ok(first)) = poll(pin!(gate.pass())) else { panic!("the first gets the place") };
        let mut second = pin!(gate.pass());
        assert!(poll(second.as_mut()).is_pending());
        gate.enter(Phase::Draining);
        gate.enter(Phase::Serving);
        assert_eq!(gate.phase(), Phase::Draining, "never back");
        assert!(matches!(poll(pin!(gate.pass())), Poll::Ready(Err(Refusal::Draining))));
        let mut idle = pin!(gate.idle());
        first.served();
        assert!(poll(idle.as_mut()).is_pending());
        let Poll::Ready(Ok(second)) = poll(second.as_mut()) else { panic!("it was accepted before") };
        second.served();
        assert!(poll(idle.as_mut()).is_ready());
    }

    #[test]
    fn nothing_is_served_while_it_starts() {
        let gate = Gate::new(1, 1);
        assert!(matches!(poll(pin!(gate.pass())), Poll::Ready(Err(Refusal::Starting))));
    }
}
