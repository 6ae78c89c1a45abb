//! What a probe asks and learns: failures told apart, faults of this machine, clients that wait for the first ones.
//!
//! covers: src/control/probe

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::{
    Acceptor, Backend, Balancer, Blackhole, Machine, NEAR, Namespaces, PATIENCE, Port, SLACK, Setup, admitted,
    assert_ends_with_reset, echo, exchange, reset, wait_until,
};

/// Reads a request to the end of its head; the other side may leave before.
pub(crate) fn hear(mut stream: &TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
}

/// Answers a request with a status and nothing else.
pub(crate) fn answer(mut stream: &TcpStream, status: &str) {
    // A prober that has left is no failure of the backend.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A backend that answers a GET with a status after a while, and anything else at once with its name and an echo.
fn slow(name: &'static str, after: Duration, status: &'static str) -> Backend {
    Backend::new(move |mut stream| {
        let mut first = [0];
        if stream.read_exact(&mut first).is_err() {
            return;
        }
        if first == *b"G" {
            hear(stream);
            std::thread::sleep(after);
            answer(stream, status);
        } else if stream.write_all(name.as_bytes()).is_ok() {
            echo(stream);
        }
    })
}

fn state(balancer: &Balancer, backend: &str) -> String {
    balancer.status().text(&format!("/services/web/backends/{backend}/state"))
}

/// Fails unless a backend is down soon, for this reason, and every probe of it had this result.
#[track_caller]
fn assert_fails(balancer: &Balancer, backend: &str, result: &str, why: &str) {
    wait_until(&format!("{backend} is down"), PATIENCE, || state(balancer, backend) == "down");
    let reason = balancer.status().text(&format!("/services/web/backends/{backend}/reason"));
    assert!(reason.contains(why), "{backend}: {reason}");
    let results = ["passed", "refused", "timed_out", "reset", "unreachable", "wrong_status", "wrong_bytes"];
    let counted: Vec<_> = results.into_iter().filter(|result| balancer.probes(backend, result) > 0).collect();
    assert_eq!(counted, [result], "{backend}: {reason}");
}

#[test]
fn silence_a_reset_wrong_bytes_and_an_early_end_are_told_apart_from_what_was_expected() {
    let machine = Machine::shared();
    let silent = Backend::new(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let resetting = Backend::new(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    });
    let closing = Backend::new(|mut stream| drop(stream.read(&mut [0; 16])));
    let (parrot, blackhole, dead) = (Backend::echo(), Blackhole::new(), Port::refusing());
    let good = Backend::new(|mut stream| {
        let _ = stream.write_all(b"hello\r\n+PONG\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let setup = Setup::new().backend("silent", silent.address).backend("resetting", resetting.address);
    let setup = setup.backend("closing", closing.address).backend("parrot", parrot.address);
    let setup =
        setup.backend("blackhole", blackhole.address).backend("dead", dead.address).backend("good", good.address);
    let probe = r#"probe: { expect: { send: "PING\r\n", receive: "+PONG" } }"#;
    let balancer = machine.start(setup.setting(&format!("health: {{ {probe}, interval: 500ms, timeout: 500ms }}")));
    assert_fails(&balancer, "silent", "timed_out", "no answer within 500ms");
    assert_fails(&balancer, "resetting", "reset", "connection reset");
    assert_fails(&balancer, "closing", "wrong_bytes", "closed the connection without an answer");
    assert_fails(&balancer, "parrot", "wrong_bytes", r#"answered "PING\r\n""#);
    assert_fails(&balancer, "blackhole", "timed_out", "connect timed out");
    assert_fails(&balancer, "dead", "refused", "connect refused");
    assert_eq!(state(&balancer, "good"), "up");
    balancer.stop();
}

#[test]
fn an_interim_answer_is_not_taken_for_the_answer() {
    let machine = Machine::shared();
    let hinting = |status: &'static str| {
        Backend::new(move |mut stream| {
            hear(stream);
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n";
            for interim in ["HTTP/1.1 100 Continue\r\n\r\n", hints, hints] {
                let _ = stream.write_all(interim.as_bytes());
                std::thread::sleep(Duration::from_millis(5));
            }
            answer(stream, status);
        })
    };
    let (ill, well) = (hinting("503 Service Unavailable"), hinting("200 OK"));
    let setup = Setup::new().backend("ill", ill.address).backend("well", well.address);
    let health = "health: { probe: { http: { status: 100-399 } }, interval: 200ms, timeout: 200ms }";
    let balancer = machine.start(setup.setting(health));
    assert_fails(&balancer, "ill", "wrong_status", "status 503");
    wait_until("the other one is up", PATIENCE, || state(&balancer, "well") == "up");
    balancer.stop();
}

#[test]
fn a_network_that_no_way_leads_to_is_unreachable_not_refused_and_not_a_fault_of_this_machine() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    namespaces.near().unreachable("10.99.0.0/24");
    let front = SocketAddr::from((NEAR, 8080));
    let setup = Setup::new().inside(&namespaces).listen(front);
    // The first has a route that says no, the second none at all.
    let setup = setup.backend("cut", "10.99.0.1:80").backend("nowhere", "10.98.0.1:80");
    let balancer = machine.start(setup.setting("health: { interval: 200ms, timeout: 200ms }"));
    assert_fails(&balancer, "cut", "unreachable", "host unreachable");
    assert_fails(&balancer, "nowhere", "unreachable", "network unreachable");
    assert!(namespaces.far().run(|| admitted(front)).is_none());
    balancer.await_refused("no_backend", 1);
    balancer.stop();
}

#[test]
fn probes_that_find_no_local_port_do_not_count_and_pass_again_once_there_is_one() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let listener = namespaces.near().run(|| TcpListener::bind("127.0.0.1:9000").expect("the backend's port"));
    let backend = Backend::named_on(listener, "a");
    let front = SocketAddr::from((NEAR, 8080));
    let setup = Setup::new().inside(&namespaces).listen(front).backend("a", backend.address);
    let balancer = machine.start(setup.setting("health: { interval: 200ms, timeout: 200ms, fall: 2, passive: 2 }"));
    wait_until("it is up", PATIENCE, || state(&balancer, "a") == "up");
    namespaces.near().local_ports(40_000, 40_009);

    // Sessions take what the probes leave of the ten ports.
    let mut held = Vec::new();
    wait_until("no port is left for a probe", PATIENCE, || {
        held.extend(namespaces.far().run(|| admitted(front)).map(|(client, _)| client));
        balancer.probes("a", "local_fault") >= 6
    });
    assert_eq!(state(&balancer, "a"), "up", "this machine's fault is not the backend's");
    balancer.await_logged("cannot probe a backend: ");
    assert!(!balancer.has_logged("up -> down"));
    held.iter().for_each(exchange);

    let passed = balancer.probes("a", "passed");
    held.drain(..).for_each(reset);
    wait_until("probes pass again", PATIENCE, || balancer.probes("a", "passed") >= passed + 3);
    assert_eq!((state(&balancer, "a").as_str(), balancer.of_backend("a", "failures")), ("up", 0));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_client_that_comes_before_the_first_probes_have_ended_is_served_as_soon_as_one_passes() {
    let machine = Machine::shared();
    let (blackhole, slow) = (Blackhole::new(), slow("slow", Duration::from_millis(700), "200 OK"));
    let setup = Setup::new().backend("blackhole", blackhole.address).backend("slow", slow.address);
    let balancer = machine.start(setup.setting("health: { probe: { http: {} }, interval: 5s, timeout: 5s }"));
    let clients: Vec<_> = (0..10).map(|_| balancer.connect()).collect();
    clients.iter().for_each(|mut client| client.write_all(b"x").expect("sending"));
    for mut client in &clients {
        let mut name = [0; 4];
        client.read_exact(&mut name).expect("served");
        assert_eq!(name, *b"slow");
    }
    assert_eq!((state(&balancer, "blackhole").as_str(), state(&balancer, "slow").as_str()), ("starting", "up"));
    assert_eq!((balancer.number("/services/web/refused"), balancer.probes("slow", "passed")), (0, 1));
    assert_eq!(balancer.of_backend("blackhole", "failures"), 0, "nobody is sent to one that is not known to serve");
    drop(clients);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn clients_that_wait_for_the_first_probes_are_refused_when_the_last_of_them_has_failed_and_not_before() {
    let machine = Machine::shared();
    let (blackhole, broken) = (
        Blackhole::new(),
        Backend::new(|stream| {
            hear(stream);
            answer(stream, "500 Internal Server Error");
        }),
    );
    let setup = Setup::new().backend("blackhole", blackhole.address).backend("broken", broken.address);
    let balancer = machine.start(setup.setting("health: { probe: { http: {} }, interval: 2s, timeout: 2s }"));
    let (clients, start): (Vec<_>, _) = ((0..5).map(|_| balancer.connect()).collect(), Instant::now());
    wait_until("the first has failed", PATIENCE, || state(&balancer, "broken") == "down");
    assert_eq!(state(&balancer, "blackhole"), "starting", "this machine was too busy to look in time");
    assert_eq!(balancer.number("/services/web/refused"), 0, "one probe has not ended yet");
    clients.iter().for_each(assert_ends_with_reset);
    assert!(start.elapsed() > Duration::from_secs(1), "refused after {:?}", start.elapsed());
    balancer.await_refused("no_backend", 5);
    assert!(balancer.probes("blackhole", "timed_out") >= 1);
    // The line may still be on its way through the pipe.
    wait_until("the loss is said", PATIENCE, || balancer.has_logged("NOBODY IS LEFT TO SERVE"));
    assert_eq!(balancer.logged("NOBODY IS LEFT TO SERVE"), 1);
    balancer.stop();
}

#[test]
fn an_answer_that_drips_byte_by_byte_ends_a_probe_at_its_timeout_however_long_it_goes_on() {
    let machine = Machine::shared();
    let (ended, durations) = std::sync::mpsc::channel();
    let drip = |mut stream: &TcpStream, start: &str| {
        let begun = Instant::now();
        hear(stream);
        let bytes = start.bytes().chain(std::iter::repeat(b'x'));
        // Until the prober has had enough.
        for byte in bytes.take_while(|byte| stream.write_all(&[*byte]).is_ok()) {
            std::thread::sleep(Duration::from_millis(if byte == b'x' { 20 } else { 1 }));
        }
        begun.elapsed()
    };
    // The first never comes to the end of the line that counts; the second one's comes soon, and then there is no end.
    let endless = Backend::new(move |stream| {
        let _ = ended.send(drip(stream, "HTTP/1.1 200 "));
    });
    let wordy = Backend::new(move |stream| {
        drip(stream, "HTTP/1.1 200 OK\r\nX-Endless: ");
    });
    let setup = Setup::new().backend("endless", endless.address).backend("wordy", wordy.address);
    let health = "health: { probe: { http: {} }, interval: 1s, timeout: 1s, fall: 1, rise: 1 }";
    let balancer = machine.start(setup.setting(health));
    assert_fails(&balancer, "endless", "timed_out", "no answer within 1s");
    let took: Vec<_> = (0..3).map(|_| durations.recv_timeout(PATIENCE).expect("a probe that ends")).collect();
    // A busy machine may make any of them late, but hardly each.
    let (shortest, timeout) = (*took.iter().min().expect("three of them"), Duration::from_secs(1));
    assert!(shortest + SLACK >= timeout && shortest < timeout * 2, "they took {took:?}");
    wait_until("the other one is asked again and again", PATIENCE, || balancer.probes("wordy", "passed") >= 3);
    assert_eq!(balancer.probes("endless", "passed"), 0);
    assert_eq!(state(&balancer, "wordy"), "up");
    // Whoever drips on does not keep its connection, or they would be as many as there were probes.
    assert!(endless.total() >= 3 && endless.open() <= 2, "{} of {} are open", endless.open(), endless.total());
    wait_until("what drips on is left alone", PATIENCE, || wordy.open() == 0);
    balancer.stop();
}

#[test]
fn a_server_that_accepts_and_never_closes_costs_no_descriptor_however_often_it_is_probed() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let setup = Setup::new().backend("a", backend.address);
    let balancer = machine.start(setup.setting("health: { interval: 100ms, timeout: 100ms }"));
    // Kept open, all of them.
    let mut probes: Vec<_> = (0..5).map(|_| backend.accept()).collect();
    let descriptors = balancer.process().descriptors();
    probes.extend((0..20).map(|_| backend.accept()));
    wait_until("those of past probes are closed", PATIENCE, || balancer.process().descriptors() <= descriptors);
    assert_eq!(state(&balancer, "a"), "up");
    balancer.stop();
}

#[test]
fn probes_go_to_the_port_and_to_the_address_that_are_named_for_them_and_clients_to_the_backends_own() {
    let machine = Machine::shared();
    let own = |address: &str| Backend::named_on(TcpListener::bind(address).expect("a port"), "own");
    let (a, b, c) = (own("127.0.0.1:0"), own("127.0.0.2:0"), own("127.0.0.3:0"));
    // All are probed at one port of their own addresses, but the last one, which names another place.
    let port = Port::refusing();
    let (number, elsewhere) = (port.address.port(), Port::refusing());
    let probed_b = TcpListener::bind(("127.0.0.2", number)).map(|listener| Backend::named_on(listener, "probe"));
    let probed_b = probed_b.expect("the same port of another address");
    let setup = Setup::new().backend("a", a.address).backend("b", b.address);
    let setup = setup.backend_with("c", c.address, &format!("probe_address: \"{}\"", elsewhere.address));
    let health =
        format!("health: {{ port: {number}, interval: 100ms, timeout: 100ms, rise: 1, fall: 1, passive: off }}");
    let balancer = machine.start(setup.setting(&health));
    let await_state = |name: &str, due: &str| {
        wait_until(&format!("{name} is {due}"), PATIENCE, || state(&balancer, name) == due);
    };
    ["a", "c"].iter().for_each(|name| await_state(name, "down"));
    await_state("b", "up");
    assert_eq!(admitted(balancer.address()).map(|(_, name)| name).as_deref(), Some("own"));
    assert_eq!((a.total(), b.total(), c.total()), (0, 1, 0), "a probe has gone to a backend's own port");
    assert!(probed_b.total() >= 1);

    let probed_a = Backend::named_on(port.listen(), "probe");
    let probed_c = Backend::named_on(elsewhere.listen(), "probe");
    ["a", "c"].iter().for_each(|name| await_state(name, "up"));
    drop(probed_b);
    await_state("b", "down");
    let before = b.total();
    (0..6).for_each(|_| drop(admitted(balancer.address()).expect("served")));
    assert_eq!((a.total(), b.total() - before, c.total()), (3, 0, 3));
    assert!(probed_a.total() >= 1 && probed_c.total() >= 1);

    // A reload sends the probes to the backends' own ports; who names a place of its own keeps it.
    balancer.edit(&format!("port: {number}, "), "");
    balancer.reload();
    await_state("b", "up");
    drop((probed_a, probed_c));
    await_state("c", "down");
    let before = balancer.probes("a", "passed");
    wait_until("a is probed at its own port", PATIENCE, || balancer.probes("a", "passed") >= before + 3);
    await_state("a", "up");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_thousand_backends_that_swallow_connects_cost_a_descriptor_each_at_most_and_little_processor_time() {
    const BACKENDS: u16 = 1000;
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    namespaces.far().vanish();
    let setup = Setup::new().inside(&namespaces).listen(SocketAddr::from((NEAR, 8080)));
    let add = |setup: Setup, number| setup.backend(&format!("b{number}"), format!("10.77.0.2:{}", 10_000 + number));
    let setup = (0..BACKENDS).fold(setup, add);
    let balancer = machine.start(setup.setting("health: { interval: 1s, timeout: 1s }"));
    let timed_out = || {
        let text = balancer.get("/metrics");
        let of = |line: &str| line.contains("result=\"timed_out\"").then(|| line.rsplit(' ').next()?.parse().ok())?;
        let counts: Vec<u64> =
            text.lines().filter(|line| line.starts_with("balancer_probes_total")).filter_map(of).collect();
        assert_eq!(counts.len(), usize::from(BACKENDS));
        counts.into_iter().min().unwrap_or_default()
    };
    wait_until("each has been asked", PATIENCE, || timed_out() >= 1);
    let (start, used) = (Instant::now(), balancer.process().processor_time_of("balancer"));
    let mut most = 0;
    while start.elapsed() < Duration::from_secs(3) {
        most = most.max(balancer.process().descriptors());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (used, took) = (balancer.process().processor_time_of("balancer") - used, start.elapsed());
    assert!(most <= usize::from(BACKENDS) + 150, "{most} descriptors are open");
    assert!(used < took / 10, "{used:?} of processor time in {took:?}");
    assert!(timed_out() >= 3, "they are asked on");
    balancer.stop();
}

#[test]
fn a_probe_sends_and_expects_the_bytes_that_hexadecimal_digits_mean() {
    let machine = Machine::shared();
    // A server that reads the greeting byte by byte and answers what is no text.
    let server = Backend::new(|mut stream| {
        let mut greeting = [0; 8];
        if stream.read_exact(&mut greeting).is_ok() && greeting == [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f] {
            let _ = stream.write_all(&[0x00, 0xd2, 0xff]);
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let probe = |send: &str, receive: &str| {
        format!(
            "health: {{ probe: {{ expect: {{ send: {send}, receive: {receive} }} }}, interval: 500ms, timeout: 500ms }}"
        )
    };
    let (send, answer) = (r#"{ hex: "00 00 00 08 04 d2 16 2f" }"#, r#"{ hex: d2ff }"#);
    let setup = Setup::new().backend("a", server.address).setting(&probe(send, answer));
    // The same as a text: the escape is a character, which is two bytes.
    let text = setup.service("text").backend("a", server.address).setting(&probe(r#""\0\0\0\b\x04\xd2\x16/""#, answer));
    let balancer = machine.start(text);
    balancer.await_state("/services/web/backends/a/state", "up");
    balancer.await_state("/services/text/backends/a/state", "down");
    let warned = r"`\xd2` is the character U+00D2, which is two bytes, C3 92: if the byte D2 is meant, write { hex: ";
    balancer.await_logged(warned);
    // A reload says it to those who ask for it, too.
    let (code, out, err) = balancer.command(&["reload"]);
    assert_eq!((code, &*out), (Some(0), "nothing has changed\nreloaded: generation 2\n"));
    assert!(err.contains(": warning: ") && err.contains(warned) && err.contains("00 00 00 08 04 d2 16 2f"), "{err}");
    balancer.stop();
}
