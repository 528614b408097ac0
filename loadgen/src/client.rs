//! A small HTTP/1.1 client: kept connections, a deadline on everything, bounded answers.
//!
//! It knows nothing of retries: those differ between the driver (another endpoint) and the report (the same one, later).

use std::fmt;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{HeaderMap, InvalidHeaderValue};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Longer answers are cut off by an error: the largest read here is the status of a fleet, a few kilobytes.
const ANSWER_BYTES: usize = 1 << 20;

/// Loopback answers a connection attempt in microseconds or not at all.
const CONNECT: Duration = Duration::from_secs(1);

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, in full.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// Nothing was sent: there is no connection. Safe to try elsewhere.
    Connect(String),
    /// The deadline passed.
    Deadline(Duration),
    /// The connection broke, or the answer was no HTTP. The request may have been served.
    Broken(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Connect(why) => write!(f, "cannot connect: {why}"),
            ClientError::Deadline(after) => write!(f, "no answer within {after:?}"),
            ClientError::Broken(why) => write!(f, "the connection broke: {why}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// The client. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Body>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client without connections yet. It must be used within a tokio runtime.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Client { pool: Pool::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector) }
    }

    /// Gets `uri`.
    pub async fn get(&self, uri: &Uri, deadline: Duration) -> Result<Answer, ClientError> {
        self.send(Method::GET, uri, None, Body::empty(), deadline).await
    }

    /// Posts `body` to `uri`.
    pub async fn post(&self, uri: &Uri, content_type: &str, body: Bytes, deadline: Duration) -> Result<Answer, ClientError> {
        self.send(Method::POST, uri, Some(content_type), Body::from(body), deadline).await
    }

    async fn send(&self, method: Method, uri: &Uri, content_type: Option<&str>, body: Body, deadline: Duration) -> Result<Answer, ClientError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_str(content_type).map_err(|error: InvalidHeaderValue| ClientError::Broken(error.to_string()))?;
            request.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        tokio::time::timeout(deadline, self.exchange(request)).await.map_err(|_| ClientError::Deadline(deadline))?
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answer, ClientError> {
        let response = self.pool.request(request).await.map_err(|error| {
            let why = innermost(&error);
            if error.is_connect() { ClientError::Connect(why) } else { ClientError::Broken(why) }
        })?;
        let (head, body) = response.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_BYTES).await.map_err(|error| ClientError::Broken(innermost(&error)))?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// The cause at the bottom says what happened; those above it only say where.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_a_connect_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let error = Client::new().get(&uri, Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, ClientError::Connect(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_meets_the_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let error = Client::new().get(&uri, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error, ClientError::Deadline(Duration::from_millis(50)));
    }
}
