//! Refusals as problem details (RFC 9457). `error` repeats `detail`, which clients of the original read.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::json;

use crate::admission::Refusal;
use crate::input::InputRefusal;
use crate::service::{AlreadyEnded, RETRY_AFTER as LATER, SubmitError};
use crate::submission::Invalid;

/// Details quote what was sent, which can be anything; characters.
const LONGEST_DETAIL: usize = 2000;

#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(LONGEST_DETAIL) {
            detail.truncate(end);
            detail.push('…');
        }
        Problem { status, detail, retry_after: None }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// We cannot take more just now.
    pub fn busy(detail: &str) -> Self {
        Problem { retry_after: Some(LATER), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    pub fn unknown_execution() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "There is no execution with this id; it never was, or its retention has ended.",
        )
    }

    /// The sentence for the person.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn response(&self) -> Response<String> {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "error": self.detail,
        });
        let mut response = Response::new(body.to_string());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match &error {
            SubmitError::Invalid(Invalid::Field(_)) => Self::bad_request(error.to_string()),
            SubmitError::Invalid(Invalid::TooLarge(_)) => Self::too_large(error.to_string()),
            SubmitError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            SubmitError::Refused(refusal) => {
                let status = match refusal {
                    Refusal::TooManyOfClient => StatusCode::TOO_MANY_REQUESTS,
                    Refusal::QueueFull | Refusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
                };
                let detail = format!("{refusal}; try again later");
                Problem { status, detail, retry_after: Some(LATER) }
            }
        }
    }
}

impl From<InputRefusal> for Problem {
    fn from(refusal: InputRefusal) -> Self {
        let status = match refusal {
            InputRefusal::Ended | InputRefusal::EofSent => StatusCode::CONFLICT,
            InputRefusal::Full => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::new(status, refusal.to_string())
    }
}

impl From<AlreadyEnded> for Problem {
    fn from(error: AlreadyEnded) -> Self {
        Self::new(StatusCode::CONFLICT, error.to_string())
    }
}
