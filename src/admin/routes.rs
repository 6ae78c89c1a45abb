//! What each path answers.

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::status::Status;
use super::view::View;
use super::{metrics, ready};

const STATUS: &str = "/v1/status";
const METRICS: &str = "/metrics";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// Every path there is.
const PATHS: [&str; 4] = [STATUS, METRICS, HEALTHZ, READYZ];

const TEXT: &str = "text/plain; charset=utf-8";

const JSON: &str = "application/json";

/// What may be asked where a request comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything: the Unix socket, which the file system guards.
    Full,
    /// What changes nothing: the TCP listener, which anybody may reach.
    ReadOnly,
}

/// The answer to one request.
pub(super) fn answer(view: &View, access: Access, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if access == Access::ReadOnly && !reads {
        return not_allowed(
            "this listener is read-only: use GET here, and the admin socket for what changes anything".into(),
        );
    }
    if !PATHS.contains(&path) {
        let error = format!("there is nothing at {path}");
        return json(StatusCode::NOT_FOUND, &Refusal { error, paths: Some(PATHS) });
    }
    if !reads {
        return not_allowed(format!("{path} can only be read: use GET"));
    }
    if !request.body().is_end_stream() {
        let error = format!("{path} takes no body");
        return json(StatusCode::PAYLOAD_TOO_LARGE, &Refusal { error, paths: None });
    }
    match path {
        STATUS => json(StatusCode::OK, &Status::of(view)),
        METRICS => respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(view).into()),
        READYZ => match ready::unready(&view.table.load()) {
            lines if lines.is_empty() => ok(),
            lines => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.into()),
        },
        _ => ok(),
    }
}

fn ok() -> Response<Full<Bytes>> {
    respond(StatusCode::OK, TEXT, Bytes::from_static(b"ok\n"))
}

fn not_allowed(error: String) -> Response<Full<Bytes>> {
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &Refusal { error, paths: None });
    response.headers_mut().insert(ALLOW, const { hyper::header::HeaderValue::from_static("GET, HEAD") });
    response
}

/// Why a request is not answered.
#[derive(Serialize)]
struct Refusal {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<[&'static str; 4]>,
}

fn json(code: StatusCode, document: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(document) {
        Ok(mut text) => {
            text.push(b'\n');
            respond(code, JSON, text.into())
        }
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n").into()),
    }
}

fn respond(code: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    use hyper::header::HeaderValue;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    response
}
