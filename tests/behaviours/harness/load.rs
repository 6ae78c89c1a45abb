//! Clients that go on while something happens to the program, and must not notice it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use super::stream::{Bytes, receive_to_end, seed, send_in};
use super::{End, PATIENCE, patient, wait_until};

/// Short connections, one after the other, and long streams, all to echoing backends.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    since: Instant,
    clients: Vec<JoinHandle<Result<(), String>>>,
    streams: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many threads of each.
    pub(crate) fn start(address: SocketAddr, clients: usize, streams: usize) -> Self {
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            spawn(move || {
                while !over.load(SeqCst) {
                    short(address).map_err(|error| format!("after {}: {error}", served.load(SeqCst)))?;
                    served.fetch_add(1, SeqCst);
                }
                Ok(())
            })
        };
        let stream = |_| {
            let over = Arc::clone(&over);
            spawn(move || long(address, &over))
        };
        let (clients, streams) = ((0..clients).map(client).collect(), (0..streams).map(stream).collect());
        Self { over, served, since: Instant::now(), clients, streams }
    }

    /// Short connections served so far.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(SeqCst)
    }

    /// Waits until so many more have been served.
    #[track_caller]
    pub(crate) fn go_on(&self, more: u64) {
        let before = self.served();
        wait_until("clients are served", PATIENCE, || self.served() >= before + more || self.has_failed());
        assert!(!self.has_failed(), "a client has failed");
    }

    fn has_failed(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished) || self.streams.iter().any(JoinHandle::is_finished)
    }

    /// Lets all of them finish. Fails if one of them did; else how many short connections were served.
    #[track_caller]
    pub(crate) fn stop(self) -> u64 {
        self.over.store(true, SeqCst);
        let (served, time) = (self.served(), self.since.elapsed());
        eprintln!("{served} short connections in {time:?}: {:.0} a second", served as f64 / time.as_secs_f64());
        let failed: Vec<_> =
            self.clients.into_iter().filter_map(|client| client.join().expect("a client").err()).collect();
        assert!(failed.is_empty(), "{} clients have failed: {failed:?}", failed.len());
        self.streams.into_iter().for_each(|stream| stream.join().expect("a stream that lasts"));
        self.served.load(SeqCst)
    }
}

/// A client that says a word, hears it, and leaves.
fn short(address: SocketAddr) -> Result<(), String> {
    let failed = |doing| move |error| format!("{doing}: {error}");
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed("connecting"))?;
    client.set_read_timeout(Some(PATIENCE)).map_err(failed("preparing"))?;
    client.write_all(b"a word").map_err(failed("speaking"))?;
    let mut heard = [0; 6];
    client.read_exact(&mut heard).map_err(failed("hearing"))?;
    if &heard == b"a word" { Ok(()) } else { Err(format!("heard {heard:?}")) }
}

/// A stream that stops only in the end; every byte must come back.
fn long(address: SocketAddr, over: &AtomicBool) {
    let (seed, stream) = (seed(), patient(TcpStream::connect_timeout(&address, PATIENCE).expect("a stream begins")));
    std::thread::scope(|scope| {
        let hearing = scope.spawn(|| receive_to_end(&stream, seed));
        let mut bytes = Bytes::new(seed);
        while !over.load(SeqCst) {
            send_in(&stream, &mut bytes, 64 << 10, 32 << 10).expect("a stream goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        stream.shutdown(Shutdown::Write).expect("finishing");
        assert_eq!(hearing.join().expect("hearing"), (bytes.position(), End::Clean));
    });
}
