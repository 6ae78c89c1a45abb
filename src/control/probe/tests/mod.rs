//! The prober over real sockets: when it asks, whom, and that it lets go of what it held.

mod checks;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Check, Jitter, Outcome, Prober, Target};
use crate::observe::counters::Probed;

/// Longer than anything here takes on a machine that is busy with something else.
const AGES: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(10);

/// A server on a port of its own, with one thread a connection; it ends with its value.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve_at(address: SocketAddr, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind(address).unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let (stopped, handler) = (Arc::clone(&stop), Arc::new(handler));
    let thread = thread::spawn(move || {
        for stream in listener.incoming() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let handler = Arc::clone(&handler);
            thread::spawn(move || handler(stream.unwrap()));
        }
    });
    Server { address, stop, thread: Some(thread) }
}

fn serve(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), handler)
}

/// Reads a request of HTTP, then answers with some bytes and closes.
fn answer_http(mut stream: TcpStream, answer: &[u8]) {
    let (mut request, mut room) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut room) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => request.extend_from_slice(&room[..bytes]),
        }
    }
    // Whoever forgets a backend does not wait for its answer.
    let _ = stream.write_all(answer);
}

/// Reads what comes until the connection ends; answers how it ended.
fn read_out(mut stream: TcpStream) -> std::io::Result<usize> {
    let mut room = [0; 1024];
    loop {
        match stream.read(&mut room) {
            Ok(1..) => {}
            end => return end,
        }
    }
}

/// An address where connects are neither answered nor refused: the listener's queue is full.
fn swallowing() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
    }
    (listener, queued, address)
}

/// How many sockets of this machine are waiting for an answer to their connect from there (state `SYN_SENT`).
fn connecting_to(address: SocketAddr) -> usize {
    let there = format!("0100007F:{:04X} 02 ", address.port());
    std::fs::read_to_string("/proc/net/tcp").unwrap().lines().filter(|line| line.contains(&there)).count()
}

fn http() -> Check {
    Check::Http { path: "/health".to_owned(), host: None, status: 200..=399 }
}

fn target(address: SocketAddr, check: Check) -> Target {
    Target { address, check, interval: SOON, timeout: AGES }
}

async fn outcome(prober: &mut Prober) -> Outcome {
    tokio::time::timeout(AGES, prober.next()).await.expect("an outcome in time")
}

/// Awaits outcomes until one is as wished.
async fn until(prober: &mut Prober, wished: impl Fn(&Outcome) -> bool) -> Outcome {
    let search = async {
        loop {
            let outcome = prober.next().await;
            if wished(&outcome) {
                return outcome;
            }
        }
    };
    tokio::time::timeout(AGES, search).await.expect("such an outcome in time")
}

#[tokio::test]
async fn all_first_probes_go_out_at_once() {
    const ALL: usize = 50;
    // Nobody is answered before all have asked.
    let barrier = Barrier::new(ALL);
    let server = serve(move |stream| {
        barrier.wait();
        answer_http(stream, b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let mut prober = Prober::new();
    for id in 0..ALL as u64 {
        prober.watch(id, Target { interval: 10 * AGES, ..target(server.address, http()) });
    }
    let mut heard = Vec::new();
    for _ in 0..ALL {
        let outcome = outcome(&mut prober).await;
        assert_eq!(outcome.result, Probed::Passed, "{outcome:?}");
        heard.push(outcome.id);
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..ALL as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_target_is_never_asked_twice_at_once() {
    let (asking, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = {
        let (asking, most) = (Arc::clone(&asking), Arc::clone(&most));
        serve(move |stream| {
            most.fetch_max(asking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(3 * SOON);
            asking.fetch_sub(1, Ordering::SeqCst);
            answer_http(stream, b"HTTP/1.1 204 No Content\r\n\r\n");
        })
    };
    let mut prober = Prober::new();
    prober.watch(1, target(server.address, http()));
    for _ in 0..10 {
        let outcome = outcome(&mut prober).await;
        assert_eq!((outcome.result, outcome.detail.as_str()), (Probed::Passed, "status 204"));
        assert!(outcome.took >= 3 * SOON, "{outcome:?}");
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_more_than_the_bound_are_under_way_and_all_get_their_turn() {
    let (_listener, _queued, address) = swallowing();
    let mut prober = Prober { at_once: 4, ..Prober::new() };
    for id in 0..20 {
        prober.watch(id, Target { timeout: 3 * SOON, interval: AGES, ..target(address, Check::Tcp) });
    }
    let mut heard = Vec::new();
    while heard.len() < 20 {
        let outcome = outcome(&mut prober).await;
        assert_eq!(outcome.result, Probed::TimedOut);
        assert!(prober.jobs.len() <= 4 && connecting_to(address) <= 4);
        heard.push(outcome.id);
    }
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard.len(), 20);
}

#[tokio::test]
async fn a_swallowed_connect_ends_at_the_timeout_and_frees_its_descriptor() {
    let (_listener, _queued, address) = swallowing();
    let mut prober = Prober::new();
    prober.watch(7, Target { timeout: 10 * SOON, interval: 10 * AGES, ..target(address, Check::Tcp) });
    let outcome = outcome(&mut prober).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (Probed::TimedOut, "connect timed out"));
    assert!(outcome.took >= 10 * SOON, "{outcome:?}");
    assert_eq!(connecting_to(address), 0);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let address = serve(drop).address;
    let mut prober = Prober::new();
    prober.watch(1, target(address, Check::Tcp));
    for _ in 0..3 {
        let outcome = outcome(&mut prober).await;
        assert_eq!((outcome.result, outcome.detail.as_str()), (Probed::Refused, "connect refused"));
    }
    let server = serve_at(address, drop);
    until(&mut prober, |outcome| outcome.result == Probed::Passed).await;
    drop(server);
    until(&mut prober, |outcome| outcome.result == Probed::Refused).await;
    let _server = serve_at(address, drop);
    until(&mut prober, |outcome| outcome.result == Probed::Passed).await;
}

#[tokio::test]
async fn whom_it_forgets_is_heard_of_no_more_and_left_alone() {
    let (tell, ended) = mpsc::channel();
    let (silent, other) = (serve(move |stream| tell.send(read_out(stream)).unwrap()), serve(drop));
    let mut prober = Prober::new();
    prober.watch(1, target(silent.address, http()));
    prober.watch(2, target(other.address, Check::Tcp));
    prober.watch(3, target(other.address, Check::Tcp));
    until(&mut prober, |outcome| outcome.id == 3).await;
    prober.forget(1);
    prober.forget(3);
    assert_eq!(prober.watched.len(), 1);
    for _ in 0..20 {
        assert_eq!(outcome(&mut prober).await.id, 2);
    }
    // The attempt that was under way has let go of its connection.
    ended.recv_timeout(AGES).unwrap().unwrap();
    prober.forget(2);
    prober.forget(2);
    assert!(prober.due.is_empty());
}

#[tokio::test]
async fn a_changed_target_is_asked_anew_and_an_equal_one_is_not() {
    let (well, refusing) = (serve(drop), serve(drop).address);
    let mut prober = Prober::new();
    let slow = |address| Target { interval: 10 * AGES, ..target(address, Check::Tcp) };
    prober.watch(1, slow(well.address));
    assert_eq!(outcome(&mut prober).await.result, Probed::Passed);
    let due = prober.due.clone();
    prober.watch(1, slow(well.address));
    assert_eq!(prober.due, due);
    prober.watch(1, slow(refusing));
    assert_eq!(outcome(&mut prober).await.result, Probed::Refused);
}

#[test]
fn it_works_on_the_runtime_of_the_control_plane() {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap();
    let server = serve(|stream| answer_http(stream, b"HTTP/1.0 200 OK\r\n\r\n"));
    runtime.block_on(async {
        let mut prober = Prober::new();
        prober.watch(1, target(server.address, http()));
        for _ in 0..5 {
            assert_eq!(outcome(&mut prober).await.result, Probed::Passed);
        }
    });
}

#[test]
fn phases_spread_over_the_interval_and_intervals_by_a_tenth() {
    let (mut jitter, second) = (Jitter(1), Duration::from_secs(1));
    let mut tenths = [0; 10];
    for _ in 0..10_000 {
        tenths[jitter.part_of(second).as_millis() as usize / 100] += 1;
        let about = jitter.about(second).as_millis();
        assert!((900..=1100).contains(&about), "{about}");
    }
    // Five standard deviations of a binomial distribution with p = 0.1.
    assert!(tenths.iter().all(|count| (850..=1150).contains(count)), "{tenths:?}");
}
