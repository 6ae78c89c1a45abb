//! Who reads slowly slows the sender down; the balancer neither hoards nor loses.
//!
//! covers: src/forward/flow, src/forward/pipes, src/forward/slot, src/forward/splice, src/sys/buffers, src/sys/pipe
//! kernel features: big_pipes, buffer_ring, multishot_receive

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::{
    Acceptor, Balancer, Bytes, End, Machine, Setup, all_acknowledged, read_to_end, receive, reset, seed, send, send_in,
    wait_until,
};

const MIB: u64 = 1 << 20;

/// What the kernels of three hosts may hold on the way; all that is behind it must wait at the sender.
const ON_THE_WAY: u64 = 200 * MIB;

/// The most that resident memory may grow for a stalled session, the allocator's own steps included.
const STALLED_MEMORY: u64 = 3 * MIB;

/// What a kernel retries during a stall it retries ever more rarely: after a stall of some seconds it may take as long again
/// until bytes move.
const LONG_STALL: Duration = Duration::from_secs(45);

/// Sends `count` bytes and finishes; `sent` can be watched.
fn sending(writer: &TcpStream, seed: u64, count: u64, sent: &AtomicU64) {
    // Longer than any stall here, but not for ever: a failed test must end too.
    writer.set_write_timeout(Some(LONG_STALL * 2)).expect("a write timeout");
    let mut bytes = Bytes::new(seed);
    while bytes.position() < count {
        let part = MIB.min(count - bytes.position());
        send_in(writer, &mut bytes, part, 1 << 20).expect("sending");
        sent.store(bytes.position(), Relaxed);
    }
    writer.shutdown(Shutdown::Write).expect("finishing");
}

/// Waits until `sent` has not grown for a while.
fn stalled(sent: &AtomicU64) -> u64 {
    let (mut last, mut since) = (0, Instant::now());
    wait_until("the sender is slowed down", Duration::from_secs(20), || {
        let now = sent.load(Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        last > 0 && since.elapsed() > Duration::from_millis(500)
    });
    last
}

/// Whether something is so within a moment.
fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > Duration::from_millis(200) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

fn stops_reading(balancer: &Balancer, reader: &TcpStream, writer: &TcpStream, count: u64) {
    let (seed, sent, memory) = (seed(), AtomicU64::new(0), balancer.process().resident());
    std::thread::scope(|scope| {
        scope.spawn(|| sending(writer, seed, count, &sent));
        let mut bytes = Bytes::new(seed);
        // It reads well at first, so that the stall meets a stream in full flow.
        receive(reader, &mut bytes, 50 * MIB);
        let stalled_at = stalled(&sent);
        assert!(stalled_at < 50 * MIB + ON_THE_WAY, "the sender was not slowed down: {stalled_at} bytes are gone");
        let grown = balancer.process().resident().saturating_sub(memory);
        assert!(grown < STALLED_MEMORY, "{grown} bytes more resident for one stalled session");
        let used = balancer.process().processor_time();
        std::thread::sleep(Duration::from_millis(500));
        let used = balancer.process().processor_time() - used;
        assert!(used <= Duration::from_millis(20), "{used:?} of processor time while nothing moves");
        receive(reader, &mut bytes, count - 50 * MIB);
        assert_eq!(read_to_end(reader), (Vec::new(), End::Clean));
    });
}

#[test]
fn a_client_that_stops_reading_slows_its_backend_and_gets_everything_later() {
    let machine = Machine::alone();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let (client, at_backend) = balancer.session(&backend);
    stops_reading(&balancer, &client, &at_backend, 1024 * MIB);
    drop(at_backend);
    balancer.stop_after(client);
}

#[test]
fn a_backend_that_stops_reading_slows_its_client_and_gets_everything_later() {
    let machine = Machine::alone();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let (client, at_backend) = balancer.session(&backend);
    stops_reading(&balancer, &at_backend, &client, 512 * MIB);
    drop(at_backend);
    balancer.stop_after(client);
}

#[test]
fn many_small_messages_behind_a_reader_that_stopped_pile_up_at_the_sender_and_all_arrive_later() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("up", backend.address));
    for _ in 0..3 {
        let before = balancer.of_backend("up", "bytes_in");
        let (writer, reader) = balancer.session(&backend);
        writer.set_nodelay(true).expect("no delay");
        let (seed, read) = (seed(), || balancer.of_backend("up", "bytes_in") - before);
        let mut bytes = Bytes::new(seed);
        let mut small = |count: u64, size: u64| {
            for _ in 0..count {
                send_in(&writer, &mut bytes, size, size as usize).expect("sending");
                std::thread::sleep(Duration::from_micros(50));
            }
            bytes.position()
        };
        // Small from the start, so that the stall meets a stream that was never bulk; and little after it, so that a receive is armed.
        let mut sent = 0;
        while soon(|| read() == sent) {
            assert!(sent < 50 * MIB, "the reader's kernel takes everything");
            sent = small(10, 500);
        }
        let memory = balancer.process().resident();
        sent = small(3000, 1);
        let grown = balancer.process().resident().saturating_sub(memory);
        assert!(grown < MIB / 4, "{grown} bytes more resident for small messages that nobody reads");
        writer.shutdown(Shutdown::Write).expect("finishing");
        receive(&reader, &mut Bytes::new(seed), sent);
        assert_eq!(read_to_end(&reader), (Vec::new(), End::Clean));
    }
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_stalled_direction_does_not_hold_up_the_other() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let (client, at_backend) = balancer.session(&backend);
    let (up, down, sent) = (seed(), seed(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| sending(&client, up, 300 * MIB, &sent));
        stalled(&sent);
        // The client's stream is stuck; the backend's own still flows, small and bulk.
        let (mut sender, mut receiver) = (Bytes::new(down), Bytes::new(down));
        for size in [1, 100, 20 * MIB, 1, 5] {
            std::thread::scope(|scope| {
                scope.spawn(|| send_in(&at_backend, &mut sender, size, 1 << 20).expect("sending"));
                receive(&client, &mut receiver, size);
            });
        }
        receive(&at_backend, &mut Bytes::new(up), 300 * MIB);
        assert_eq!(read_to_end(&at_backend), (Vec::new(), End::Clean));
    });
    drop(at_backend);
    balancer.stop_after(client);
}

/// Bulk sessions, in full flow or stalled, of a balancer that runs as an ordinary user.
struct Streams {
    balancer: Balancer,
    backend: Acceptor,
    sessions: Vec<(TcpStream, TcpStream)>,
    seed: u64,
}

/// Bytes that each stream has in all.
const EACH: u64 = 12 * MIB;

impl Streams {
    fn start(machine: &Machine, user: u32, count: usize) -> Self {
        let backend = Acceptor::new();
        let setup = Setup::new().backend("a", backend.address).run_as(user);
        let balancer = machine.start(setup);
        let sessions = (0..count).map(|_| balancer.session(&backend)).collect();
        Self { balancer, backend, sessions, seed: seed() }
    }

    fn seed(&self, number: usize) -> u64 {
        self.seed.wrapping_add(number as u64)
    }

    /// All begin and stall half-way, `meanwhile` is done, then all go on to the end.
    fn stall_and_finish(&self, meanwhile: impl FnOnce()) {
        let sent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for (number, (_, at_backend)) in self.sessions.iter().enumerate() {
                let (sent, seed) = (&sent, self.seed(number));
                scope.spawn(move || sending(at_backend, seed, EACH, sent));
            }
            let mut readers: Vec<Bytes> =
                (0..self.sessions.len()).map(|number| Bytes::new(self.seed(number))).collect();
            for ((client, _), bytes) in self.sessions.iter().zip(&mut readers) {
                receive(client, bytes, 2 * MIB);
            }
            let moved = || self.balancer.of_backend("a", "bytes_out");
            let (mut last, mut since) = (moved(), Instant::now());
            wait_until("all have stalled", Duration::from_secs(30), || {
                let now = moved();
                if now != last {
                    (last, since) = (now, Instant::now());
                }
                since.elapsed() > Duration::from_millis(300)
            });
            meanwhile();
            for ((client, _), mut bytes) in self.sessions.iter().zip(readers) {
                scope.spawn(move || {
                    client.set_read_timeout(Some(LONG_STALL)).expect("a read timeout");
                    let rest = EACH - bytes.position();
                    receive(client, &mut bytes, rest);
                    assert_eq!(read_to_end(client), (Vec::new(), End::Clean));
                });
            }
        });
    }

    fn finish(self) {
        drop((self.sessions, self.backend));
        self.balancer.await_no_session();
        self.balancer.stop();
    }
}

/// An ordinary user may have 16,384 pages in pipes in all: 64 pipes of 1 MiB.
fn pages_for_a_user() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").expect("the limit on pipes");
    text.trim().parse().expect("a number of pages")
}

#[test]
fn streams_beyond_the_users_budget_of_pipes_go_on_by_copying() {
    let machine = Machine::alone();
    let streams = Streams::start(&machine, 61_001, 100);
    streams.stall_and_finish(|| {
        let pipes = streams.balancer.number("/pipes");
        assert!(pipes > 16, "only {pipes} pipes: these streams are bulk");
        assert!(streams.balancer.metric("balancer_pipes_refused_total") > 0.0, "who gets none is counted");
        assert!(pipes * 256 <= pages_for_a_user(), "{pipes} pipes are more than an ordinary user may have");
        assert_eq!(streams.balancer.metric("balancer_pipes") as u64, pipes);
        assert!(streams.balancer.metric("balancer_pipes_max") as u64 >= pipes);
    });
    streams.finish();
}

#[test]
fn streams_go_on_exactly_when_the_kernel_refuses_pipes_or_shrinks_them() {
    let machine = Machine::alone();
    // Two balancers of one user: the second finds the user's budget used up by the first.
    let first = Streams::start(&machine, 61_002, 90);
    first.stall_and_finish(|| {
        let second = Streams::start(&machine, 61_002, 90);
        second.stall_and_finish(|| {
            assert!(second.balancer.metric("balancer_pipes_refused_total") > 0.0, "who gets none is counted");
        });
        second.finish();
    });
    first.finish();
}

#[test]
fn what_backends_that_broke_will_never_get_takes_no_buffer_from_others() {
    /// More than a worker has buffers.
    const SESSIONS: usize = 140;
    /// More than fits into one: the rest is received behind it, where a receive stays armed.
    const WORDS: u64 = 24 * 1024;
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().workers(1).backend("a", backend.address));
    let lingering: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (client, at_backend) = balancer.session(&backend);
            // It does not read, and has no room: the backend's last words are on their way to it for as long as `half_closed`.
            SockRef::from(&client).set_recv_buffer_size(1 << 16).expect("SO_RCVBUF");
            send(&at_backend, 7, MIB / 4).expect("last words");
            all_acknowledged(&at_backend);
            let frozen = balancer.process().freeze();
            // The client's words and the reset come together, so that the words are taken in hand and can go nowhere.
            send(&client, 7, WORDS).expect("words for nobody");
            reset(at_backend);
            drop(frozen);
            client
        })
        .collect();
    balancer.await_number("/sessions", SESSIONS as u64);
    let (client, at_backend) = balancer.session(&backend);
    send(&client, 7, 100).expect("sending");
    receive(&at_backend, &mut Bytes::new(7), 100);
    // The last free buffer would be enough for that.
    assert_eq!(balancer.metric("balancer_buffers_refused_total") as u64, 0, "receives that found no buffer");
    drop((client, at_backend));
    lingering.into_iter().for_each(reset);
    balancer.await_no_session();
    balancer.stop();
}
