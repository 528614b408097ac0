//! How the interface says that something is wrong (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Ingested;

/// An error as the interface answers it (RFC 9457): what is wrong, where, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong.
    pub title: String,
    /// Where: the field, parameter or target.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// The way out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
    /// After how many seconds to try again, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The lines that were not taken, of a request with samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingested: Option<Box<Ingested>>,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, title: impl Into<String>, mend: impl Into<String>) -> Self {
        Problem { status: status.as_u16(), title: title.into(), place: String::new(), mend: mend.into(), retry_after: None, ingested: None }
    }

    /// With where it is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// To be tried again after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
