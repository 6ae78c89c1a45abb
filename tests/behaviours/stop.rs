//! A stop lets exchanges finish for as long as `drain` says, then ends what is left; it never hangs.
//!
//! covers: src/control/signals, src/control/stop, src/forward/closing, src/forward/worker, src/messages
//! kernel features: multishot_accept, submit_all

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;

use super::seeing::{ask, http};
use crate::harness::{
    Acceptor, Backend, Balancer, Blackhole, Bytes, End, Machine, PATIENCE, SLACK, Setup, assert_ends_with_reset,
    assert_took, assert_within, await_reset, exchange, is_reset, read_to_end, receive_to_end, reset, seed, send,
    wait_until,
};

fn start(machine: &Machine, drain: &str) -> (Acceptor, Balancer) {
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().process(&format!("drain: {drain}")).backend("a", backend.address));
    (backend, balancer)
}

/// Waits until a new client is turned away.
fn await_no_more_clients(address: std::net::SocketAddr) {
    wait_until("new clients are turned away", PATIENCE, || match TcpStream::connect(address) {
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset),
        Ok(stream) => {
            reset(stream);
            false
        }
    });
}

#[test]
fn an_exchange_under_way_completes_then_the_exit_code_is_0() {
    let machine = Machine::shared();
    for signal in [Signal::TERM, Signal::INT] {
        let (backend, mut balancer) = start(&machine, "20s");
        let address = balancer.address();
        let (mut client, mut at_backend) = balancer.session(&backend);
        client.write_all(b"a question").expect("asking");
        at_backend.read_exact(&mut [0; 10]).expect("the question");
        balancer.signal(signal);
        await_no_more_clients(address);
        std::thread::sleep(Duration::from_millis(200));

        let seed = seed();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send(&at_backend, seed, 8 << 20).expect("answering");
                at_backend.shutdown(Shutdown::Write).expect("finishing");
            });
            assert_eq!(receive_to_end(&client, seed), (8 << 20, End::Clean));
        });
        client.write_all(b"thank you").expect("the half that is open stays open");
        client.shutdown(Shutdown::Write).expect("finishing");
        assert_eq!(read_to_end(&at_backend), (b"thank you".to_vec(), End::Clean));
        let (code, took) = balancer.wait(PATIENCE);
        assert_eq!(code, Some(0));
        assert!(took.own() < SLACK, "it lingered {took:?} after its last session");
    }
}

#[test]
fn what_is_open_past_drain_is_reset_and_the_exit_code_is_0() {
    let machine = Machine::shared();
    let (backend, mut balancer) = start(&machine, "600ms");
    let (client, at_backend) = balancer.session(&backend);
    let (half_closed, at_half_closed) = balancer.session(&backend);
    half_closed.shutdown(Shutdown::Write).expect("finishing");
    assert_eq!(read_to_end(&at_half_closed), (Vec::new(), End::Clean));
    let mut watch = balancer.stopwatch();
    balancer.signal(Signal::TERM);
    assert_ends_with_reset(&client);
    assert_took(watch.took(), Duration::from_millis(600));
    assert_ends_with_reset(&at_backend);
    assert_ends_with_reset(&half_closed);
    await_reset(&at_half_closed, Duration::from_secs(1));
    let (code, _) = balancer.wait(Duration::from_secs(1));
    assert_eq!(code, Some(0));
}

#[test]
fn during_a_stop_whoever_asks_is_told_that_clients_should_go_elsewhere() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let mut balancer = machine.start(Setup::new().http().process("drain: 20s").backend("a", backend.address));
    let (address, http) = (balancer.address(), http(&balancer));
    let (client, at_backend) = balancer.session(&backend);
    let asked = |balancer: &Balancer| balancer.command(&["status", "--check", "web"]);
    assert_eq!((asked(&balancer).0, balancer.get("/readyz").as_str()), (Some(0), "ok\n"));
    balancer.signal(Signal::TERM);
    await_no_more_clients(address);
    let (code, out, _) = asked(&balancer);
    assert_eq!((code, &*out), (Some(2), "web DOWN - the process is stopping: no client is accepted any more\n"));
    let (head, answer) = ask(http, "GET", "/readyz");
    assert!(head.contains("503") && answer.contains("the process is stopping"), "{answer}");
    assert!(balancer.command(&["status"]).1.contains("stopping: no client is accepted any more"));
    assert_eq!(balancer.get("/healthz"), "ok\n", "the process works");
    drop((client, at_backend));
    assert_eq!(balancer.wait(PATIENCE).0, Some(0));
}

#[test]
fn a_stop_is_no_error_in_the_log_when_some_workers_have_ended_before_the_others() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let setup = Setup::new().process("drain: 300ms").workers(4).backend("a", backend.address);
    let mut balancer = machine.start(setup);
    // The worker that has it ends last.
    let (client, _at_backend) = balancer.session(&backend);
    balancer.signal(Signal::TERM);
    assert_ends_with_reset(&client);
    let (code, _) = balancer.wait(Duration::from_secs(1));
    assert_eq!(code, Some(0));
    balancer.await_logged("stopped");
    assert!(!balancer.has_logged("ERROR"), "{:?}", balancer.log_line("ERROR"));
}

#[test]
fn without_sessions_a_stop_is_immediate() {
    let machine = Machine::shared();
    let (_backend, mut balancer) = start(&machine, "30s");
    balancer.signal(Signal::TERM);
    let (code, took) = balancer.wait(PATIENCE);
    assert_eq!(code, Some(0));
    assert!(took.own() < Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_second_signal_ends_it_within_100_ms_with_1() {
    let machine = Machine::shared();
    for second in [Signal::TERM, Signal::INT] {
        assert_within(Duration::from_millis(150), || {
            let (backend, mut balancer) = start(&machine, "30s");
            let _session = balancer.session(&backend);
            let address = balancer.address();
            balancer.signal(Signal::TERM);
            await_no_more_clients(address);
            balancer.signal(second);
            let (code, took) = balancer.wait(PATIENCE);
            assert_eq!(code, Some(1));
            [took]
        });
    }
}

/// Clients of the administration that never finish asking, all of them accepted: silent, in the middle of a head, of a body.
fn never_asking(balancer: &Balancer) -> Vec<UnixStream> {
    let starts = ["", "GET /v1/status HTTP/1.1\r\nX-Slow: ", "POST /v1/reload HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"];
    let start = |start: &&str| {
        let mut stream = UnixStream::connect(balancer.socket()).expect("the admin socket");
        stream.write_all(start.as_bytes()).expect("beginning to ask");
        stream
    };
    let clients = starts.iter().map(start).collect();
    // Whoever comes later is answered, so these were accepted.
    balancer.status();
    clients
}

#[test]
fn a_stop_does_not_wait_for_clients_of_the_administration_that_have_not_asked() {
    let machine = Machine::shared();
    let (_backend, mut balancer) = start(&machine, "30s");
    let clients = never_asking(&balancer);
    balancer.signal(Signal::TERM);
    let (code, took) = balancer.wait(PATIENCE);
    assert_eq!(code, Some(0));
    assert!(took.own() < Duration::from_millis(500), "{took:?}");
    assert!(!balancer.socket().exists());
    for mut client in clients {
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert_eq!(answer, "");
    }
}

#[test]
fn a_second_signal_waits_for_no_client_of_the_administration_either() {
    let machine = Machine::shared();
    assert_within(Duration::from_millis(150), || {
        let (backend, mut balancer) = start(&machine, "30s");
        let _session = balancer.session(&backend);
        let _clients = never_asking(&balancer);
        let address = balancer.address();
        balancer.signal(Signal::TERM);
        await_no_more_clients(address);
        balancer.signal(Signal::TERM);
        let (code, took) = balancer.wait(PATIENCE);
        assert_eq!(code, Some(1));
        // Of those who have asked whether clients are turned away, one may be open still.
        balancer.await_logged("stopped at once by a second signal, ");
        assert!(!balancer.socket().exists());
        [took]
    });
}

#[test]
fn a_client_that_is_being_connected_at_a_stop_is_not_left_hanging() {
    let machine = Machine::shared();
    let blackhole = Blackhole::new();
    let setup = Setup::new().process("drain: 500ms").backend("a", blackhole.address);
    let mut balancer = machine.start(setup.setting("connect: { timeout: 60s }"));
    let client = balancer.connect();
    balancer.await_number("/sessions", 1);
    balancer.signal(Signal::TERM);
    assert_ends_with_reset(&client);
    wait_until("it is said that a client was refused", PATIENCE, || balancer.has_logged("(stopping)"));
    let (code, _) = balancer.wait(Duration::from_secs(2));
    assert_eq!(code, Some(0));
}

#[test]
fn a_signal_in_the_first_moment_of_serving_is_heard_too() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    for _ in 0..10 {
        let balancer = machine.start(Setup::new().backend("a", backend.address));
        balancer.signal(Signal::HUP);
        exchange(&balancer.connect());
        balancer.await_no_session();
        balancer.stop();
    }
}

#[test]
fn a_signal_that_has_nothing_to_do_is_logged_and_ignored() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let client = balancer.connect();
    balancer.signal(Signal::USR1);
    wait_until("it is logged", PATIENCE, || balancer.has_logged("SIGUSR1"));
    exchange(&client);
    exchange(&balancer.connect());
    balancer.stop_after(client);
}

#[test]
fn a_stop_with_thousands_of_sessions_and_data_in_flight_neither_crashes_nor_hangs() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let mut balancer = machine.start(Setup::new().process("drain: 700ms").backend("a", backend.address));
    let idle: Vec<TcpStream> = (0..2000).map(|_| balancer.connect()).collect();
    let streaming: Vec<TcpStream> = (0..100).map(|_| balancer.connect()).collect();
    let seed = seed();
    balancer.await_number("/sessions", 2100);
    let (code, took) = std::thread::scope(|scope| {
        for (number, client) in streaming.iter().enumerate() {
            let seed = seed.wrapping_add(number as u64);
            // Every third reads nothing, so that there is data stuck everywhere.
            let reader = (number % 3 > 0).then(|| scope.spawn(move || receive_until_cut(client, seed)));
            scope.spawn(move || {
                let (_, error) = send(client, seed, 1 << 40).expect_err("it must be cut");
                // Only the first to look is told of a reset: the reader or the sender.
                let reader = reader.map(|reader| reader.join().expect("reading"));
                assert!(
                    error.kind() == ErrorKind::ConnectionReset || reader == Some(End::Reset),
                    "{error}, {reader:?}"
                );
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        balancer.signal(Signal::TERM);
        balancer.wait(Duration::from_secs(8))
    });
    assert_eq!(code, Some(0));
    assert!(took.own() < Duration::from_millis(700) + Duration::from_secs(2), "{took:?}");
    idle.iter().for_each(assert_ends_with_reset);
}

fn receive_until_cut(mut stream: &TcpStream, seed: u64) -> End {
    let (mut bytes, mut buffer) = (Bytes::new(seed), vec![0; 1 << 18]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Clean,
            Ok(count) => bytes.check(&buffer[..count]),
            Err(error) if is_reset(&error) => return End::Reset,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn sessions_that_end_by_themselves_in_time_all_end_cleanly() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let mut balancer = machine.start(Setup::new().process("drain: 10s").backend("a", backend.address));
    let clients: Vec<TcpStream> = (0..500).map(|_| balancer.connect()).collect();
    clients.iter().for_each(exchange);
    balancer.signal(Signal::TERM);
    for client in &clients {
        exchange(client);
        client.shutdown(Shutdown::Write).expect("finishing");
    }
    for client in &clients {
        assert_eq!(read_to_end(client), (Vec::new(), End::Clean));
    }
    drop(clients);
    assert_eq!(balancer.wait(Duration::from_secs(3)).0, Some(0));
}

#[test]
fn clients_that_wait_to_be_accepted_at_a_stop_are_served() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let mut balancer = machine.start(Setup::new().backend("a", backend.address));
    let address = balancer.address();
    // Frozen, it finds the clients and the signal at once when it goes on.
    balancer.signal(Signal::STOP);
    let clients: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).expect("the kernel connects")).collect();
    balancer.signal(Signal::TERM);
    balancer.signal(Signal::CONT);
    clients.iter().for_each(exchange);
    drop(clients);
    assert_eq!(balancer.wait(PATIENCE).0, Some(0));
}

#[test]
fn after_a_sudden_death_a_new_process_listens_again_within_200_ms_of_its_start() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let port = crate::harness::free_port();
    let setup = Setup::new();
    let socket = setup.directory().join("web.sock");
    let listen = [format!("127.0.0.1:{port}"), format!("unix:{}", socket.display())];
    let setup = setup.listen_on(&listen.each_ref().map(String::as_str)).backend("a", backend.address);
    let mut balancer = machine.start(setup);
    for _ in 0..5 {
        // Open sessions, whose addresses the dead process leaves in the kernel.
        let clients: Vec<_> = (0..20).map(|_| balancer.connect()).collect();
        clients.iter().for_each(exchange);
        let took = balancer.die_and_start_again();
        let client = balancer.connect();
        exchange(&client);
        let said = balancer.log_line("ready: ").expect("it is ready");
        assert!(took.own() < Duration::from_millis(200), "{took:?} until {said}");
        UnixStream::connect(&socket).expect("the Unix socket of the dead is replaced");
    }
    balancer.await_no_session();
    balancer.stop();
}
