//! The status page as a browser shows it.
//!
//! covers: src/admin/page

use std::io::Write as _;

use serde_json::{Value, json};

use super::seeing::http;
use crate::harness::{Backend, Balancer, Browser, Machine, Port, Setup, admitted};

const HEALTH: &str = "health: { interval: 200ms, timeout: 150ms, rise: 2, fall: 2 }";

/// The texts of all rows, a line each.
const ROWS: &str = "[...document.querySelectorAll('.backend')].map((row) => row.textContent).join('\\n')";

/// Markup that would show if it were taken for such.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

fn open(balancer: &Balancer) -> Browser {
    let mut browser = Browser::open(&format!("http://{}/", http(balancer)));
    browser.wait_until("Number(document.getElementById('main')?.dataset.answers) > 0");
    browser
}

/// Every element that reaches out of its window or out of what it stands in, whose text is cut, or that another one covers.
fn misplaced(browser: &mut Browser) -> Value {
    browser.evaluate(
        "(() => {
           const nodes = [...document.querySelectorAll('body *')].filter((node) => !node.closest('noscript, script') && node.checkVisibility());
           const box = (node) => node.getBoundingClientRect();
           const frame = (node) => getComputedStyle(node).display === 'contents' ? frame(node.parentElement) : node;
           const isCut = (node) => node.clientWidth > 0 && node.scrollWidth > node.clientWidth + 1;
           const isOut = (node) => box(node).width > 0 && !node.closest('svg') && (box(node).right > innerWidth + 0.5
             || box(node).left < -0.5 || box(node).right > box(frame(node.parentElement)).right + 1);
           const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
             && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
           const covers = (node) => /grid|flex/.test(getComputedStyle(node).display) && [...node.children].some((child, index, all) =>
             all.slice(index + 1).some((other) => meet(box(child), box(other))));
           return nodes.filter((node) => isCut(node) || isOut(node) || covers(node)).map((node) => node.outerHTML.slice(0, 300)).slice(0, 5);
         })()",
    )
}

/// An answer of a balancer with everything that it can tell, on what the running one has answered.
fn everything(balancer: &Balancer) -> Value {
    let mut status: Value = serde_json::from_str(&balancer.get("/v1/status")).expect("JSON");
    let now = status["started"].clone();
    let later = "2099-01-01T00:00:00.000Z";
    let web = &mut status["services"]["web"];
    web["state"] = json!("degraded");
    web["redundancy"] =
        json!({ "expected": 3, "serving": 1, "missing": 2, "missing_seconds": 363.0, "survivable_failures": 0 });
    let reason = format!("kernel upgrade {HOSTILE}");
    let drained = &mut web["backends"]["a"];
    drained["state"] = json!("drained");
    drained["drain"] =
        json!({ "by": format!("root{HOSTILE}"), "reason": reason, "since": now, "until": later, "kind": "drain" });
    let mut down = drained.clone();
    down["state"] = json!("down");
    down["drain"] = Value::Null;
    down["reason"] = json!("x".repeat(200));
    for number in ["total", "bytes_in", "bytes_out", "failures", "connections", "max_connections"] {
        down[number] = json!(4_000_000_000_u64);
    }
    down["probe_ms"] = json!(12345.6);
    web["backends"]["web-0123456789-0123456789-0123456789-0123456789-0123456789-0123"] = down.clone();
    web["backends"][HOSTILE] = down;
    status["orphans"] = json!([{
        "service": "web", "backend": "gone", "address": "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535", "state": "up", "since": now,
        "reason": HOSTILE, "removed": now, "generation": 41, "until": later
    }]);
    status["leaving"] = json!([{ "service": "web", "backend": "gone", "address": "10.0.0.1:1", "connections": 3 }]);
    status["config"]["last_reload"] = json!({ "at": now, "result": "refused", "message": HOSTILE });
    status
}

/// Draws an answer of ours, and from now on no other.
fn show(browser: &mut Browser, status: &Value) {
    let event = |kind: &&str| json!({ "time": status["started"], "kind": kind, "service": "web", "backend": "a", "by": HOSTILE, "text": HOSTILE });
    let events: Vec<_> = ["drain", "state", "a kind of a later version"].iter().map(event).collect();
    browser.evaluate(&format!(
        "globalThis.draw ??= show; globalThis.drawEvents ??= showTimeline; show = showTimeline = () => {{}};
         draw({status}, performance.now()); drawEvents({});",
        json!({ "events": events })
    ));
}

#[test]
fn a_server_on_a_lease_and_one_that_was_removed_are_seen_and_the_survivor_does_not_drown() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let setup = Setup::new().http().backend_with("web-01", a.address, "max_connections: 5");
    let setup = setup.backend_with("web-02", b.address, "max_connections: 5").setting(HEALTH);
    let setup = setup.setting(&format!("backups: {{ web-09: {{ address: \"{}\", max_connections: 3 }} }}", c.address));
    let balancer = machine.start(setup);
    balancer.await_state("/services/web/state", "ok");
    let mut browser = open(&balancer);
    let (code, _, err) = balancer.command(&["drain", "web/web-02", "--for", "1h", "--reason", "a test of the disk"]);
    assert_eq!(code, Some(0), "{err}");
    browser.wait_until(&format!("{ROWS}.includes('drained')"));
    browser.wait_until("document.body.textContent.includes('a test of the disk')");

    // Somebody tidies the file up meanwhile: web-02 is gone from it.
    let line = format!("      web-02: {{ address: \"{}\", max_connections: 5 }}\n", b.address);
    balancer.edit(&line, "");
    balancer.reload();
    balancer.await_state("/orphans/0/state", "up");
    browser.wait_until(&format!("document.body.textContent.includes('web-02') && !{ROWS}.includes('web-02')"));
    assert_eq!(balancer.metric("balancer_orphan_up"), 1.0);

    // The survivor carries what it can, the backup the surplus, and the rest is refused instead of drowning it.
    let mut served = Vec::new();
    let refused = (0..20).filter_map(|_| match admitted(balancer.address()) {
        Some(client) => {
            served.push(client);
            None
        }
        None => Some(()),
    });
    assert_eq!(refused.count(), 12);
    let of = |name: &str| served.iter().filter(|(_, who)| who == name).count();
    assert_eq!((of("a"), of("b"), of("c")), (5, 0, 3));
    browser.wait_until("document.body.textContent.includes('serves what the backends cannot carry')");
    browser.wait_until("document.body.textContent.includes('backend_limit')");
    let wrong = misplaced(&mut browser);
    assert_eq!(wrong, json!([]), "{wrong:#}");
    drop(served);
    balancer.stop();
}

#[test]
fn the_page_shows_a_killed_backend_as_down_and_says_when_the_balancer_is_gone() {
    let machine = Machine::shared();
    let (port, b) = (Port::refusing(), Backend::named("b"));
    let a = Backend::named_on(port.listen(), "a");
    let setup = Setup::new().http().backend("a", port.address).backend("b", b.address).setting(HEALTH);
    let balancer = machine.start(setup);
    let own = format!("http://{}/", http(&balancer));
    let mut browser = open(&balancer);
    browser.wait_until("document.getElementById('headline').textContent === 'web is ok'");
    let rows = browser.text(ROWS);
    assert!(rows.lines().count() == 2 && rows.lines().all(|row| row.contains("up")), "{rows}");

    drop(a);
    browser.wait_until("document.getElementById('headline').textContent === 'web is degraded'");
    assert_eq!(browser.text("document.title"), "web is degraded – balancer");
    let rows = browser.text(ROWS);
    let row = rows.lines().next().expect("a row");
    assert!(row.starts_with('a') && row.contains("down") && row.contains("connect refused"), "{rows}");
    let list = browser.text("document.getElementById('attention-list').textContent");
    assert!(list.contains("web/a is down for ") && list.contains("connect refused"), "{list}");
    let _a = Backend::named_on(port.listen(), "a");
    browser.wait_until("document.getElementById('headline').textContent === 'web is ok'");
    browser.wait_until("document.getElementById('attention').hidden");

    balancer.stop();
    browser.wait_until("document.getElementById('headline').textContent.startsWith('The balancer does not answer')");
    browser.wait_until("document.getElementById('fresh').textContent.startsWith('last answer ')");
    let requests = browser.requests();
    assert!(requests.iter().any(|url| url.ends_with("/v1/status")), "{requests:?}");
    assert!(requests.iter().all(|url| url.starts_with(&own) || url.starts_with("data:")), "{requests:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn what_a_backend_or_a_person_says_is_text_and_never_markup() {
    let machine = Machine::shared();
    let hostile = Backend::new(|mut stream| {
        let _ = stream.write_all(HOSTILE.as_bytes());
    });
    let probe =
        "health: { probe: { expect: { receive: \"+PONG\" } }, interval: 200ms, timeout: 150ms, rise: 1, fall: 1 }";
    let balancer = machine.start(Setup::new().http().backend("a", hostile.address).setting(probe));
    let mut browser = open(&balancer);
    browser.wait_until(&format!("{ROWS}.includes('answered \"<img src=x')"));
    show(&mut browser, &everything(&balancer));
    for place in ["service-list", "attention-list", "timeline-list"] {
        let text = browser.text(&format!("document.getElementById('{place}').textContent"));
        assert!(text.contains(HOSTILE), "{place}: {text}");
    }
    let text = browser.text("document.getElementById('main').textContent");
    let drained = format!("drained by root{HOSTILE}: kernel upgrade {HOSTILE}; comes back in ");
    for part in [
        &*drained,
        "1 of 3 serving, 2 missing",
        "would not survive the loss of one more",
        "removed by the reload to generation 41",
        "is leaving",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(browser.evaluate("document.querySelectorAll('img').length"), 0);
    assert!(browser.text("document.title").ends_with("– balancer"));
    assert_eq!(browser.complaints(), [""; 0]);
    balancer.stop();
}

#[test]
fn nothing_is_cut_on_a_telephone_or_a_wide_screen() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().http().backend("a", backend.address));
    let mut browser = open(&balancer);
    let status = everything(&balancer);
    for (width, height) in [(390, 844), (768, 1024), (1119, 800), (1120, 800), (1440, 900), (2560, 1440)] {
        for dark in [false, true] {
            browser.look(width, height, dark);
            show(&mut browser, &status);
            assert_eq!(browser.evaluate("innerWidth"), width);
            assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), width, "at {width}");
            assert_eq!(misplaced(&mut browser), json!([]), "at {width}");
            let light = browser
                .evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((part) => part > 200)");
            assert_eq!(light, !dark);
        }
    }
    balancer.stop();
}

#[test]
fn a_thousand_backends_in_fifty_services_stay_usable() {
    let machine = Machine::shared();
    let mut setup = Setup::new().http();
    let backend = Backend::echo();
    for service in 0..50 {
        setup = if service == 0 { setup } else { setup.service(&format!("service-{service}")) };
        for number in 0..20 {
            setup = setup.backend(&format!("server-{service}-{number}"), backend.address);
        }
    }
    let balancer = machine.start(setup);
    let mut browser = open(&balancer);
    assert_eq!(browser.text("document.getElementById('headline').textContent"), "All 50 services are ok");
    assert_eq!(browser.evaluate("document.querySelectorAll('details.service').length"), 50);
    assert_eq!(browser.evaluate("document.querySelectorAll('.backend').length"), 0, "healthy services are closed");
    browser.evaluate("document.querySelectorAll('summary')[7].click()");
    browser.wait_until("document.querySelectorAll('.backend').length === 20");
    let filter = |text: &str| {
        format!(
            "{{ const f = document.getElementById('filter'); f.value = '{text}'; f.dispatchEvent(new Event('input')); }}"
        )
    };
    browser.evaluate(&filter("SERVER-31-17"));
    let shown = "[...document.querySelectorAll('.backend')].filter((row) => row.checkVisibility()).map((row) => row.querySelector('.name').textContent)";
    assert_eq!(browser.evaluate(shown), json!(["server-31-17"]));
    browser.evaluate(&filter("no such thing"));
    assert_eq!(browser.evaluate("document.getElementById('nothing').checkVisibility()"), true);
    // All of them at once.
    browser.evaluate(&filter("server"));
    assert_eq!(browser.evaluate("document.querySelectorAll('.backend').length"), 1000);
    let times = "[0, 1, 2].map(() => { const start = performance.now(); show(latest, start); return performance.now() - start; })";
    let times: Vec<f64> = serde_json::from_value(browser.evaluate(times)).expect("numbers");
    eprintln!("1,000 rows were drawn in {times:?} ms");
    assert!(times.iter().fold(f64::MAX, |least, &time| least.min(time)) < 300.0, "{times:?}");
    // What has not changed is not touched.
    let touched = "(() => { show(latest, performance.now()); const seen = new MutationObserver(() => {});
        seen.observe(document.getElementById('service-list'), { subtree: true, childList: true, characterData: true, attributes: true });
        const frozen = Date.now; const at = frozen(); Date.now = () => at; redraw(); seen.takeRecords(); redraw(); Date.now = frozen;
        return seen.takeRecords().length; })()";
    assert_eq!(browser.evaluate(touched), 0);
    assert_eq!(browser.complaints(), [""; 0]);
    balancer.stop();
}
