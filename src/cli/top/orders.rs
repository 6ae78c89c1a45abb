//! Orders to the balancer, each on a thread of its own, so that a slow answer holds up no frame.

use std::time::Duration;

use anyhow::Context;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::screen::Request;
use crate::cli::client::Target;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What any order is answered with.
#[derive(Deserialize)]
struct Answer {
    message: Option<String>,
    error: Option<String>,
}

/// Passes an order on: what was done, or why it was not.
pub(super) fn order(target: &Target, request: &Request) -> Result<String, String> {
    ask(target, request).unwrap_or_else(|error| Err(format!("{error:#}")))
}

fn ask(target: &Target, request: &Request) -> anyhow::Result<Result<String, String>> {
    let (path, document) = match request {
        Request::Drain { backend, time, reason, force } => {
            ("/v1/drain", json!({ "backend": backend, "for": time, "reason": reason, "force": force }))
        }
        Request::Restore(backend) => ("/v1/restore", json!({ "backend": backend })),
        Request::Forget(backend) => ("/v1/forget", json!({ "backend": backend })),
    };
    let (status, body) = target.post(path, &document, PATIENCE)?;
    let answer: Answer = serde_json::from_slice(&body)
        .with_context(|| format!("the balancer answers with {status}: {}", String::from_utf8_lossy(&body).trim()))?;
    Ok(if status == StatusCode::OK {
        Ok(answer.message.unwrap_or_else(|| "done".into()))
    } else {
        Err(answer.error.unwrap_or_else(|| format!("the balancer answers with {status}")))
    })
}
