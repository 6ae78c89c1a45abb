//! `balancer top`, driven as a person does: keys in, what can be read on the terminal out.
//!
//! covers: src/cli/top

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Backend, Balancer, Machine, PATIENCE, Port, Setup, Terminal, echo, exchange, run, wait_until};

/// Probes that notice a loss at once.
const QUICK: &str = "health: { interval: 100ms, timeout: 100ms, rise: 1, fall: 2 }";

/// Polls as quick, so that no test waits for them.
const OFTEN: &str = "--interval 200ms";

const HEADINGS: &str = "STATE    SINCE   OPEN NEW/s  IN/s OUT/s CONNECT ms PROBE ms";

/// The command line of `balancer top` for a balancer.
fn top(balancer: &Balancer, options: &str) -> String {
    format!("{} top --socket {} {options}", env!("CARGO_BIN_EXE_balancer"), balancer.socket().display())
}

/// A terminal of 80 columns and 24 lines in which it runs.
#[track_caller]
fn watching(balancer: &Balancer) -> Terminal {
    let terminal = Terminal::new(80, 24);
    terminal.runs(&top(balancer, OFTEN));
    terminal.await_text(HEADINGS);
    terminal
}

/// The row of a service or a backend, if there is one.
fn find_row(screen: &str, name: &str) -> Option<Vec<String>> {
    let cells =
        |line: &str| -> Vec<String> { line.trim_start_matches('>').split_whitespace().map(Into::into).collect() };
    screen.lines().map(cells).find(|row| row.first().is_some_and(|first| first == name))
}

/// The same, where it must be there.
#[track_caller]
fn row(screen: &str, name: &str) -> Vec<String> {
    find_row(screen, name).unwrap_or_else(|| panic!("no row of {name}:\n{screen}"))
}

/// Two backends, the second of which answers as long as the result's port listens.
fn two_backends() -> (Setup, Backend, Port) {
    let (first, second) = (Backend::echo(), Port::refusing());
    let setup = Setup::new().backend("web-01", first.address).backend("web-02", second.address).setting(QUICK);
    (setup, first, second)
}

#[test]
fn top_shows_sessions_and_states_and_a_killed_backend_at_once() {
    let machine = Machine::shared();
    let (setup, _first, second) = two_backends();
    let third = Backend::echo();
    let listener = Backend::on(second.listen(), echo);
    let setup = setup.setting(&format!("backups: {{ web-03: \"{}\" }}", third.address));
    let balancer = machine.start(setup);
    balancer.await_state("/services/web/state", "ok");
    let mut clients: Vec<_> = (0..6).map(|_| balancer.connect()).collect();
    clients.iter().for_each(exchange);
    let terminal = watching(&balancer);
    terminal.await_text("1 ok; 3 backends: 3 up");
    let with_rates = |screen: &str| screen.lines().next().is_some_and(|line| line.ends_with("B/s"));
    let screen = terminal.await_screen("rates, from the second poll on", with_rates);
    assert_eq!(row(&screen, "web")[..3], ["web", "ok", "6"], "{screen}");
    assert_eq!(row(&screen, "web-01")[..2], ["web-01", "up"], "{screen}");
    assert_eq!(row(&screen, "web-01")[3], "3", "{screen}");
    assert_eq!(row(&screen, "web-03")[..3], ["web-03", "(backup)", "up"], "{screen}");
    assert_eq!(screen.lines().count(), 24, "{screen}");
    assert!(screen.lines().last().is_some_and(|line| line.starts_with("? help  q quit")), "{screen}");

    // Connects since the last poll are timed, and drawn beside their number; so are probes.
    clients.extend((0..2).map(|_| balancer.connect()));
    let screen = terminal.await_screen("the time of connects", |screen| row(screen, "web-01")[7] != "-");
    assert!(row(&screen, "web-01")[7].parse::<f64>().is_ok_and(|ms| ms > 0.0), "{screen}");
    assert!(screen.contains('█'), "{screen}");

    drop(listener);
    terminal.await_screen("the lost backend", |screen| row(screen, "web-02")[1] == "down");
    terminal.types("jj");
    let screen = terminal.await_text("web/web-02, ");
    assert!(screen.contains("connect refused, 2 of 2 probes failed"), "{screen}");
    assert!(screen.contains("1 degraded; 3 backends: 1 down, 2 up"), "{screen}");
    assert!(screen.contains(">  web-02 "), "the chosen row is marked without colour, too:\n{screen}");
}

#[test]
fn the_filter_and_the_order_choose_what_top_shows() {
    let machine = Machine::shared();
    let (setup, first, _second) = two_backends();
    let setup = setup.service("mail").backend("mail-01", first.address).setting(QUICK);
    let balancer = machine.start(setup);
    let terminal = watching(&balancer);
    terminal.await_screen("a backend is down", |screen| row(screen, "web-02")[1] == "down");
    terminal.types("/down");
    let screen = terminal.await_text("filter \"down\": 2 rows");
    let shown = |screen: &str| ["web", "web-01", "web-02", "mail"].map(|name| find_row(screen, name).is_some());
    assert_eq!(shown(&screen), [true, false, true, false], "{screen}");
    terminal.press("Escape");
    terminal.await_text("mail-01");
    terminal.types("/mail");
    terminal.press("Enter");
    let screen = terminal.await_text("filter \"mail\": 2 rows");
    assert_eq!(shown(&screen), [false, false, false, true], "{screen}");
    terminal.press("Escape");
    terminal.await_screen("all rows", |screen| shown(screen) == [true; 4]);
    terminal.types("s");
    let screen = terminal.await_text("s sort: state");
    let place = |name: &str| screen.find(&format!("   {name} ")).unwrap_or_else(|| panic!("no {name}:\n{screen}"));
    assert!(place("web-02") < place("web-01"), "what is down comes first:\n{screen}");
    terminal.types("?");
    let screen = terminal.await_text("any key goes back");
    assert!(screen.contains("drain: out of the pool for a time, then it is back"), "{screen}");
    terminal.types("x");
    terminal.await_text(HEADINGS);
}

#[test]
fn a_drain_asks_for_time_and_reason_and_shows_what_the_balancer_says() {
    let machine = Machine::shared();
    let (setup, _first, _second) = two_backends();
    let balancer = machine.start(setup);
    balancer.await_state("/services/web/backends/web-02/state", "down");
    // Nobody else can serve: it is refused, and the balancer says why.
    let order = r#"{ "backend": "web/web-01", "for": "20m", "reason": "a new disk", "force": false }"#;
    let socket = balancer.socket();
    let answer =
        run("curl", &["-s", "--unix-socket", &socket.to_string_lossy(), "-d", order, "http://balancer/v1/drain"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let error = answer["error"].as_str().expect("an error").to_owned();
    let begin: String = error.split_whitespace().take(4).collect::<Vec<_>>().join(" ");

    let terminal = watching(&balancer);
    terminal.types("jd");
    let screen = terminal.await_text("drain web/web-01");
    assert!(
        screen.contains("for   > 30m") && screen.contains("reason") && screen.contains("Esc goes back"),
        "{screen}"
    );
    assert_eq!(terminal.says("cursor_flag"), "1", "the cursor is where the next letter goes");
    terminal.press("C-u");
    terminal.types("20m");
    terminal.press("Enter");
    terminal.press("Enter");
    terminal.await_text("say why");
    terminal.types("a new disk");
    terminal.press("Enter");
    let screen = terminal.await_text(&begin);
    assert!(screen.contains("20m") && screen.contains("a new disk"), "what was typed stays to be changed:\n{screen}");
    terminal.press("Escape");
    let screen = terminal.await_screen("the list", |screen| !screen.contains("a new disk"));
    assert_eq!(row(&screen, "web-01")[1], "up");
}

#[test]
fn a_backend_is_drained_and_restored_with_a_few_keys() {
    let machine = Machine::shared();
    let (setup, _first, second) = two_backends();
    let _second = Backend::on(second.listen(), echo);
    let balancer = machine.start(setup);
    balancer.await_state("/services/web/state", "ok");
    let terminal = watching(&balancer);
    terminal.types("jjd");
    terminal.await_text("drain web/web-02");
    terminal.press("Enter");
    terminal.types("a new disk");
    terminal.press("Enter");
    terminal.await_text("any key goes back");
    balancer.await_state("/services/web/backends/web-02/state", "drained");
    assert_eq!(balancer.status().text("/services/web/backends/web-02/drain/reason"), "a new disk");
    terminal.types("x");
    let screen = terminal.await_text("back in 29m");
    assert_eq!(row(&screen, "web-02")[1], "drained", "{screen}");
    assert!(screen.contains(": a new disk") && screen.contains("1 drained"), "{screen}");
    terminal.types("r");
    terminal.await_text("restore web/web-02");
    balancer.await_state("/services/web/backends/web-02/state", "up");
    terminal.await_text("any key goes back");
    terminal.types("x");
    terminal.await_screen("it is back", |screen| row(screen, "web-02")[1] == "up" && !screen.contains("back in"));
}

#[test]
fn the_terminal_is_as_before_however_top_ends() {
    let machine = Machine::shared();
    let (setup, _first, _second) = two_backends();
    let balancer = machine.start(setup);
    let terminal = Terminal::new(80, 24);
    terminal.runs("stty -a >before; echo what stood here");
    terminal.await_text("\nwhat stood here");
    let ends: [(&str, &dyn Fn(), &str); 5] = [
        ("q", &|| terminal.types("q"), "0"),
        ("^C", &|| terminal.press("C-c"), "0"),
        ("SIGTERM", &|| terminal.child().signal(Signal::TERM), "0"),
        ("SIGINT", &|| terminal.child().signal(Signal::INT), "0"),
        ("SIGHUP", &|| terminal.child().signal(Signal::HUP), "0"),
    ];
    for (how, end, code) in ends {
        terminal.runs(&format!("{}; echo ended with $?; stty -a >after", top(&balancer, OFTEN)));
        terminal.await_text(HEADINGS);
        assert_eq!((&*terminal.says("alternate_on"), &*terminal.says("cursor_flag")), ("1", "0"));
        end();
        let screen = terminal.await_text(&format!("ended with {code}"));
        assert!(screen.contains("\nwhat stood here") && !screen.contains(HEADINGS), "after {how}:\n{screen}");
        assert_eq!((&*terminal.says("alternate_on"), &*terminal.says("cursor_flag")), ("0", "1"), "after {how}");
        let settings = |file: &str| fs::read_to_string(terminal.path(file)).unwrap_or_default();
        wait_until(&format!("the terminal's settings are as before {how}"), PATIENCE, || {
            settings("after") == settings("before")
        });
        fs::remove_file(terminal.path("after")).expect("removing a file");
        terminal.runs("clear; echo; echo what stood here");
        terminal.await_screen("an empty terminal", |screen| !screen.contains("ended with"));
    }

    // To the background and back.
    terminal.runs(&top(&balancer, OFTEN));
    terminal.await_text(HEADINGS);
    terminal.press("C-z");
    terminal.await_text("\nwhat stood here");
    terminal.runs("fg");
    terminal.await_text(HEADINGS);
    terminal.types("?");
    terminal.await_text("any key goes back");
}

#[test]
fn states_are_words_and_colours_are_left_out_where_nobody_wants_them() {
    let machine = Machine::shared();
    let (setup, _first, _second) = two_backends();
    let balancer = machine.start(setup);
    balancer.await_state("/services/web/backends/web-02/state", "down");
    // A foreground that is not the terminal's own.
    let coloured = |painted: &str| (30..=38).any(|colour| painted.contains(&format!("\x1b[{colour}")));
    let terminal = watching(&balancer);
    assert!(coloured(&terminal.painted()), "{:?}", terminal.painted());
    terminal.types("q");
    terminal.await_text("$");
    terminal.runs(&format!("NO_COLOR=1 {}", top(&balancer, OFTEN)));
    let screen = terminal.await_text(HEADINGS);
    assert_eq!(row(&screen, "web-02")[1], "down");
    assert!(!coloured(&terminal.painted()), "{:?}", terminal.painted());
    terminal.types("q");
    terminal.await_text("$");
    terminal.runs(&format!("LC_ALL=C {}", top(&balancer, OFTEN)));
    let screen = terminal.await_text(HEADINGS);
    assert!(screen.is_ascii(), "{screen}");
}

#[test]
fn top_outlives_the_balancer_and_says_when_nobody_answers() {
    let machine = Machine::shared();
    let (setup, _first, _second) = two_backends();
    let mut balancer = machine.start(setup);
    let terminal = watching(&balancer);
    balancer.signal(Signal::STOP);
    terminal.await_text("the balancer takes long to answer");
    balancer.signal(Signal::CONT);
    terminal.await_screen("it answers again", |screen| !screen.contains("NO ANSWER"));
    let (socket, away) = (balancer.socket(), balancer.socket().with_extension("away"));
    fs::rename(&socket, &away).expect("taking the socket away");
    let screen = terminal.await_text("NO ANSWER for");
    assert!(screen.contains("trying again: no balancer at "), "{screen}");
    assert_eq!(row(&screen, "web-01")[1], "up", "the last answer stays:\n{screen}");
    fs::rename(&away, &socket).expect("putting the socket back");
    terminal.await_screen("it answers again", |screen| !screen.contains("NO ANSWER"));

    // A new process where the old one was, told apart by a backend's name.
    balancer.edit("127.0.0.1:0", &balancer.address().to_string());
    balancer.edit("web-01", "web-09");
    balancer.die_and_start_again();
    let screen = terminal.await_screen("the new process", |screen| screen.contains("web-09"));
    assert!(!screen.contains("NO ANSWER"), "{screen}");
    balancer.stop();
}

#[test]
fn a_window_that_changes_its_size_is_filled_again() {
    let machine = Machine::shared();
    let (setup, _first, _second) = two_backends();
    let balancer = machine.start(setup);
    let terminal = watching(&balancer);
    terminal.resize(50, 12);
    let screen = terminal.await_screen("fewer columns", |screen| screen.contains("STATE") && !screen.contains("PROBE"));
    assert_eq!(screen.lines().count(), 12, "{screen}");
    assert_eq!(row(&screen, "web-01")[1], "up", "{screen}");
    terminal.resize(30, 5);
    terminal.await_text("this needs 40 columns and 8");
    terminal.resize(132, 40);
    let screen = terminal.await_text(HEADINGS.trim_end_matches(" ms PROBE ms"));
    assert_eq!(screen.lines().count(), 40, "{screen}");
    assert!(screen.lines().last().is_some_and(|line| line.starts_with("? help  q quit")), "{screen}");
}

#[test]
fn a_thousand_backends_stay_usable_and_cost_a_slow_link_little() {
    let machine = Machine::shared();
    let mut setup = Setup::new();
    let backend = Backend::echo();
    for service in 0..49 {
        if service > 0 {
            setup = setup.service(&format!("service-{service:02}"));
        }
        for n in 0..20 {
            setup = setup.backend(&format!("backend-{service:02}-{n:02}"), backend.address);
        }
    }
    let setup = setup.service("last");
    let setup = (0..20).fold(setup, |setup, n| setup.backend(&format!("last-{n:02}"), backend.address));
    let balancer = machine.start(setup);
    let terminal = Terminal::new(80, 24);
    terminal.runs(&top(&balancer, "--interval 500ms"));
    terminal.await_text("50 services: 50 ok; 1000 backends: 1000 up");
    let start = Instant::now();
    terminal.press("G");
    let screen = terminal.await_text(">  last-19");
    assert!(screen.contains(" 1050/1050 "), "{screen}");
    terminal.types("/last-0");
    terminal.await_text("11 rows");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    terminal.press("Escape");
    terminal.await_text("1000 backends");

    // What a whole frame takes, and then what each poll takes while little changes.
    terminal.records("whole");
    terminal.press("C-l");
    let length = |file: &str| fs::metadata(terminal.path(file)).expect("the record").len();
    wait_until("the frame is drawn anew", PATIENCE, || length("whole") > 1000);
    std::thread::sleep(Duration::from_millis(100));
    let whole = length("whole");
    terminal.records("quiet");
    // Ten polls, or fewer on a busy machine.
    std::thread::sleep(Duration::from_secs(5));
    let quiet = length("quiet") / 10;
    assert!(whole > 1000 && quiet < whole / 4, "{quiet} bytes a poll, where a whole frame is {whole}");
}

#[test]
fn without_a_terminal_top_says_so_and_prints_one_frame_if_asked() {
    let machine = Machine::shared();
    let (setup, first, _second) = two_backends();
    let balancer = machine.start(setup);
    let (code, out, err) = balancer.command(&["top"]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("not a terminal") && err.contains("--once"), "{err}");
    let client = balancer.connect();
    let (code, out, err) = balancer.command(&["top", "--once", "--interval", "200ms"]);
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(out.contains(HEADINGS) && !out.contains('\x1b'), "{out}");
    assert_eq!(row(&out, "web-01")[0..2], ["web-01", "up"], "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    let (code, _, err) = balancer.command(&["top", "--once", "--interval", "1ms"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("100ms to 1h"), "{err}");
    let absent = balancer.socket().with_extension("absent");
    let (code, _, err) = balancer.command_at(&absent, &["top", "--once"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("no balancer at"), "{err}");
    drop((client, first));
}
