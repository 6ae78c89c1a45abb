//! Backends that live in the test: echoing, named, accepting by hand, refusing, blackhole.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::{PATIENCE, patient};

/// A backend with a thread for each connection.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    total: AtomicU64,
    peak: AtomicU64,
    open: Mutex<Vec<Arc<TcpStream>>>,
}

impl Counts {
    fn open(&self) -> MutexGuard<'_, Vec<Arc<TcpStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, stream: &Arc<TcpStream>) {
        self.total.fetch_add(1, SeqCst);
        let mut open = self.open();
        open.push(Arc::clone(stream));
        // One that the balancer has ended, and whose thread does not know it yet, holds no place any more.
        let mut entries: Vec<_> = open.iter().map(|stream| PollFd::new(stream, PollFlags::RDHUP)).collect();
        let ended = poll(&mut entries, Some(&Timespec::default())).expect("poll");
        self.peak.fetch_max((entries.len() - ended) as u64, SeqCst);
    }

    fn remove(&self, stream: &Arc<TcpStream>) {
        self.open().retain(|open| !Arc::ptr_eq(open, stream));
    }
}

impl Backend {
    /// Runs `session` for each connection of a listener.
    pub(crate) fn on(listener: TcpListener, session: impl Fn(&TcpStream) + Send + Sync + 'static) -> Self {
        let (address, counts) = (listener.local_addr().expect("an address"), Arc::new(Counts::default()));
        let (session, counting) = (Arc::new(session), Arc::clone(&counts));
        let acceptor = accept_each(&listener, move |stream| {
            let (stream, session, counting) = (Arc::new(stream), Arc::clone(&session), Arc::clone(&counting));
            counting.add(&stream);
            std::thread::spawn(move || {
                session(&stream);
                counting.remove(&stream);
            });
            true
        });
        Self { address, listener, acceptor: Some(acceptor), counts }
    }

    /// Runs `session` for each connection to a port of its own.
    pub(crate) fn new(session: impl Fn(&TcpStream) + Send + Sync + 'static) -> Self {
        Self::on(listen(), session)
    }

    /// Sends back all that it receives.
    pub(crate) fn echo() -> Self {
        Self::new(echo)
    }

    /// Says its name and a line feed, then echoes.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::named_on(listen(), name)
    }

    /// The same on a given listener.
    pub(crate) fn named_on(listener: TcpListener, name: &'static str) -> Self {
        Self::on(listener, move |mut stream| {
            if stream.write_all(format!("{name}\n").as_bytes()).is_ok() {
                echo(stream);
            }
        })
    }

    /// Connections accepted so far.
    pub(crate) fn total(&self) -> u64 {
        self.counts.total.load(SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.counts.open().len()
    }

    /// The most connections that were open at once.
    pub(crate) fn peak(&self) -> u64 {
        self.counts.peak.load(SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

/// Echoes until the other side has finished, then finishes too.
pub(crate) fn echo(mut stream: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    // An idle session of a test is not a failure of the backend.
    let _ = stream.set_read_timeout(None);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// A backend whose connections the test handles itself.
pub(crate) struct Acceptor {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
    accepted: Receiver<TcpStream>,
}

impl Acceptor {
    /// On a port of its own.
    pub(crate) fn new() -> Self {
        Self::on(listen())
    }

    /// On a given listener.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let (sender, accepted) = channel();
        let acceptor = accept_each(&listener, move |stream| sender.send(stream).is_ok());
        Self { address: listener.local_addr().expect("an address"), listener, acceptor: Some(acceptor), accepted }
    }

    /// The next connection, which must come.
    #[track_caller]
    pub(crate) fn accept(&self) -> TcpStream {
        self.accept_within(PATIENCE).expect("a connection from the balancer")
    }

    /// The next connection, if one comes in time.
    pub(crate) fn accept_within(&self, time: Duration) -> Option<TcpStream> {
        self.accepted.recv_timeout(time).ok()
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

/// A port that is taken but that nobody listens on: it refuses, until something listens there.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _held: Socket,
}

impl Port {
    /// A free port of 127.0.0.1.
    pub(crate) fn refusing() -> Self {
        let held = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = held.local_addr().expect("an address").as_socket().expect("an IP address");
        Self { address, _held: held }
    }

    /// Begins to listen on it; it refuses again once the listener is gone.
    pub(crate) fn listen(&self) -> TcpListener {
        let socket = bound(self.address);
        socket.listen(4096).expect("listening");
        socket.into()
    }
}

/// A backend that swallows connects, as one behind a dropping firewall does: its queue is full and nothing accepts.
pub(crate) struct Blackhole {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    fillers: Vec<TcpStream>,
}

impl Blackhole {
    /// On a port of its own.
    pub(crate) fn new() -> Self {
        let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        socket.listen(0).expect("listening");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("an address");
        let mut fillers = Vec::new();
        let start = Instant::now();
        while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(150)) {
            fillers.push(filler);
            assert!(start.elapsed() < PATIENCE, "a queue of no length never fills");
        }
        Self { address, listener, fillers }
    }

    /// Begins to accept: connects that were swallowed are heard when they are sent again.
    pub(crate) fn wake(self) -> Acceptor {
        SockRef::from(&self.listener).listen(4096).expect("listening");
        let acceptor = Acceptor::on(self.listener);
        for _ in &self.fillers {
            let filler = acceptor.accept();
            let own = filler.peer_addr().expect("an address");
            assert!(self.fillers.iter().any(|f| f.local_addr().ok() == Some(own)), "not only fillers in the queue");
        }
        acceptor
    }
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).expect("binding a backend's port");
    socket
}

fn listen() -> TcpListener {
    let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    socket.listen(4096).expect("listening");
    socket.into()
}

/// Hands each connection to `take` until it says no, or the listener is shut down.
fn accept_each(listener: &TcpListener, take: impl Fn(TcpStream) -> bool + Send + 'static) -> JoinHandle<()> {
    let listener = listener.try_clone().expect("a second descriptor");
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if !take(patient(stream)) {
                break;
            }
        }
    })
}
