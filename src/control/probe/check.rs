//! One attempt: connect, ask what the check asks, and name how it ended. Its timeout covers all of it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::http;
use crate::observe::counters::Probed;
use crate::sys::shortage;

/// How much of an answer is looked at, in bytes.
pub(super) const ENOUGH: usize = 4096;
/// How long a connection is kept after its result so that it ends in order.
const GOODBYE: Duration = Duration::from_millis(200);
/// How much of what still comes is read meanwhile, in reads of [`ENOUGH`].
const GOODBYE_READS: usize = 16;
/// How much of a wrong answer is shown, in bytes.
const SHOWN: usize = 40;

/// Whom to ask, what, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Where the probe connects to.
    pub address: SocketAddr,
    /// What it asks.
    pub check: Check,
    /// From the beginning of one probe to the beginning of the next.
    pub interval: Duration,
    /// How long the whole attempt may take.
    pub timeout: Duration,
}

/// What makes a backend well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// It accepts a connection, which is then closed in order.
    Tcp,
    /// It answers a GET, in plain HTTP/1.1, with a final status of the range.
    Http {
        /// The path, `/health`.
        path: String,
        /// The `Host` header; the address where there is none.
        host: Option<String>,
        /// The statuses that pass.
        status: RangeInclusive<u16>,
    },
    /// The first 4 KiB of what it says contain some bytes.
    Expect {
        /// What is sent first; nothing where it is empty.
        send: Vec<u8>,
        /// What its answer contains; any answer will do where it is empty.
        receive: Vec<u8>,
    },
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) result: Probed,
    pub(super) detail: String,
}

impl Verdict {
    pub(super) fn new(result: Probed, detail: impl Into<String>) -> Self {
        Self { result, detail: detail.into() }
    }
}

/// A connection whose result is known, and that is still to be closed without a reset.
#[derive(Debug)]
pub(super) struct Lingering {
    stream: TcpStream,
}

impl Lingering {
    /// Reads on to the end of the stream, for a short time. Closing a socket with unread bytes, or before a banner
    /// arrives, would send a reset (RFC 2525, 2.17), which many servers log.
    pub(super) async fn say(self) {
        let drained = async {
            let mut rest = [0; ENOUGH];
            for _ in 0..GOODBYE_READS {
                if !matches!(read(&self.stream, &mut rest).await, Ok(1..)) {
                    return;
                }
            }
        };
        // Whoever is slower than that gets the reset.
        let _ = timeout(GOODBYE, drained).await;
    }
}

/// Makes one attempt. Dropping it closes its socket.
pub(super) async fn run(target: &Target) -> (Verdict, Option<Lingering>) {
    let deadline = Instant::now() + target.timeout;
    let stream = match timeout_at(deadline, connect(target.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return (failed(&error, "connect"), None),
        Err(_) => return (Verdict::new(Probed::TimedOut, "connect timed out"), None),
    };
    let verdict = match &target.check {
        Check::Tcp => Verdict::new(Probed::Passed, "connected"),
        Check::Http { path, host, status } => {
            let request = http::request(path, host.as_deref(), target.address);
            http::ask(&stream, &request, status, deadline).await
        }
        Check::Expect { send, receive } => expect(&stream, send, receive, deadline).await,
    };
    let verdict = verdict.unless_timed_out(target.timeout);
    if matches!(verdict.result, Probed::TimedOut | Probed::Reset | Probed::Unreachable) {
        return (verdict, None);
    }
    // An HTTP server closes after its answer by itself, and some take a half-close for a client that has given up.
    if !matches!(target.check, Check::Http { .. }) {
        // It fails where the other side has reset meanwhile: then there is nothing to close.
        let _ = shutdown(&stream, Shutdown::Write);
    }
    (verdict, Some(Lingering { stream }))
}

impl Verdict {
    /// Gives a timeout without words its words.
    fn unless_timed_out(mut self, timeout: Duration) -> Self {
        if self.result == Probed::TimedOut && self.detail.is_empty() {
            self.detail = format!("no answer within {timeout:?}");
        }
        self
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A connect to a local port that nobody listens on may be given that very port as its own, and then TCP's
    // simultaneous open connects it to itself (RFC 9293, 3.5).
    if stream.local_addr()? == address {
        return Err(Errno::CONNREFUSED.into());
    }
    Ok(stream)
}

/// How reading an answer ended.
pub(super) enum Reading {
    Enough,
    /// The stream ended.
    Ended,
    /// As much as is read, and not what is waited for.
    Full,
    TimedOut,
    Failed(io::Error),
}

/// Sends `question`, then reads at most so many bytes, until `enough`, which is given each piece, says so.
pub(super) async fn ask(
    stream: &TcpStream,
    question: &[u8],
    most: usize,
    deadline: Instant,
    mut enough: impl FnMut(&[u8]) -> bool,
) -> Reading {
    let exchange = async {
        write(stream, question).await?;
        let (mut room, mut left) = ([0; ENOUGH], most);
        while left > 0 {
            let bytes = read(stream, &mut room[..left.min(ENOUGH)]).await?;
            if bytes == 0 {
                return Ok(Reading::Ended);
            }
            if enough(&room[..bytes]) {
                return Ok(Reading::Enough);
            }
            left -= bytes;
        }
        Ok(Reading::Full)
    };
    match timed(deadline, exchange).await {
        None => Reading::TimedOut,
        Some(Ok(reading)) => reading,
        Some(Err(error)) => Reading::Failed(error),
    }
}

/// On the heap, so that a `tcp` check's task does not carry the room for an answer.
async fn timed<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    timeout_at(deadline, Box::pin(future)).await.ok()
}

async fn expect(stream: &TcpStream, send: &[u8], receive: &[u8], deadline: Instant) -> Verdict {
    let mut answer: Vec<u8> = Vec::new();
    let reading = ask(stream, send, ENOUGH, deadline, |news| {
        let from = answer.len().saturating_sub(receive.len().saturating_sub(1));
        answer.extend_from_slice(news);
        receive.is_empty() || answer[from..].windows(receive.len()).any(|window| window == receive)
    })
    .await;
    match reading {
        Reading::Failed(error) => failed(&error, "connection"),
        Reading::Enough => Verdict::new(Probed::Passed, "answered as expected"),
        Reading::TimedOut if answer.is_empty() => Verdict::new(Probed::TimedOut, ""),
        Reading::Ended if answer.is_empty() => {
            Verdict::new(Probed::WrongBytes, "closed the connection without an answer")
        }
        Reading::Ended => {
            Verdict::new(Probed::WrongBytes, format!("answered {}, then closed the connection", shown(&answer)))
        }
        Reading::Full | Reading::TimedOut => Verdict::new(Probed::WrongBytes, format!("answered {}", shown(&answer))),
    }
}

/// An answer's beginning in quotes, fit for one line of a log.
pub(super) fn shown(answer: &[u8]) -> String {
    let cut = if answer.len() > SHOWN { "…" } else { "" };
    format!("\"{}\"{cut}", answer[..answer.len().min(SHOWN)].escape_ascii())
}

/// What an error of the system says of the backend, or of this machine.
pub(super) fn failed(error: &io::Error, what: &str) -> Verdict {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Verdict::new(Probed::Refused, format!("{what} refused")),
        Some(Errno::TIMEDOUT) => Verdict::new(Probed::TimedOut, format!("{what} timed out")),
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => {
            Verdict::new(Probed::Reset, format!("{what} reset"))
        }
        Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => Verdict::new(Probed::Unreachable, "host unreachable"),
        Some(Errno::NETUNREACH | Errno::NETDOWN) => Verdict::new(Probed::Unreachable, "network unreachable"),
        Some(local) if shortage::is_local(local) => {
            Verdict::new(Probed::LocalFault, format!("this machine could not probe: {error}"))
        }
        // Forbidden by a rule of this machine, an address family that the kernel lacks: no way leads there.
        _ => Verdict::new(Probed::Unreachable, format!("{what} failed: {error}")),
    }
}

/// Reads once, waiting for something to read; 0 is the end of the stream.
async fn read(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
