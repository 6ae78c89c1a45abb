//! What each path answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::connections::{Progress, Terms};
use super::host::{self, Hosts};
use super::status::Status;
use super::view::View;
use super::{metrics, page, ready};
use crate::duration;
use crate::messages::{AdminRequest, AdminRequests, Draining, Outcome, Reply};
use crate::observe::condition::Purpose;
use crate::observe::running::Reloaded;
use crate::observe::timeline::Event;

const PAGE: &str = "/";
const STATUS: &str = "/v1/status";
const RELOAD: &str = "/v1/reload";
const UPGRADE: &str = "/v1/upgrade";
const DRAIN: &str = "/v1/drain";
const RESTORE: &str = "/v1/restore";
const FORGET: &str = "/v1/forget";
const TIMELINE: &str = "/v1/timeline";
const METRICS: &str = "/metrics";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// Every path there is.
const PATHS: [&str; 11] = [PAGE, STATUS, TIMELINE, RELOAD, UPGRADE, DRAIN, RESTORE, FORGET, METRICS, HEALTHZ, READYZ];

/// Those that change something.
const CHANGES: [&str; 5] = [RELOAD, UPGRADE, DRAIN, RESTORE, FORGET];

/// Events of the timeline in one answer, where the request names no number.
const EVENTS: usize = 1000;

/// The longest body of a request, in bytes.
const LONGEST_BODY: usize = 64 << 10;

/// The longest reason, in characters.
const LONGEST_REASON: usize = 200;

/// The methods of what can only be read.
const READ: &str = "GET, HEAD";

const TEXT: &str = "text/plain; charset=utf-8";

const JSON: &str = "application/json";

/// What may be asked where a request comes in.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// Everything: the Unix socket, which the file system guards. What changes something goes here, by whom the socket names.
    Full(AdminRequests, String),
    /// What changes nothing, asked under an address, `localhost` or one of these names: the TCP listener, which anybody may reach.
    ReadOnly(Hosts),
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
    /// What in the file may mean something else than its author thinks, a line each; none by a process of 0.1.0.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why nothing was applied, and what to do.
    pub error: Option<String>,
}

/// What `POST /v1/drain` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainRequest {
    /// `SERVICE/BACKEND`.
    pub backend: String,
    /// For how long: `30m`.
    #[serde(rename = "for")]
    pub length: String,
    /// Why.
    pub reason: String,
    /// Also where too few would be left to serve.
    pub force: bool,
    /// After what time open sessions are closed; null: they finish by themselves.
    pub close_after: Option<String>,
    /// Over what time their ends are spread.
    pub spread: Option<String>,
    /// To see what the backend's loss would mean: it ends when so many clients were refused.
    pub abort_if_refused: Option<u64>,
}

/// What `POST /v1/restore` and `POST /v1/forget` take.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendRequest {
    /// `SERVICE/BACKEND`.
    pub backend: String,
}

/// What those three answer: with 200 where it was done, else with 409.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// What was done.
    pub message: Option<String>,
    /// Why nothing was, and what to do.
    pub error: Option<String>,
}

/// What `GET /v1/timeline` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimelineAnswer {
    /// Oldest first.
    pub events: Vec<Event>,
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
    /// Why this one keeps serving.
    pub error: Option<String>,
}

/// Puts together an answer that takes its time.
type LongAnswer = Box<dyn FnOnce(&View) -> Response<Full<Bytes>> + Send>;

/// The answer to one request.
pub(super) async fn answer(
    terms: &Terms,
    access: &Access,
    request: Request<Incoming>,
    progress: &Progress,
) -> Response<Full<Bytes>> {
    if let Access::ReadOnly(hosts) = access
        && let Err((code, why)) = host::check(&request, hosts)
    {
        return refuse(code, why);
    }
    let path = request.uri().path();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let change = CHANGES.contains(&path);
    match access {
        Access::ReadOnly(_) if !reads => {
            return not_allowed(
                "this listener is read-only: use GET here, and the admin socket for what changes anything".into(),
                READ,
            );
        }
        Access::ReadOnly(_) if change => {
            return not_allowed(format!("this listener is read-only: {path} is for the admin socket"), READ);
        }
        Access::Full(requests, by) if change && request.method() == Method::POST => {
            return request_change(requests, by, request, progress).await.unwrap_or_else(|response| response);
        }
        Access::Full(..) if change => return not_allowed(format!("{path} changes something: use POST"), "POST"),
        _ => {}
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
    progress.asked.store(true, Ordering::Relaxed);
    let view = Arc::clone(&terms.view);
    let long = async |answer: LongAnswer| {
        terms.long_answers.put_together(move || answer(&view)).await.unwrap_or_else(too_busy)
    };
    let view = &terms.view;
    match path {
        PAGE => document(),
        STATUS => {
            let on_disk = view.disk.compare(&view.running.file.load_full()).await;
            long(Box::new(move |view| json(StatusCode::OK, &Status::of(view, on_disk)))).await
        }
        TIMELINE => {
            let query = request.uri().query().unwrap_or_default().to_owned();
            long(Box::new(move |view| timeline(view, &query))).await
        }
        METRICS => {
            long(Box::new(|view| respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(view).into()))).await
        }
        READYZ => match ready::unready(&view.table.load(), view.running.is_stopping()) {
            lines if lines.is_empty() => ok(),
            lines => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.into()),
        },
        _ => ok(),
    }
}

/// `since=2h&limit=200`.
fn timeline(view: &View, query: &str) -> Response<Full<Bytes>> {
    let (mut since, mut limit) = (None, EVENTS);
    for (key, value) in
        query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
    {
        let wrong = |what: &str| refuse(StatusCode::BAD_REQUEST, format!("{TIMELINE}: {key}: {what}"));
        match key {
            "since" => {
                match duration::parse(value).map(|ago| SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX)) {
                    Ok(ago) => since = Timestamp::now().checked_sub(ago).ok(),
                    Err(why) => return wrong(&why),
                }
            }
            "limit" => match value.parse() {
                Ok(number) => limit = number,
                Err(_) => return wrong("a number is due"),
            },
            _ => return wrong("there are since=2h and limit=200"),
        }
    }
    json(StatusCode::OK, &TimelineAnswer { events: view.timeline.since(since, limit) })
}

/// Passes on what changes something.
async fn request_change(
    requests: &AdminRequests,
    by: &str,
    request: Request<Incoming>,
    progress: &Progress,
) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let by = by.to_owned();
    match request.uri().path() {
        RELOAD => {
            let ReloadRequest { force } = body(request).await?;
            let Reply { result, generation, changes, warnings, error } =
                forward(requests, progress, |answer| AdminRequest::Reload { by, force, answer }).await?;
            let code = if result == Reloaded::Applied { StatusCode::OK } else { StatusCode::CONFLICT };
            Ok(json(code, &ReloadAnswer { result: result.label().into(), generation, changes, warnings, error }))
        }
        UPGRADE => {
            body::<UpgradeRequest>(request).await?;
            Ok(match forward(requests, progress, |answer| AdminRequest::Upgrade { by, answer }).await? {
                Ok(pid) => json(StatusCode::OK, &UpgradeAnswer { pid: Some(pid), error: None }),
                Err(why) => json(StatusCode::CONFLICT, &UpgradeAnswer { pid: None, error: Some(why) }),
            })
        }
        DRAIN => {
            let draining = draining(body(request).await?).map_err(|why| refuse(StatusCode::BAD_REQUEST, why))?;
            forward(requests, progress, |answer| AdminRequest::Drain { draining, by, answer }).await.map(said)
        }
        path => {
            let forget = path == FORGET;
            let BackendRequest { backend } = body(request).await?;
            let (service, backend) = parts(&backend).map_err(|why| refuse(StatusCode::BAD_REQUEST, why))?;
            let request_for = |answer| {
                if forget {
                    AdminRequest::Forget { service, backend, by, answer }
                } else {
                    AdminRequest::Restore { service, backend, by, answer }
                }
            };
            forward(requests, progress, request_for).await.map(said)
        }
    }
}

fn draining(request: DrainRequest) -> Result<Draining, String> {
    let DrainRequest { backend, length, reason, force, close_after, spread, abort_if_refused } = request;
    let (service, backend) = parts(&backend)?;
    let time =
        |key: &str, text: &str| duration::parse(text).map_err(|why| format!("`{key}`: {text:?} is no duration: {why}"));
    let length = time("for", &length)?;
    let spread = spread.map_or(Ok(Duration::ZERO), |spread| time("spread", &spread))?;
    let close = close_after.map(|after| time("close_after", &after)).transpose()?.map(|after| (after, spread));
    if let Some((after, _)) = close
        && after >= length
    {
        return Err("`close_after`: the drain is over by then; a shorter time is due, or a longer `for`".into());
    }
    if close.is_none() && !spread.is_zero() {
        return Err("`spread`: over what time sessions are closed; `close_after` says when that begins".into());
    }
    let purpose = if abort_if_refused.is_some() { Purpose::Drill } else { Purpose::Drain };
    // It is shown to people, on terminals and in logs.
    let reason = reason.replace(char::is_control, " ").trim().chars().take(LONGEST_REASON).collect();
    Ok(Draining { service, backend, length, reason, purpose, force, close, abort: abort_if_refused })
}

/// Service and backend of `web/web-02`.
fn parts(name: &str) -> Result<(String, String), String> {
    match name.split_once('/') {
        Some((service, backend)) if !service.is_empty() && !backend.is_empty() => Ok((service.into(), backend.into())),
        _ => Err(format!("`backend`: SERVICE/BACKEND is due, such as web/web-02; found {name:?}")),
    }
}

fn said(outcome: Outcome) -> Response<Full<Bytes>> {
    match outcome {
        Ok(message) => json(StatusCode::OK, &Said { message: Some(message), error: None }),
        Err(why) => json(StatusCode::CONFLICT, &Said { message: None, error: Some(why) }),
    }
}

/// Passes on the request that `request_for` makes of where its outcome goes, and waits for that; an error answers that nobody takes it.
async fn forward<T>(
    requests: &AdminRequests,
    progress: &Progress,
    request_for: impl FnOnce(oneshot::Sender<T>) -> AdminRequest,
) -> Result<T, Response<Full<Bytes>>> {
    let (answer, reply) = oneshot::channel();
    progress.asked.store(true, Ordering::Relaxed);
    progress.at_work.store(true, Ordering::Relaxed);
    let outcome = match requests.try_send(request_for(answer)) {
        Ok(()) => reply.await.ok(),
        Err(_) => None,
    };
    progress.at_work.store(false, Ordering::Relaxed);
    outcome.ok_or_else(too_busy)
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
