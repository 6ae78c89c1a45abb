//! A peer that disappears without a word is given up in good time; one that is only slow is not such a peer.
//!
//! covers: src/forward/peer

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{
    Acceptor, Balancer, Bytes, End, Machine, NEAR, Namespaces, PUNCTUAL, Setup, Took, assert_between, assert_punctual,
    await_reset, connect, read_to_end, receive, receive_to_end, seed, send, wait_until,
};

const UNRESPONSIVE: Duration = Duration::from_secs(1);

/// How often a peer is looked at whose window is full: four times in [`UNRESPONSIVE`].
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// A write after so long has nothing unacknowledged before it.
const PAUSE: Duration = Duration::from_millis(60);

/// A balancer in the near namespace; the client is far or near, the backend the other way round.
struct Wire {
    namespaces: Arc<Namespaces>,
    backend: Acceptor,
    balancer: Balancer,
}

fn start(machine: &Machine, far_is_client: bool, timeouts: &str) -> Wire {
    let namespaces = Namespaces::new();
    let (side, address) =
        if far_is_client { (namespaces.near(), "127.0.0.1:0") } else { (namespaces.far(), "10.77.0.2:0") };
    let backend = Acceptor::on(side.run(|| TcpListener::bind(address).expect("a backend's port")));
    let setup = Setup::new().inside(&namespaces).listen(SocketAddr::from((NEAR, 8080))).backend("a", backend.address);
    let balancer = machine.start(setup.setting(&format!("timeouts: {timeouts}")));
    Wire { namespaces, backend, balancer }
}

impl Wire {
    fn session(&self, far_is_client: bool) -> (TcpStream, TcpStream) {
        let side = if far_is_client { self.namespaces.far() } else { self.namespaces.near() };
        let client = side.run(|| connect(SocketAddr::from((NEAR, 8080))));
        (client, self.backend.accept())
    }
}

#[test]
fn a_client_that_vanishes_with_data_unacknowledged_is_given_up_at_unresponsive() {
    vanishes(&Machine::shared(), true, 100);
}

#[test]
fn a_backend_that_vanishes_with_data_unacknowledged_is_given_up_at_unresponsive() {
    vanishes(&Machine::shared(), false, 100);
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_bulk_is_given_up_at_unresponsive() {
    vanishes(&Machine::shared(), true, 1 << 40);
}

#[test]
fn a_backend_that_vanishes_in_the_middle_of_bulk_is_given_up_at_unresponsive() {
    vanishes(&Machine::shared(), false, 1 << 40);
}

fn vanishes(machine: &Machine, far_is_client: bool, count: u64) {
    assert_punctual(UNRESPONSIVE, || [vanishes_once(machine, far_is_client, count)]);
}

/// How long it took from the last sign of life, or from the first byte that was never acknowledged.
fn vanishes_once(machine: &Machine, far_is_client: bool, count: u64) -> Took {
    let wire = start(machine, far_is_client, "{ unresponsive: 1s }");
    let (client, at_backend) = wire.session(far_is_client);
    let (far, near) = if far_is_client { (client, at_backend) } else { (at_backend, client) };
    let seed = seed();
    send(&near, seed, 10).expect("sending");
    receive(&far, &mut Bytes::new(seed), 10);
    let took = std::thread::scope(|scope| {
        let mut watch;
        if count > 1000 {
            let sender = scope.spawn(|| send(&near, seed, count).expect_err("it must be cut"));
            receive(&far, &mut Bytes::new(seed), 50 << 20);
            // It reads on until nothing comes any more: a full window would be another case, that of the paused reader.
            far.set_read_timeout(Some(UNRESPONSIVE / 4)).expect("a read timeout");
            scope.spawn(|| while (&far).read(&mut [0; 1 << 16]).is_ok_and(|bytes| bytes > 0) {});
            watch = wire.balancer.stopwatch();
            wire.namespaces.far().vanish();
            let (_, error) = sender.join().expect("sending");
            assert!(crate::harness::is_reset(&error), "{error}");
        } else {
            wire.namespaces.far().vanish();
            // The clock starts with a write after a pause; without one, with the last acknowledgement.
            std::thread::sleep(PAUSE);
            watch = wire.balancer.stopwatch();
            send(&near, seed, count).expect("sending");
            await_reset(&near, UNRESPONSIVE * 4);
        }
        watch.took()
    });
    wire.balancer.await_closed("unresponsive", 1);
    wire.balancer.await_no_session();
    wire.balancer.stop();
    took
}

#[test]
fn a_paused_reader_that_vanishes_is_given_up_when_window_probes_stay_unanswered() {
    let machine = Machine::shared();
    // No event tells when a probe went out: the second one that stays unanswered is seen at the next look.
    assert_between(Duration::ZERO, BETWEEN_LOOKS + PUNCTUAL, || {
        let wire = start(&machine, true, "{ unresponsive: 1s }");
        let (_paused, at_backend) = wire.session(true);
        let (seed, far) = (seed(), wire.namespaces.far());
        let took = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(&at_backend, seed, 1 << 40).expect_err("it must be cut"));
            // By then looks are regular, and probes so rare that the far kernel leaves none out (tcp_invalid_ratelimit, 500 ms).
            stalled(&wire.balancer, UNRESPONSIVE * 2);
            far.vanish();
            let (before, mut watch) = (far.packets_on_the_wire(), wire.balancer.stopwatch());
            wait_until("two window probes go unanswered", Duration::from_secs(15), || {
                let (now, given_up) = (wire.balancer.stopwatch(), wire.balancer.closed("unresponsive"));
                let gone_out = far.packets_on_the_wire() >= before + 2;
                // The look that follows the second one may follow it at once.
                assert!(gone_out || given_up == 0, "one probe is not enough");
                if !gone_out {
                    watch = now;
                }
                gone_out
            });
            let (_, error) = sender.join().expect("sending");
            assert!(crate::harness::is_reset(&error), "{error}");
            watch.took()
        });
        wire.balancer.await_closed("unresponsive", 1);
        wire.balancer.stop();
        [took]
    });
}

#[test]
fn a_paused_reader_outlives_a_window_probe_that_gets_lost() {
    let machine = Machine::shared();
    let wire = start(&machine, true, "{ unresponsive: 1s }");
    let (paused, at_backend) = wire.session(true);
    let (seed, count, far) = (seed(), 256 << 20, wire.namespaces.far());
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            at_backend.set_write_timeout(Some(Duration::from_secs(40))).expect("a write timeout");
            send(&at_backend, seed, count).expect("sending");
            at_backend.shutdown(std::net::Shutdown::Write).expect("finishing");
        });
        // So long that the next probe follows only after more than `unresponsive`.
        stalled(&wire.balancer, UNRESPONSIVE * 3);
        far.vanish();
        let before = far.packets_on_the_wire();
        let lost = || far.packets_on_the_wire() > before;
        wait_until("a window probe gets lost", Duration::from_secs(10), lost);
        far.reappear();
        assert_eq!(far.packets_on_the_wire(), before + 1);
        std::thread::sleep(UNRESPONSIVE * 2);
        assert_eq!((wire.balancer.number("/sessions"), wire.balancer.closed("unresponsive")), (1, 0));
        assert_eq!(receive_to_end(&paused, seed), (count, End::Clean));
        sender.join().expect("sending");
    });
    drop((paused, at_backend));
    wire.balancer.await_no_session();
    wire.balancer.stop();
}

#[test]
fn a_paused_reader_that_answers_window_probes_lives_and_gets_everything() {
    let machine = Machine::shared();
    let wire = start(&machine, true, "{ unresponsive: 2s }");
    let (paused, at_backend) = wire.session(true);
    let (seed, count) = (seed(), 256 << 20);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            at_backend.set_write_timeout(Some(Duration::from_secs(40))).expect("a write timeout");
            send(&at_backend, seed, count).expect("sending");
            at_backend.shutdown(std::net::Shutdown::Write).expect("finishing");
        });
        stalled(&wire.balancer, Duration::from_millis(300));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(9) {
            assert_eq!((wire.balancer.number("/sessions"), wire.balancer.closed("unresponsive")), (1, 0));
            std::thread::sleep(Duration::from_millis(100));
        }
        receive(&paused, &mut Bytes::new(seed), count);
        assert_eq!(read_to_end(&paused), (Vec::new(), End::Clean));
        sender.join().expect("sending");
    });
    drop((paused, at_backend));
    wire.balancer.await_no_session();
    wire.balancer.stop();
}

#[test]
fn a_paused_reader_is_ended_at_idle() {
    let machine = Machine::shared();
    let wire = start(&machine, true, "{ unresponsive: 2s, idle: 5s }");
    let (_paused, at_backend) = wire.session(true);
    let seed = seed();
    let (_, error) = send(&at_backend, seed, 1 << 40).expect_err("it must be cut");
    assert!(crate::harness::is_reset(&error), "{error}");
    wire.balancer.await_closed("idle", 1);
    assert_eq!(wire.balancer.closed("unresponsive"), 0);
    wire.balancer.stop();
}

/// Waits until no byte has moved for a while.
fn stalled(balancer: &Balancer, a_while: Duration) {
    let (mut last, mut since) = (0, Instant::now());
    wait_until("nothing moves any more", Duration::from_secs(20), || {
        let now = balancer.of_backend("a", "bytes_out");
        if now != last {
            (last, since) = (now, Instant::now());
        }
        last > 0 && since.elapsed() > a_while
    });
}
