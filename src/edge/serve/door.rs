//! What answers from the moment the port is open: that the process lives, and what it waits for. A probe of liveness that nobody
//! answers while a cluster is away would end the process again and again.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use tower::ServiceExt;

use crate::edge::api::Problem;

/// Lets nobody in until the log is open: then all goes to what stands behind it.
#[derive(Clone, Default)]
pub struct Door {
    behind: Arc<OnceLock<Router>>,
    waits: Arc<RwLock<Option<String>>>,
}

impl Door {
    /// Says why the log is not open yet.
    pub fn waits_for(&self, reason: String) {
        *self.waits.write().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// From now on `router` answers.
    pub fn open(&self, router: Router) {
        let set = self.behind.set(router);
        debug_assert!(set.is_ok(), "a door opens once");
    }

    /// What answers at all times.
    pub fn router(&self) -> Router {
        let (door, behind) = (self.clone(), Arc::clone(&self.behind));
        let waits = move || std::future::ready(door.why());
        let closed = Router::new().route("/healthz", get(super::alive)).fallback(waits).layer(from_fn(super::guarded));
        Router::new().fallback(move |request: Request| behind.get().unwrap_or(&closed).clone().oneshot(request))
    }

    fn why(&self) -> Problem {
        let title = match &*self.waits.read().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => format!("the log cannot be reached: {reason}"),
            None => "the log is still being opened".to_owned(),
        };
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, "it tries again by itself: wait").retry_after(1)
    }
}
