//! `balancer demo`: two sample HTTP servers and a balancer in front of them, all in this process.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{log, serve};
use crate::admin::{self, ConfigFile};
use crate::app::Program;
use crate::config::{self, Admin, Backend, Balance, Config, Listen, Weight};

/// Where the demo's clients arrive.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The sample servers.
const NAMES: [&str; 2] = ["web-01", "web-02"];

/// Try it: two sample servers and a balancer on 127.0.0.1:8080, no file and no privilege needed
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Exits 0 after Ctrl-C.
pub(super) fn run(_: &Arguments) -> ExitCode {
    log::init();
    match NAMES.iter().map(|name| start_server(name).map(|address| (*name, address))).collect::<Result<Vec<_>, _>>() {
        Ok(backends) => {
            let admin_socket = admin::user_socket();
            introduce(&backends, &admin_socket);
            serve(Program {
                config: config(&backends),
                source: ConfigFile::new(None, String::new()),
                admin_socket,
                narrate: true,
            })
        }
        Err(error) => {
            eprintln!("error: cannot start a sample server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn introduce(backends: &[(&str, SocketAddr)], admin_socket: &std::path::Path) {
    println!("balancer demo: round robin over {} sample servers in this process", backends.len());
    for (name, address) in backends {
        println!("  {name}  http://{address}");
    }
    println!("\nTry, in another terminal:");
    println!("  curl {LISTEN}                     # again and again: the servers take turns");
    println!("  for i in 1 2 3 4; do curl -s {LISTEN}; done");
    println!("  balancer status --socket {}", admin_socket.display());
    println!("\nEach new session is a line below. Ctrl-C ends it.\n");
}

fn config(backends: &[(&str, SocketAddr)]) -> Config {
    let backend = |&(name, address): &(&str, SocketAddr)| Backend {
        name: name.into(),
        address,
        weight: Weight::ONE,
        max_connections: None,
        probe_address: None,
    };
    Config {
        workers: None,
        drain: Duration::from_secs(2),
        max_connections: None,
        admin: Admin::default(),
        access_log: config::AccessLog::Off,
        services: vec![config::Service {
            name: Arc::from("web"),
            listen: vec![Listen::Tcp(LISTEN)],
            balance: Balance::RoundRobin,
            backends: backends.iter().map(backend).collect(),
            backups: Vec::new(),
            health: config::Health::default(),
            connect: config::Connect::default(),
            timeouts: config::Timeouts::default(),
            max_connections: None,
            queue: config::Queue::default(),
        }],
    }
}

/// Starts one sample server on a free port, on a thread of its own.
fn start_server(name: &'static str) -> std::io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(answer(listener, name)))?;
    Ok(address)
}

/// Answers every request with the server's name.
async fn answer(listener: TcpListener, name: &'static str) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor left: others are served first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        tokio::spawn(async move {
            let service = service_fn(move |_| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{name}\n")))))
            });
            // A client that breaks off concerns nobody else.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
