//! What each path answers.

use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::status::Status;
use super::view::View;
use super::{metrics, page, ready};
use crate::link::{Order, Orders, Reply};
use crate::observe::running::Reloaded;

const PAGE: &str = "/";
const STATUS: &str = "/v1/status";
const RELOAD: &str = "/v1/reload";
const UPGRADE: &str = "/v1/upgrade";
const METRICS: &str = "/metrics";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// Every path there is.
const PATHS: [&str; 7] = [PAGE, STATUS, RELOAD, UPGRADE, METRICS, HEALTHZ, READYZ];

/// The longest body of a request, in bytes.
const LONGEST_BODY: usize = 64 << 10;

/// The methods of what can only be read.
const READ: &str = "GET, HEAD";

const TEXT: &str = "text/plain; charset=utf-8";

const JSON: &str = "application/json";

/// What may be asked where a request comes in.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// Everything: the Unix socket, which the file system guards. What changes something goes here.
    Full(Orders),
    /// What changes nothing: the TCP listener, which anybody may reach.
    ReadOnly,
}

/// What `POST /v1/reload` takes; no body is all of it by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadRequest {
    /// Also where `reload.guard` would refuse it.
    pub force: bool,
}

/// What `POST /v1/reload` answers: with 200 where it was applied, else with 409.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// `applied`, `invalid`, `refused` or `failed`.
    pub result: String,
    /// The configurations applied so far.
    pub generation: u64,
    /// What has changed, a line each.
    pub changes: Vec<String>,
    /// Why nothing was applied, and what to do.
    pub error: Option<String>,
}

/// What `POST /v1/upgrade` takes: nothing yet.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeRequest {}

/// What `POST /v1/upgrade` answers: with 200 where another process has taken over, else with 409.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeAnswer {
    /// The process that serves now.
    pub pid: Option<u32>,
    /// Why this one serves on.
    pub error: Option<String>,
}

/// The answer to one request.
pub(super) async fn answer(
    view: &View,
    access: &Access,
    request: Request<Incoming>,
    at_work: &AtomicBool,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let orders = match access {
        Access::Full(orders) => Some(orders),
        Access::ReadOnly if reads => None,
        Access::ReadOnly => {
            return not_allowed(
                "this listener is read-only: use GET here, and the admin socket for what changes anything".into(),
                READ,
            );
        }
    };
    if [RELOAD, UPGRADE].contains(&path) {
        return match orders {
            Some(orders) if request.method() == Method::POST && path == RELOAD => {
                reload(orders, request, at_work).await
            }
            Some(orders) if request.method() == Method::POST => upgrade(orders, request, at_work).await,
            Some(_) => not_allowed(format!("{path} changes something: use POST"), "POST"),
            None => not_allowed(format!("this listener is read-only: {path} is for the admin socket"), READ),
        };
    }
    if !PATHS.contains(&path) {
        let error = format!("there is nothing at {path}");
        return json(StatusCode::NOT_FOUND, &Refusal { error, paths: Some(PATHS) });
    }
    if !reads {
        return not_allowed(format!("{path} can only be read: use GET"), READ);
    }
    if !request.body().is_end_stream() {
        return too_large(format!("{path} takes no body"));
    }
    match path {
        PAGE => document(),
        STATUS => json(StatusCode::OK, &Status::of(view)),
        METRICS => respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(view).into()),
        READYZ => match ready::unready(&view.table.load()) {
            lines if lines.is_empty() => ok(),
            lines => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.into()),
        },
        _ => ok(),
    }
}

async fn reload(orders: &Orders, request: Request<Incoming>, at_work: &AtomicBool) -> Response<Full<Bytes>> {
    let ReloadRequest { force } = match body(request).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let (answer, reply) = oneshot::channel();
    match ordered(orders, Order::Reload { force, answer }, reply, at_work).await {
        Some(Reply { result, generation, changes, error }) => {
            let code = if result == Reloaded::Applied { StatusCode::OK } else { StatusCode::CONFLICT };
            json(code, &ReloadAnswer { result: result.label().into(), generation, changes, error })
        }
        None => too_busy(),
    }
}

async fn upgrade(orders: &Orders, request: Request<Incoming>, at_work: &AtomicBool) -> Response<Full<Bytes>> {
    if let Err(response) = body::<UpgradeRequest>(request).await {
        return response;
    }
    let (answer, reply) = oneshot::channel();
    match ordered(orders, Order::Upgrade { answer }, reply, at_work).await {
        Some(Ok(pid)) => json(StatusCode::OK, &UpgradeAnswer { pid: Some(pid), error: None }),
        Some(Err(why)) => json(StatusCode::CONFLICT, &UpgradeAnswer { pid: None, error: Some(why) }),
        None => too_busy(),
    }
}

/// Passes an order on and waits for its outcome; `None`: nobody takes it.
async fn ordered<T>(orders: &Orders, order: Order, reply: oneshot::Receiver<T>, at_work: &AtomicBool) -> Option<T> {
    at_work.store(true, Ordering::Relaxed);
    let outcome = match orders.try_send(order) {
        Ok(()) => reply.await.ok(),
        Err(_) => None,
    };
    at_work.store(false, Ordering::Relaxed);
    outcome
}

fn too_busy() -> Response<Full<Bytes>> {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping, or too busy: try again".into())
}

/// A request's body, read from JSON; an empty one says nothing.
async fn body<T: Default + DeserializeOwned>(request: Request<Incoming>) -> Result<T, Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let bytes = match Limited::new(request.into_body(), LONGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(too_large(format!("{path} takes a body of at most {LONGEST_BODY} bytes"))),
    };
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, format!("{path} does not understand this body: {error}")))
}

fn document() -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::OK, page::CONTENT_TYPE, Bytes::from_static(page::DOCUMENT.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, page::policy());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn ok() -> Response<Full<Bytes>> {
    respond(StatusCode::OK, TEXT, Bytes::from_static(b"ok\n"))
}

fn not_allowed(error: String, allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, error);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn too_large(error: String) -> Response<Full<Bytes>> {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn refuse(code: StatusCode, error: String) -> Response<Full<Bytes>> {
    json(code, &Refusal { error, paths: None })
}

/// Why a request is not answered.
#[derive(Serialize)]
struct Refusal {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<[&'static str; PATHS.len()]>,
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
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    response
}
