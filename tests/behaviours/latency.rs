//! Nothing waits on the way: no Nagle, no delayed acknowledgement, no turn that others must sit out.
//!
//! covers: src/forward/flow, src/forward/worker, src/sys/ring
//! kernel features: coop_taskrun, defer_taskrun, registered_ring

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{
    Acceptor, Backend, Balancer, Bytes, Machine, Setup, connect, exchange, patient, percentile, receive, seed, send,
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// How long each of `count` calls takes.
fn timed(count: usize, mut call: impl FnMut()) -> Vec<Duration> {
    let time = |_| {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    (0..count).map(time).collect()
}

#[test]
fn one_byte_and_its_answer_wait_for_nothing() {
    let machine = Machine::alone();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let client = balancer.connect();
    let mut times = timed(1000, || exchange(&client));
    let (median, late) = (percentile(&mut times, 50), percentile(&mut times, 99));
    assert!(median < 2 * MILLISECOND && late < 20 * MILLISECOND, "median {median:?}, 99 % {late:?}");
    balancer.stop_after(client);
}

#[test]
fn a_request_in_two_writes_and_an_answer_in_two_writes_wait_for_nothing() {
    let machine = Machine::alone();
    // Nagle on either side of the balancer would hold the second byte until the first is acknowledged: 40 ms.
    let backend = Backend::new(|mut stream| {
        let mut request = [0; 2];
        while stream.read_exact(&mut request).is_ok() {
            for byte in request {
                std::thread::sleep(MILLISECOND / 2);
                stream.write_all(&[byte]).expect("answering");
            }
        }
    });
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let mut client = balancer.connect();
    let mut times = timed(200, || {
        for byte in *b"ab" {
            client.write_all(&[byte]).expect("sending");
            std::thread::sleep(MILLISECOND / 2);
        }
        let mut answer = [0; 2];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"ab");
    });
    let (median, late) = (percentile(&mut times, 50), percentile(&mut times, 95));
    assert!(median < 10 * MILLISECOND && late < 35 * MILLISECOND, "median {median:?}, 95 % {late:?}");
    balancer.stop_after(client);
}

#[test]
fn the_last_odd_bytes_of_a_bulk_message_are_not_held_back() {
    let machine = Machine::alone();
    const SIZE: u64 = (4 << 20) + 13;
    let seed = seed();
    let backend = Backend::new(move |mut stream| {
        // Until the client leaves: a whole message in, one byte out.
        let mut buffer = vec![0; 1 << 18];
        let mut left = SIZE;
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            left -= count as u64;
            if left == 0 {
                left = SIZE;
                stream.write_all(b"!").expect("answering");
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    });
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let mut client = balancer.connect();
    let mut times = timed(30, || {
        send(&client, seed, SIZE).expect("sending");
        client.read_exact(&mut [0]).expect("an answer");
    });
    // SPLICE_F_MORE on a last chunk would cost 200 ms, a lost wake-up for ever.
    let late = percentile(&mut times, 95);
    assert!(late < 120 * MILLISECOND, "95 % within {late:?}");
    balancer.stop_after(client);
}

/// How much longer than alone an exchange may take beside a load that does not concern it, the machine being small.
fn assert_undisturbed(balancer: &Balancer, before: &mut [Duration], during: &mut [Duration]) {
    let (alone, beside, late) = (percentile(before, 50), percentile(during, 50), percentile(during, 99));
    eprintln!("median alone {alone:?}, beside the load {beside:?}; 99 % {late:?}");
    assert!(beside < 2 * alone + 3 * MILLISECOND, "median {beside:?} against {alone:?} alone");
    assert!(late < 50 * MILLISECOND, "99 % within {late:?}");
    assert_eq!(balancer.process().ring_workers(), 0);
}

#[test]
fn a_greedy_bulk_stream_leaves_others_on_the_same_worker_their_latency() {
    let machine = Machine::alone();
    let (backend, bulk_backend) = (Backend::echo(), Acceptor::new());
    let setup = Setup::new().workers(1).backend("a", backend.address);
    let balancer = machine.start(setup.service("bulk").backend("b", bulk_backend.address));
    let client = balancer.connect();
    let mut before = timed(300, || exchange(&client));

    let bulk = connect(balancer.address_of("bulk"));
    let (at_backend, seed) = (bulk_backend.accept(), seed());
    let mut during = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            step_back();
            send(&at_backend, seed, 1 << 32)
        });
        scope.spawn(|| {
            step_back();
            receive_until_cut(&bulk, seed);
        });
        receive_some(&sender);
        let during = timed(500, || exchange(&client));
        assert!(!sender.is_finished(), "the stream must last as long as the measurement");
        bulk.shutdown(Shutdown::Both).expect("cutting the stream");
        let _ = at_backend.shutdown(Shutdown::Both);
        let _ = sender.join();
        during
    });
    assert_undisturbed(&balancer, &mut before, &mut during);
    drop((bulk, at_backend));
    balancer.stop_after(client);
}

/// Lets the calling thread have the processor only when nobody else wants it: the load comes from this same machine, and what is
/// measured is the balancer, not how the scheduler shares out two cores.
fn step_back() {
    rustix::process::setpriority_process(None, 19).expect("a lower priority");
}

/// Gives the stream a moment to be in full flow.
fn receive_some<T>(sender: &std::thread::ScopedJoinHandle<'_, T>) {
    std::thread::sleep(100 * MILLISECOND);
    assert!(!sender.is_finished());
}

fn receive_until_cut(mut stream: &TcpStream, seed: u64) {
    let (mut bytes, mut buffer) = (Bytes::new(seed), vec![0; 1 << 18]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.check(&buffer[..count]);
    }
}

#[test]
fn a_thousand_stalled_readers_cost_little_memory_and_no_latency() {
    let machine = Machine::alone();
    let (backend, stalled_backend) = (Backend::echo(), Acceptor::new());
    let setup = Setup::new().backend("a", backend.address);
    let balancer = machine.start(setup.service("bulk").backend("b", stalled_backend.address));
    let client = balancer.connect();
    let mut before = timed(500, || exchange(&client));
    let memory = balancer.process().resident();

    let address = balancer.address_of("bulk");
    let mut stalled: Vec<_> = (0..1000).map(|_| (small_reader(address), small_writer(&stalled_backend), 0)).collect();
    // Every backend sends what it can, until hardly anything moves. Not longer: the kernel's own retries would back off.
    let start = Instant::now();
    while stalled.iter_mut().map(|(_, at_backend, sent)| fill(at_backend, sent)).sum::<u64>() > 10 << 20 {
        assert!(start.elapsed() < Duration::from_secs(20), "they read nothing, and still it moves");
    }
    let mut during = timed(500, || exchange(&client));
    assert_undisturbed(&balancer, &mut before, &mut during);
    let each = balancer.process().resident().saturating_sub(memory) / 1000;
    assert!(each < 64 * 1024, "{each} resident bytes for each stalled reader");

    // They are only slow: who reads again gets everything.
    std::thread::scope(|scope| {
        for (reader, at_backend, sent) in stalled.iter().step_by(50) {
            scope.spawn(move || {
                at_backend.shutdown(Shutdown::Write).expect("finishing");
                reader.set_read_timeout(Some(Duration::from_secs(30))).expect("a read timeout");
                receive(reader, &mut Bytes::new(7), *sent);
            });
        }
    });
    drop(stalled);
    balancer.stop_after(client);
}

/// Its window takes a few of loopback's 64 KB segments: a thousand of them do not fill the kernel's memory.
fn small_reader(address: std::net::SocketAddr) -> TcpStream {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(128 * 1024).expect("SO_RCVBUF");
    socket.connect(&address.into()).expect("connecting");
    patient(socket.into())
}

fn small_writer(backend: &Acceptor) -> TcpStream {
    let stream = backend.accept();
    socket2::SockRef::from(&stream).set_send_buffer_size(64 * 1024).expect("SO_SNDBUF");
    stream
}

/// Writes until nothing more fits; how many bytes did.
fn fill(mut stream: &TcpStream, sent: &mut u64) -> u64 {
    stream.set_nonblocking(true).expect("O_NONBLOCK");
    let (mut bytes, before) = (Bytes::new(7), *sent);
    bytes.skip(*sent);
    loop {
        match stream.write(bytes.peek(1 << 16)) {
            Ok(count) => {
                bytes.skip(count as u64);
                *sent += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("filling a stalled session: {error}"),
        }
    }
    stream.set_nonblocking(false).expect("O_NONBLOCK");
    *sent - before
}
