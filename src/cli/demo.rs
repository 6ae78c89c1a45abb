//! `balancer demo`: two sample HTTP servers and a balancer in front of them, all in this process.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{failed, log, serve};
use crate::admin;
use crate::app::Program;
use crate::config::{self, AccessLog, Admin, Backend, Balance, Config, Health, Listen, Weight};
use crate::observe::running::ConfigFile;
use crate::observe::writer_thread::{PATIENCE, WriterThread};

/// Where the demo's clients arrive.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where the status page is, if the port is free.
const PAGE_PORT: u16 = 9900;
/// The sample servers; the last one is the backup.
const NAMES: [&str; 3] = ["web-01", "web-02", "web-03"];
/// How long a sample server that was asked to stop refuses connections.
const PAUSE: Duration = Duration::from_secs(20);

/// Try it: two sample servers, a backup and a balancer on 127.0.0.1:8080, no file and no privilege needed
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Exits 0 after Ctrl-C.
pub(super) fn run(_: &Arguments) -> ExitCode {
    let _log = match log::start() {
        Ok(log) => log,
        Err(code) => return code,
    };
    // There is nothing to choose in a demo: before anything is said to try, its address must be free.
    if let Err(error) = std::net::TcpListener::bind(LISTEN) {
        return failed(&format!(
            "the demo's clients arrive at {LISTEN}, and {error}; 'ss -tanp' shows who has the port"
        ));
    }
    match NAMES.iter().map(|name| start_server(name).map(|address| (*name, address))).collect::<Result<Vec<_>, _>>() {
        Ok(backends) => {
            let admin_socket = admin::user_socket();
            let page = free_address();
            introduce(&backends, &admin_socket, page);
            serve(Program {
                config: config(&backends, page),
                source: ConfigFile::new(None, None),
                admin_socket: Some(admin_socket),
                announce_sessions: true,
            })
        }
        Err(error) => failed(&format!("cannot start a sample server: {error}")),
    }
}

/// Where the status page may be: its usual port if nobody has that, else a free one.
fn free_address() -> Option<SocketAddr> {
    let bind = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    [PAGE_PORT, 0].into_iter().find_map(|port| bind(port).ok()?.local_addr().ok())
}

/// Says what there is to try. Who has closed standard output, or does not read it, still has the demo.
fn introduce(servers: &[(&'static str, SocketAddr)], admin_socket: &Path, page: Option<SocketAddr>) {
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = introduction(&mut text, servers, admin_socket, page);
    if let Ok(thread) = WriterThread::start("introduction", move || drop(io::stdout().write_all(&text))) {
        // Mostly it is above the first line of the log.
        thread.end("what there is to try", PATIENCE);
    }
}

fn introduction(
    out: &mut impl Write,
    servers: &[(&str, SocketAddr)],
    admin_socket: &Path,
    page: Option<SocketAddr>,
) -> io::Result<()> {
    writeln!(out, "balancer demo: round robin over two sample servers in this process, and a backup")?;
    for (name, address) in servers {
        writeln!(out, "  {name}  http://{address}")?;
    }
    let first = servers.first().map_or(LISTEN, |(_, address)| *address);
    // As it was called: a fresh clone has it in no directory of the search path.
    let program = std::env::args_os().next().unwrap_or_else(|| "balancer".into());
    writeln!(out, "\nTry, in another terminal:")?;
    writeln!(out, "  curl {LISTEN}                     # again and again: the servers take turns")?;
    writeln!(out, "  for i in 1 2 3 4; do curl -s {LISTEN}; done")?;
    let pause = PAUSE.as_secs();
    writeln!(out, "  curl {first}/stop               # stops web-01 for {pause} s: it is evicted, and comes back")?;
    writeln!(out, "  {} status --socket {}", program.display(), admin_socket.display())?;
    if let Some(page) = page {
        writeln!(out, "  http://{page}/           # in a browser: all of it, live")?;
    }
    writeln!(out, "\nStop web-02 the same way, and the backup web-03 answers.")?;
    writeln!(out, "Each new session and each change of a server's state is a line below. Ctrl-C ends it.\n")
}

fn config(servers: &[(&str, SocketAddr)], http: Option<SocketAddr>) -> Config {
    let backend = |&(name, address): &(&str, SocketAddr)| Backend {
        name: name.into(),
        address,
        weight: Weight::ONE,
        max_connections: None,
        probe_address: None,
    };
    let (backups, backends): (Vec<_>, Vec<_>) =
        servers.iter().map(backend).partition(|backend| &*backend.name == NAMES[2]);
    Config {
        workers: None,
        drain: Duration::from_secs(2),
        max_connections: None,
        admin: Admin { http, ..Admin::default() },
        state: None,
        access_log: AccessLog::Off,
        reload: config::Reload::default(),
        services: vec![config::Service {
            name: Arc::from("web"),
            listen: vec![Listen::Tcp(LISTEN)],
            freebind: false,
            balance: Balance::RoundRobin,
            backends,
            backups,
            health: Health {
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(500),
                fall: 2,
                ..Health::default()
            },
            connect: config::Connect::default(),
            timeouts: config::Timeouts::default(),
            max_connections: None,
            queue: config::Queue::default(),
        }],
    }
}

/// Starts one sample server on a free port, on a thread of its own.
fn start_server(name: &'static str) -> io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(answer(listener, name)))?;
    Ok(address)
}

/// Answers every request with the server's name; asked for `/stop`, it refuses connections for a while.
async fn answer(mut listener: TcpListener, name: &'static str) {
    let stop = Arc::new(Notify::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, name, Arc::clone(&stop)))),
                // No descriptor left: others are served first.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            () = stop.notified() => listener = pause(listener).await,
        }
    }
}

/// Stops listening for a while, then begins anew on the same port.
async fn pause(listener: TcpListener) -> TcpListener {
    // Its port is known, or it would not have been announced.
    let Ok(address) = listener.local_addr() else { return listener };
    drop(listener);
    sleep(PAUSE).await;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            // Somebody else has taken the port meanwhile.
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn converse(stream: TcpStream, name: &'static str, stop: Arc<Notify>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let text = if request.uri().path() == "/stop" {
            stop.notify_one();
            format!("{name} stops for {} s\n", PAUSE.as_secs())
        } else {
            format!("{name}\n")
        };
        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
    });
    // A client that breaks off concerns nobody else.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
