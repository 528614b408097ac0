//! Bodies: read within a budget of memory, and refused so that the client hears it.
//!
//! Reading a body of JSON takes a multiple of it, so what is read and parsed at once has a budget in bytes, taken before the first
//! of them is read. A client that sends all of its body before it listens would only see its connection break where the answer came
//! first: what is refused is read to its end, up to a bound, and thrown away.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::MAX_BODY_BYTES;

/// The most bytes of bodies that are read and parsed at once: eight of the largest, which keep more cores busy than a commit needs.
const BUDGET_BYTES: usize = 8 * MAX_BODY_BYTES;

/// What is counted of a body: this, and each begun one.
const UNIT: usize = 1024;

/// The most that is read of a refused body: four of the largest. Who sends more sees the connection end.
const DRAINED_BYTES: usize = 4 * MAX_BODY_BYTES;

/// How long that may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// The memory for bodies.
pub(super) struct Budget(Arc<Semaphore>);

/// A part of it, until it is dropped.
pub(super) type Share = OwnedSemaphorePermit;

impl Budget {
    pub(super) fn new() -> Budget {
        Budget(Arc::new(Semaphore::new(BUDGET_BYTES / UNIT)))
    }

    /// Waits for the memory of `bytes`, in turn; `None` where it is not free within `wait`.
    pub(super) async fn share(&self, bytes: usize, wait: Duration) -> Option<Share> {
        let units = u32::try_from(bytes.clamp(1, MAX_BODY_BYTES).div_ceil(UNIT)).ok()?;
        tokio::time::timeout(wait, Arc::clone(&self.0).acquire_many_owned(units)).await.ok()?.ok()
    }
}

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than one may be.
    TooLarge,
    /// The connection broke, or what came is no body; why.
    Broken(String),
    /// It is said to be compressed, and cannot be unpacked; why.
    NotGzip(String),
}

/// How large a body is, as the client says: at most [`MAX_BODY_BYTES`] where it does not.
///
/// # Errors
/// [`Unread::TooLarge`].
pub(super) fn announced(body: &Body) -> Result<usize, Unread> {
    match body.size_hint().exact() {
        None => Ok(MAX_BODY_BYTES),
        Some(bytes) => usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_BODY_BYTES).ok_or(Unread::TooLarge),
    }
}

/// Reads a body whole.
///
/// # Errors
/// [`Unread`].
pub(super) async fn read(body: &mut Body) -> Result<Vec<u8>, Unread> {
    let mut whole = Vec::with_capacity(body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0).min(MAX_BODY_BYTES));
    let mut data = body.into_data_stream();
    while let Some(bytes) = data.next().await {
        let bytes = bytes.map_err(|error| Unread::Broken(error.to_string()))?;
        if whole.len() + bytes.len() > MAX_BODY_BYTES {
            return Err(Unread::TooLarge);
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// Unpacks a body that was compressed with gzip.
///
/// # Errors
/// [`Unread::NotGzip`], and [`Unread::TooLarge`] where it would be larger unpacked than one may be.
pub(super) fn unpacked(packed: &[u8]) -> Result<Vec<u8>, Unread> {
    let mut whole = Vec::new();
    // One byte more tells that there is more; nothing is unpacked beyond it.
    let read = MultiGzDecoder::new(packed).take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut whole);
    match read {
        Err(error) => Err(Unread::NotGzip(error.to_string())),
        Ok(bytes) if bytes > MAX_BODY_BYTES => Err(Unread::TooLarge),
        Ok(_) => Ok(whole),
    }
}

/// Reads what is left of a refused body and throws it away. Who asked first whether to send it (`Expect: 100-continue`) has not sent it.
pub(super) async fn drain(headers: &HeaderMap, body: Body) {
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return;
    }
    let mut data = body.into_data_stream();
    let all = async {
        let mut drained = 0;
        while let Some(Ok(bytes)) = data.next().await {
            drained += bytes.len();
            if drained > DRAINED_BYTES {
                break;
            }
        }
    };
    // Too slow: the connection ends with the answer.
    let _ = tokio::time::timeout(DRAIN_DEADLINE, all).await;
}
