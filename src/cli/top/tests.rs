//! The view from answers and keys to frames, without a terminal and without a balancer.

use std::time::{Duration, Instant};

use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::layout::Rect;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::canvas::{Look, wrapped};
use super::draw::draw;
use super::model::Model;
use super::poll::{Connects, Poll};
use super::rows::Key;
use super::screen::{Action, Mode, Request, Screen};

const NOW: &str = "2026-03-01T12:00:00Z";

fn backend(state: &str, change: Value) -> Value {
    let mut backend = json!({ "address": "10.0.0.11:8080", "role": "primary", "state": state, "since": "2026-03-01T11:00:00Z",
        "reason": "2 of 2 probes passed", "weight": 1, "connections": 7, "max_connections": null, "total": 100, "failures": 0,
        "bytes_in": 1000, "bytes_out": 2000, "probe_ms": 0.4 });
    merge(&mut backend, change);
    backend
}

fn service(backends: Value, change: Value) -> Value {
    let mut service = json!({ "listen": ["0.0.0.0:8080"], "balance": "round_robin", "state": "ok", "connections": 7,
        "max_connections": null, "accepted": 100, "total": 100, "refused": 0, "refused_by": {}, "closed": {},
        "backends": backends });
    merge(&mut service, change);
    service
}

fn status(services: Value, change: Value) -> Value {
    let mut status = json!({ "version": "0.1.0", "pid": 1, "started": "2026-03-01T09:00:00Z", "workers": 2, "sessions": 7,
        "max_connections": 9000, "pipes": 0, "pipes_max": 64, "pipes_refused": 0, "buffers_refused": 0, "wakes": 1,
        "descriptors": 30, "descriptors_max": 20000, "services": services, "config": { "path": "/etc/balancer/balancer.yaml",
            "sha256": "", "generation": 1, "loaded": "2026-03-01T09:00:00Z", "on_disk": "same" } });
    merge(&mut status, change);
    status
}

fn merge(into: &mut Value, change: Value) {
    let (Value::Object(into), Value::Object(change)) = (into, change) else { panic!("not two objects") };
    into.extend(change);
}

fn poll(status: Value, metrics: &str, at: Instant) -> Poll {
    let status = serde_json::from_value(status).expect("a status");
    Poll { at, now: NOW.parse().expect("a time"), status, connects: Connects::read(metrics), events: None }
}

/// Two services with two backends each, one of which is down.
fn two_services() -> Value {
    let [web_01, web_02] = ["up", "down"].map(|state| backend(state, json!({})));
    let web = service(json!({ "web-01": web_01, "web-02": web_02 }), json!({ "state": "degraded" }));
    let busy = backend("up", json!({ "connections": 50 }));
    let mail = service(json!({ "mail-01": backend("up", json!({})), "mail-02": busy }), json!({}));
    json!({ "mail": mail, "web": web })
}

fn screen(services: Value, change: Value) -> Screen {
    Screen::new(Model::new(poll(status(services, change), "", Instant::now())))
}

fn press(screen: &mut Screen, keys: &str) -> Action {
    let keys = keys.chars().map(|key| match key {
        '\n' => KeyCode::Enter,
        '\t' => KeyCode::Tab,
        '\x1b' => KeyCode::Esc,
        key => KeyCode::Char(key),
    });
    keys.map(|key| screen.key(KeyEvent::new(key, KeyModifiers::NONE))).last().expect("a key")
}

fn frame(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut buffer = Buffer::empty(Rect { width, height, ..Rect::ZERO });
    draw(screen, &mut buffer, Look { colours: false, unicode: true }, Instant::now());
    let lines = buffer.content.chunks(usize::from(width));
    lines.map(|line| format!("{}\n", line.iter().map(Cell::symbol).collect::<String>().trim_end())).collect()
}

fn names(screen: &Screen) -> Vec<String> {
    let (rows, _) = screen.rows();
    let name = |key| match key {
        Key::Service(name) => name,
        Key::Backend(_, name) => name,
        Key::Removed(_, name, _) => format!("removed {name}"),
    };
    rows.iter().map(|row| name(row.key())).collect()
}

#[test]
fn rates_are_what_two_polls_differ_by() {
    let at = Instant::now();
    let of = |total: u64, bytes: u64, change: Value| {
        let counted =
            backend("up", json!({ "total": total, "bytes_in": bytes, "bytes_out": 3 * bytes, "probe_ms": 0.5 }));
        status(
            json!({ "web": service(json!({ "web-01": counted }), json!({ "total": total, "refused": total })) }),
            change,
        )
    };
    let connects = |count: u32, seconds: f64| {
        let labels = "{service=\"web\",backend=\"web-01\"}";
        let name = "balancer_backend_connect_seconds";
        format!("{name}_sum{labels} {seconds}\n{name}_count{labels} {count}\n")
    };
    let mut model = Model::new(poll(of(100, 1000, json!({})), &connects(5, 1.0), at));
    assert_eq!(model.rates("web").sessions, None, "one poll tells no rate");
    model.update(poll(of(150, 3000, json!({})), &connects(15, 1.5), at + Duration::from_secs(2)));
    let rates = model.rates("web");
    assert_eq!((rates.sessions, rates.bytes_in, rates.bytes_out), (Some(25.0), Some(1000.0), Some(3000.0)));
    assert_eq!((model.whole(), model.refused("web")), (rates, Some(25.0)));
    let history = model.history("web", "web-01").unwrap();
    assert_eq!((history.connect.last(), history.probe.last()), (Some(50.0), Some(0.5)));

    // Nobody connected: a gap, and the last time stays known.
    model.update(poll(of(150, 3000, json!({})), &connects(15, 1.5), at + Duration::from_secs(3)));
    let history = model.history("web", "web-01").unwrap();
    assert_eq!(history.connect.all().collect::<Vec<_>>(), [Some(50.0), None]);
    assert_eq!((history.connect.last(), history.rates.sessions), (Some(50.0), Some(0.0)));

    // Another process begins at zero, which is no rate; its probes go on the same diagram.
    let later = at + Duration::from_secs(4);
    model.update(poll(of(7, 10, json!({ "pid": 2 })), &connects(1, 0.1), later));
    assert_eq!((model.rates("web").sessions, model.whole().bytes_in), (None, None));
    assert_eq!(model.history("web", "web-01").unwrap().probe.all().count(), 4);
}

#[test]
fn the_filter_finds_names_addresses_and_states() {
    let mut screen = screen(two_services(), json!({}));
    assert_eq!(names(&screen), ["mail", "mail-01", "mail-02", "web", "web-01", "web-02"]);
    press(&mut screen, "/down");
    assert_eq!(names(&screen), ["web", "web-02"], "what is found stands below its service");
    press(&mut screen, "\n");
    assert!(matches!(screen.mode, Mode::List) && screen.filter == "down");
    press(&mut screen, "\x1b/MAIL-");
    assert_eq!(names(&screen), ["mail", "mail-01", "mail-02"]);
    press(&mut screen, "\x1b");
    assert_eq!(names(&screen).len(), 6, "Esc goes back to what was shown before");
    press(&mut screen, "/10.0.0.12\n");
    assert!(frame(&mut screen, 80, 24).contains("nothing matches the filter"));
    press(&mut screen, "d");
    assert!(matches!(screen.mode, Mode::Answered(..)), "there is nothing to drain");
}

#[test]
fn what_is_chosen_stays_chosen_when_rows_move() {
    let mut screen = screen(two_services(), json!({}));
    press(&mut screen, "jj");
    let chosen = |screen: &Screen| names(screen)[screen.rows().1].clone();
    assert_eq!(chosen(&screen), "mail-02");
    press(&mut screen, "s");
    assert_eq!(names(&screen), ["web", "web-02", "web-01", "mail", "mail-01", "mail-02"], "trouble first");
    assert_eq!(chosen(&screen), "mail-02");
    press(&mut screen, "s");
    assert_eq!(names(&screen)[..3], ["mail", "mail-02", "mail-01"], "most sessions first");
    assert_eq!(chosen(&screen), "mail-02");
    press(&mut screen, "G");
    assert_eq!(chosen(&screen), "web-02");
    press(&mut screen, "jjkg");
    assert_eq!(chosen(&screen), "mail");
    press(&mut screen, "\t");
    assert_eq!(chosen(&screen), "web", "Tab goes to the next service");
    let [web, _] = ["web", "mail"].map(|name| two_services()[name].clone());
    screen.model.update(poll(status(json!({ "web": web }), json!({})), "", Instant::now()));
    assert_eq!(chosen(&screen), "web");
}

#[test]
fn a_drain_asks_for_time_and_reason_and_shows_the_answer() {
    let mut screen = screen(two_services(), json!({}));
    press(&mut screen, "jd");
    let asked = frame(&mut screen, 80, 24);
    assert!(
        asked.contains("drain mail/mail-01") && asked.contains("for   > 30m") && asked.contains("reason"),
        "{asked}"
    );
    // Without a reason there is no drain, and without a time neither.
    assert_eq!(press(&mut screen, "\n\n"), Action::Draw);
    assert!(frame(&mut screen, 80, 24).contains("say why"));
    let drain = |time: &str, force| Request::Drain {
        backend: "mail/mail-01".into(),
        time: time.into(),
        reason: "a new disk".into(),
        force,
    };
    assert_eq!(press(&mut screen, "a new disk\n"), Action::Ask(drain("30m", false)));
    screen.asked(&drain("30m", false));
    screen.answer(&drain("30m", false), Err("it is the last one that can serve".into()));
    let refused = frame(&mut screen, 80, 24);
    assert!(refused.contains("it is the last one that can serve") && refused.contains("a new disk"), "{refused}");
    // From the reason to the force, and around to the time.
    assert_eq!(press(&mut screen, "\t \t0\n"), Action::Draw);
    assert!(frame(&mut screen, 80, 24).contains("is not a time"));
    screen.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    assert_eq!(press(&mut screen, "\n"), Action::Ask(drain("30m", true)));
    screen.asked(&drain("30m", true));
    screen.answer(&drain("30m", true), Ok("mail/mail-01 is drained for 30m".into()));
    assert!(frame(&mut screen, 80, 24).contains("mail/mail-01 is drained for 30m"));
    assert_eq!(press(&mut screen, "q"), Action::Draw, "any key goes back, this one too");
    assert!(matches!(screen.mode, Mode::List));
    assert_eq!(press(&mut screen, "r"), Action::Ask(Request::Restore("mail/mail-01".into())));
}

#[test]
fn leases_and_orphans_say_who_why_and_how_long_still() {
    let drain = json!({ "by": "root", "reason": "kernel upgrade", "since": "2026-03-01T11:50:00Z",
        "until": "2026-03-01T12:20:05Z", "kind": "drain" });
    let web_02 = backend("drained", json!({ "drain": drain, "address": "10.0.0.12:8080" }));
    let redundancy =
        json!({ "expected": 2, "serving": 1, "missing": 1, "missing_seconds": 600.4, "survivable_failures": 0 });
    let backends = json!({ "web-01": backend("up", json!({})), "web-02": web_02 });
    let web = service(backends, json!({ "state": "degraded", "redundancy": redundancy }));
    let orphan = json!({ "service": "web", "backend": "web-05", "address": "10.0.0.15:8080", "state": "up",
        "since": "2026-02-20T12:00:00Z", "reason": "2 of 2 probes passed", "removed": "2026-02-27T12:00:00Z", "generation": 41,
        "until": "2026-03-06T12:00:00Z" });
    let leaving = json!([{ "service": "web", "backend": "web-05", "address": "10.0.0.15:8080", "connections": 3 },
        { "service": "old", "backend": "old-01", "address": "10.0.0.16:8080", "connections": 412 }]);
    let mut screen = screen(json!({ "web": web }), json!({ "orphans": [orphan], "leaving": leaving }));
    assert_eq!(names(&screen), ["web", "web-01", "web-02", "removed web-05", "removed old-01"]);

    let of_service = frame(&mut screen, 80, 24);
    assert!(of_service.contains("1/2 up, survives 0"), "{of_service}");
    let told = "degraded: 1 of 2 backends can serve, missing 10m00s in sum, survives no failure";
    assert!(of_service.contains(told), "{of_service}");
    assert!(of_service.contains("back in 20m05s, root"), "{of_service}");
    assert!(of_service.contains("orphan: removed 2d00h ago by reload 41"), "{of_service}");
    press(&mut screen, "jj");
    let of_lease = frame(&mut screen, 80, 24);
    let told = "drained by root 10m00s ago, back in 20m05s (at 12:20:05 UTC): kernel upgrade";
    assert!(of_lease.contains(told), "{of_lease}");
    press(&mut screen, "jf");
    assert!(frame(&mut screen, 80, 24).contains("Stop watching web/web-05?"));
    assert_eq!(press(&mut screen, "n"), Action::Draw);
    let of_orphan = frame(&mut screen, 80, 24);
    assert!(of_orphan.contains("healthy, out of the pool since 02-27 12:00:00 UTC (2d00h ago)"), "{of_orphan}");
    assert!(of_orphan.contains("watched for another 5d00h; f forgets it"), "{of_orphan}");
    assert_eq!(press(&mut screen, "fy"), Action::Ask(Request::Forget("web/web-05".into())));
}

#[test]
fn a_balancer_that_is_gone_is_said_to_be_and_its_last_answer_stays() {
    let mut screen = screen(two_services(), json!({}));
    screen.model.fail("no balancer at /run/balancer/admin.sock".into());
    let gone = frame(&mut screen, 80, 24);
    assert!(gone.contains("NO ANSWER for 0s, trying again: no balancer at /run/balancer/admin.sock"), "{gone}");
    assert!(gone.contains("   web-01          up       1h00m"), "{gone}");
    screen.model.update(poll(status(two_services(), json!({ "pid": 2 })), "", Instant::now()));
    assert!(!frame(&mut screen, 80, 24).contains("NO ANSWER"));
}

/// The worst that each field can hold.
fn extremes() -> Screen {
    let name = |n: u32| format!("{n}-{}", "a-name-as-long-as-names-may-be-".repeat(4));
    let worst = |role: &str| {
        backend(
            "starting",
            json!({ "role": role, "since": "2001-01-01T00:00:00Z", "connections": u32::MAX, "max_connections": u32::MAX,
                "total": u64::MAX, "failures": u64::MAX, "bytes_in": u64::MAX, "bytes_out": u64::MAX, "probe_ms": 1e9,
                "reason": "because of a reason that is told at length ".repeat(9), "address": "[2001:db8:1:2:3:4:5:6]:65535" }),
        )
    };
    let backends = json!({ name(1): worst("primary"), name(2): worst("backup") });
    let refused: Value =
        (0..9).map(|n| (format!("reason_number_{n}"), json!(u64::MAX / 10))).collect::<serde_json::Map<_, _>>().into();
    let change = json!({ "state": "degraded", "connections": u32::MAX, "queued": u32::MAX, "refused_by": refused });
    let config = json!({ "path": "/etc/balancer/a-directory/another-one/and-a-file-with-a-name-that-is-rather-long.yaml",
        "sha256": "", "generation": 1, "loaded": NOW, "on_disk": "changed",
        "last_reload": { "at": NOW, "result": "refused", "message": "words ".repeat(60) } });
    let services = json!({ name(0): service(backends, change) });
    screen(services, json!({ "started": "2001-01-01T00:00:00Z", "sessions": u32::MAX, "config": config }))
}

#[test]
fn every_size_of_terminal_is_kept_to() {
    for (width, height) in
        [(1, 1), (39, 24), (40, 8), (50, 12), (60, 15), (79, 24), (80, 24), (81, 25), (200, 60), (500, 200)]
    {
        let mut screen = extremes();
        for keys in ["j", "j", "d", "a\tb\t", "\x1b", "?", "x/a-name", "\n", "G"] {
            press(&mut screen, keys);
            let drawn = frame(&mut screen, width, height);
            assert_eq!(drawn.lines().count(), usize::from(height));
        }
    }
}

#[test]
fn columns_stand_apart_whatever_is_in_them() {
    let drawn = frame(&mut extremes(), 80, 24);
    let head = drawn.lines().position(|line| line.starts_with("  NAME")).expect("the headings");
    let lines: Vec<Vec<char>> = drawn.lines().map(|line| format!("{line:<80}").chars().collect()).collect();
    // Where one column ends and the next begins.
    for gap in [18, 27, 34, 40, 46, 52, 58, 69] {
        for line in &lines[head + 2..head + 4] {
            assert_eq!(line[gap], ' ', "at {gap}:\n{drawn}");
        }
    }
    assert!(drawn.contains("2-a-n… (backup) starting"), "{drawn}");
}

#[test]
fn long_lists_scroll_with_what_is_chosen() {
    let backends: serde_json::Map<_, _> = (0..100).map(|n| (format!("web-{n:03}"), backend("up", json!({})))).collect();
    let mut screen = screen(json!({ "web": service(backends.into(), json!({})) }), json!({}));
    let drawn = frame(&mut screen, 80, 24);
    assert!(drawn.contains(" 1/101 ") && drawn.contains("web-013") && !drawn.contains("web-014"), "{drawn}");
    press(&mut screen, "G");
    let drawn = frame(&mut screen, 80, 24);
    assert!(
        drawn.contains(" 101/101 ")
            && drawn.contains("web-085")
            && !drawn.contains("web-084")
            && drawn.contains(">  web-099"),
        "{drawn}"
    );
    press(&mut screen, "k");
    screen.key(KeyEvent::new(KeyCode::PageUp, KeyModifiers::NONE));
    let drawn = frame(&mut screen, 80, 24);
    assert!(drawn.contains(">  web-084") && drawn.contains("web-085"), "{drawn}");
    // A wider and a smaller window show it, too.
    assert!(frame(&mut screen, 120, 50).contains(">  web-084"));
    assert!(frame(&mut screen, 40, 8).contains(">  web-084"));
}

#[test]
fn texts_are_broken_at_blanks() {
    assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
    assert_eq!(wrapped("a pneumonoultra b", 5), ["a", "pneum", "onoul", "tra b"]);
    assert_eq!(wrapped("", 5), [""]);
    assert_eq!(wrapped("ab", 0), ["a", "b"], "a width that nothing fits into");
    // Each of these takes two columns.
    assert_eq!(wrapped("网络维护 ok", 5), ["网络", "维护", "ok"]);
    assert_eq!(wrapped("a 维护 b", 6), ["a 维护", "b"]);
    assert_eq!(wrapped("a维护 b", 1), ["a", "维", "护", "b"]);
}
