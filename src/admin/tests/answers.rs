//! What each path answers.

use std::path::Path;
use std::sync::Arc;

use prometheus_parse::{Scrape, Value};
use serde_json::{Value as Json, json};

use super::{exchange, request, start, view};
use crate::messages::{AdminRequest, Reply};
use crate::observe::counters::{Closed, Probed, Refused};
use crate::observe::running::Reloaded;
use crate::table::Permit;

fn get_json(path: &Path, target: &str) -> Json {
    let (code, head, body) = request(path, "GET", target);
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    serde_json::from_str(&body).unwrap()
}

fn scrape(path: &Path) -> Scrape {
    let (code, head, body) = request(path, "GET", "/metrics");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// The one sample of this name and these labels.
fn sample(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> Value {
    let matches: Vec<_> = scrape
        .samples
        .iter()
        .filter(|sample| sample.metric == format!("balancer_{name}"))
        .filter(|sample| labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value)))
        .collect();
    assert_eq!(matches.len(), 1, "{name}{labels:?} in {matches:?}");
    matches[0].value.clone()
}

#[test]
fn the_status_tells_names_numbers_and_reasons() {
    let running = start(view(&["web"], &["web-01", "web-02"]));
    let table = running.view.table.load();
    let (service, backend) = (&table.services[0], &table.services[0].backends[1]);
    let counters = [backend.counters.of(0), backend.counters.of(1)];
    counters[0].sessions.add(2);
    counters[1].sessions.add(3);
    counters[0].bytes_in.add(9001);
    counters[1].bytes_out.add(88211);
    counters[1].connect_failures.add(4);
    service.state.counters.of(1).accepted.add(13);
    service.state.counters.of(0).closed[Closed::BackendReset as usize].add(7);
    service.state.counters.of(0).refused[Refused::Descriptors as usize].add(5);
    service.state.counters.of(1).refused[Refused::NoBackend as usize].add(1);
    running.view.counters.of(0).pipes.set(6);
    let held = (Permit::take(&running.view.sessions), Permit::take(&service.state), Permit::take(backend));

    let status = get_json(&running.path, "/v1/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], std::process::id());
    assert_eq!([&status["sessions"], &status["max_connections"], &status["pipes"]], [1, 9000, 6]);
    assert!(status["descriptors"].as_u64().unwrap() > 3);
    assert_eq!(status["config"]["path"], "/does/not/exist.yaml");
    assert_eq!(status["config"]["generation"], 1);
    assert_eq!(status["config"]["on_disk"], "missing");
    assert_eq!(status["config"]["sha256"], "00".repeat(32));
    let started = status["started"].as_str().unwrap();
    assert!(started.ends_with('Z') && started.parse::<jiff::Timestamp>().is_ok(), "{started}");

    let web = &status["services"]["web"];
    assert_eq!([&web["balance"], &web["state"]], ["round_robin", "ok"]);
    assert_eq!([&web["connections"], &web["total"], &web["refused"], &web["accepted"]], [1, 5, 6, 13]);
    assert_eq!(web["closed"]["backend_reset"], 7);
    assert_eq!(web["closed"].as_object().unwrap().len(), Closed::ALL.len());
    assert_eq!([&web["refused_by"]["descriptors"], &web["refused_by"]["no_backend"]], [5, 1]);
    assert_eq!(web["refused_by"].as_object().unwrap().len(), Refused::ALL.len());
    // Since when it is up is read off the clock a moment before or after the start of the process.
    let since = web["backends"]["web-02"]["since"].as_str().unwrap();
    let apart = |time: &str| time.parse::<jiff::Timestamp>().unwrap().duration_since(started.parse().unwrap());
    assert!(apart(since).abs() < jiff::SignedDuration::from_secs(10), "{started} and {since}");
    let expected = json!({
        "address": "10.0.0.11:8081", "role": "primary", "state": "up", "since": since, "reason": "not probed",
        "weight": 2, "connections": 1, "max_connections": 400, "peak": 1, "total": 5, "failures": 4,
        "bytes_in": 9001, "bytes_out": 88211, "probe_ms": null, "drain": null
    });
    assert_eq!(web["backends"]["web-02"], expected);
    drop(held);
    assert_eq!(get_json(&running.path, "/v1/status")["services"]["web"]["connections"], 0);
}

#[test]
fn services_and_backends_keep_the_order_of_the_file() {
    let running = start(view(&["zebra", "ant"], &["z", "a", "m"]));
    let status: crate::admin::status::Status = serde_json::from_value(get_json(&running.path, "/v1/status")).unwrap();
    assert_eq!(status.services.keys().collect::<Vec<_>>(), ["zebra", "ant"]);
    assert_eq!(status.services["zebra"].backends.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
}

#[test]
fn it_answers_before_any_listener_is_bound() {
    let running = start(view(&["web"], &["web-01"]));
    assert_eq!(get_json(&running.path, "/v1/status")["services"]["web"]["listen"], json!([]));
    let bound = [("web".into(), vec!["127.0.0.1:41007".to_owned()])].into_iter().collect();
    running.view.running.listening.store(Arc::new(bound));
    assert_eq!(get_json(&running.path, "/v1/status")["services"]["web"]["listen"], json!(["127.0.0.1:41007"]));
}

#[test]
fn the_metrics_are_the_sums_over_all_workers() {
    let running = start(view(&["web", "db"], &["web-01", "web-02"]));
    let table = running.view.table.load();
    let (service, backend) = (&table.services[0], &table.services[0].backends[0]);
    for worker in 0..2 {
        backend.counters.of(worker).sessions.add(10);
        backend.counters.of(worker).bytes_in.add(1 << 40);
        backend.counters.of(worker).connect_time.record(700);
        service.state.counters.of(worker).closed[Closed::Idle as usize].add(3);
        service.state.counters.of(worker).duration.record(2_500_000);
    }
    backend.probes.results[Probed::TimedOut as usize].add(4);
    backend.probes.time.record(700);
    // Beyond the last bound.
    service.state.counters.of(0).duration.record(4000 * 1_000_000);
    let _held = Permit::take(&service.state);

    let scrape = scrape(&running.path);
    let of = |name, labels| sample(&scrape, name, labels);
    assert_eq!(of("workers", &[]), Value::Gauge(2.0));
    assert_eq!(of("build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Value::Gauge(1.0));
    assert_eq!(of("config_generation", &[]), Value::Gauge(1.0));
    assert_eq!(of("pipes_max", &[]), Value::Gauge(64.0));
    assert_eq!(of("descriptors_max", &[]), Value::Gauge(20000.0));
    assert!(matches!(of("descriptors", &[]), Value::Gauge(open) if open > 3.0));
    assert_eq!(of("sessions", &[("service", "web")]), Value::Gauge(1.0));
    assert_eq!(of("sessions_total", &[("service", "web")]), Value::Counter(20.0));
    assert_eq!(of("sessions_total", &[("service", "db")]), Value::Counter(0.0));
    assert_eq!(of("sessions_closed_total", &[("service", "web"), ("reason", "idle")]), Value::Counter(6.0));
    let web_01 = [("service", "web"), ("backend", "web-01")];
    assert_eq!(of("backend_sessions_total", &web_01), Value::Counter(20.0));
    assert_eq!([of("backend_up", &web_01), of("backend_drained", &web_01)], [Value::Gauge(1.0), Value::Gauge(0.0)]);
    let probes = sample(&scrape, "probes_total", &[web_01[0], web_01[1], ("result", "timed_out")]);
    assert_eq!(probes, Value::Counter(4.0));
    assert_eq!(of("probe_seconds_count", &web_01), Value::Untyped(1.0));
    assert_eq!(of("access_log_dropped_total", &[]), Value::Counter(0.0));
    let bytes = sample(&scrape, "bytes_total", &[web_01[0], web_01[1], ("direction", "in")]);
    assert_eq!(bytes, Value::Counter((1u64 << 41) as f64));

    let Value::Histogram(buckets) = of("session_duration_seconds", &[("service", "web")]) else { panic!() };
    let count_below = |bound: f64| buckets.iter().find(|bucket| bucket.less_than == bound).unwrap().count;
    assert_eq!([1.0, 10.0, 3600.0, f64::INFINITY].map(count_below), [0.0, 2.0, 2.0, 3.0]);
    assert_eq!(of("session_duration_seconds_sum", &[("service", "web")]), Value::Untyped(4005.0));
    assert_eq!(of("session_duration_seconds_count", &[("service", "web")]), Value::Untyped(3.0));
    assert!(matches!(of("backend_connect_seconds", &web_01), Value::Histogram(_)));
}

#[test]
fn every_family_is_described_and_stands_in_one_piece() {
    let running = start(view(&["web", "db"], &["web-01", "web-02"]));
    let (_, _, body) = request(&running.path, "GET", "/metrics");
    let mut families = Vec::new();
    for lines in body.lines().collect::<Vec<_>>().chunk_by(|_, next| !next.starts_with("# HELP ")) {
        let name = lines[0].strip_prefix("# HELP ").unwrap().split(' ').next().unwrap();
        let kind = lines[1].strip_prefix(&format!("# TYPE {name} ")).unwrap();
        assert!(["gauge", "counter", "histogram"].contains(&kind), "{kind}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(lines.len() > 2 && lines[2..].iter().all(|line| line.starts_with(name)), "{lines:?}");
        assert!(!families.contains(&name), "{name} comes twice");
        families.push(name);
    }
    assert!(families.len() >= 17, "{families:?}");
}

#[test]
fn odd_names_are_escaped_in_labels() {
    let name = "a\"b\\c\nd{e}";
    let running = start(view(&["web"], &[name]));
    let (_, _, body) = request(&running.path, "GET", "/metrics");
    assert!(body.contains(r#"balancer_backend_sessions{service="web",backend="a\"b\\c\nd{e}"} 0"#), "{body}");
    assert!(get_json(&running.path, "/v1/status")["services"]["web"]["backends"][name].is_object());
}

#[test]
fn unknown_paths_and_methods_are_told_what_there_is() {
    let running = start(view(&["web"], &["web-01"]));
    let (code, _, body) = request(&running.path, "GET", "/v2/nothing?at=all");
    let refusal: Json = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 404);
    let paths = [
        "/",
        "/v1/status",
        "/v1/timeline",
        "/v1/reload",
        "/v1/upgrade",
        "/v1/drain",
        "/v1/restore",
        "/v1/forget",
        "/metrics",
        "/healthz",
        "/readyz",
    ];
    assert_eq!(refusal["paths"], json!(paths));
    let (code, head, body) = request(&running.path, "POST", "/v1/status");
    assert_eq!(code, 405);
    assert!(head.contains("allow: get, head"), "{head}");
    assert!(serde_json::from_str::<Json>(&body).unwrap()["error"].is_string());
    let (code, head, _) = request(&running.path, "GET", "/v1/reload");
    assert_eq!(code, 405);
    assert!(head.contains("allow: post"), "{head}");
    let (code, head, body) = request(&running.path, "HEAD", "/metrics");
    assert_eq!((code, &*body), (200, ""));
    assert!(!head.contains("content-length: 0"), "{head}");
    assert_eq!(request(&running.path, "GET", "/healthz").2, "ok\n");
}

#[test]
fn the_page_is_one_document_that_may_ask_nobody_else() {
    let running = start(view(&["web"], &["web-01"]));
    let (code, head, body) = request(&running.path, "GET", "/");
    assert_eq!(code, 200);
    for line in ["content-type: text/html; charset=utf-8", "x-content-type-options: nosniff", "cache-control: no-store"]
    {
        assert!(head.contains(line), "{head}");
    }
    let (_, policy) = head.split_once("content-security-policy: ").unwrap();
    let policy: Vec<_> = policy.lines().next().unwrap().split("; ").collect();
    for rule in
        ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(&rule), "{policy:?}");
    }
    assert!(
        !policy.iter().any(|rule| rule.contains("unsafe") || rule.contains('*') || rule.contains("http")),
        "{policy:?}"
    );
    assert!(body.starts_with("<!doctype html>") && body.ends_with("</html>\n"));
    let (code, _, body) = request(&running.path, "HEAD", "/");
    assert_eq!((code, &*body), (200, ""));
    assert_eq!(request(&running.path, "POST", "/").0, 405);
}

#[test]
fn a_reload_is_passed_on_and_its_outcome_answered() {
    let running = start(view(&["web"], &["web-01"]));
    let (path, mut requests) = (running.path.clone(), running.requests);
    let post = |body: &str| {
        let head = format!("POST /v1/reload HTTP/1.1\r\nHost: balancer\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = exchange(&path, format!("{head}{body}").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), serde_json::from_str::<Json>(body).unwrap())
    };
    for (result, code) in [(Reloaded::Applied, "200"), (Reloaded::Refused, "409")] {
        let force = result == Reloaded::Applied;
        let error = (!force).then(|| "the guard".to_owned());
        let reply = Reply {
            result,
            generation: 7,
            changes: vec!["web: less".into()],
            warnings: vec!["f:1:2: warning: x".into()],
            error,
        };
        let answered = std::thread::scope(|scope| {
            let requests = &mut requests;
            scope.spawn(move || {
                let Some(AdminRequest::Reload { by: _, force: asked, answer }) = requests.blocking_recv() else {
                    panic!("no request")
                };
                assert_eq!(asked, force);
                answer.send(reply).unwrap();
            });
            post(if force { "{\"force\":true}" } else { "" })
        });
        assert_eq!(answered.0, code);
        assert_eq!((&answered.1["generation"], &answered.1["changes"]), (&json!(7), &json!(["web: less"])));
        assert_eq!(answered.1["result"], json!(result.label()));
        assert_eq!(answered.1["warnings"], json!(["f:1:2: warning: x"]));
    }
    let (code, refusal) = post("{\"froce\":true}");
    assert!(code == "400" && refusal["error"].as_str().unwrap().contains("froce"), "{code} {refusal}");
    assert_eq!(post(&" ".repeat(100_000)).0, "413");
    // Nobody is there any more who could do it.
    requests.close();
    assert_eq!(post("").0, "503");
}
