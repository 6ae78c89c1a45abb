//! The composition root: starts the rooms in order, waits, and takes them down again.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use thiserror::Error;

use crate::admin::{self, ConfigFile, Listening, View};
use crate::config::{self, AccessLog, Config, Listen, Probe};
use crate::control::probe::Prober;
use crate::control::{self, Control, Fleet, Signals};
use crate::forward::{self, PIPES, Share, Worker};
use crate::link::{self, Command, Commander, Listener, Report};
use crate::observe::access_log;
use crate::observe::counters::PerWorker;
use crate::sys::features::{self, Features};
use crate::sys::{process, ring, socket};
use crate::table::Places;

/// Descriptors that are not sessions': standard streams, the logs, the control plane, and clients of the admin socket.
const RESERVE: u64 = 128;
/// The same for the admin side's TCP listener and its clients.
const RESERVE_HTTP: u64 = 72;
/// Descriptors of each worker beside its listeners: the ring and its wake-up.
const RESERVE_PER_WORKER: u64 = 4;

/// What is to run.
#[derive(Debug)]
pub struct Program {
    /// Services, limits, workers.
    pub config: Config,
    /// Where it came from.
    pub source: ConfigFile,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Log each new session.
    pub narrate: bool,
}

/// Why the program could not start, or ended.
#[derive(Debug, Error)]
pub enum Failure {
    /// The list of features to do without is wrong.
    #[error(transparent)]
    Features(#[from] features::UnknownFeature),
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] ring::Refused),
    /// The limit of sessions is more than the descriptors allow.
    #[error(
        "max_connections: {wanted} sessions need more descriptors than the limit of {descriptors} allows: it carries {carried} \
         (two each, {reserve} are held back); lower max_connections or raise the limit (LimitNOFILE= in the unit, ulimit -n)"
    )]
    TooMany {
        /// What the configuration asks for.
        wanted: u64,
        /// The process's limit.
        descriptors: u64,
        /// Sessions that it carries.
        carried: u64,
        /// Descriptors for everything else.
        reserve: u64,
    },
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] access_log::OpenError),
    /// A listener.
    #[error("service {service}: cannot listen on {address}: {error}{hint}")]
    Listen {
        /// Whose listener.
        service: Arc<str>,
        /// Where.
        address: String,
        /// What the system said.
        error: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A worker did not start.
    #[error("worker {0} cannot start: {1}")]
    Start(usize, forward::Fault),
    /// A thread or a descriptor that the start needs cannot be had.
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] control::Failure),
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::System(doing, error)
}

/// Runs the program until it is told to stop.
///
/// # Errors
/// [`Failure`]: what went wrong and what to do about it.
pub fn run(program: Program) -> Result<(), Failure> {
    let Program { config, source, admin_socket, narrate } = program;
    // The control plane's loop; tokio_uring::start would panic where the kernel refuses the ring. From here on a signal is heard.
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(ring::Refused::new)?;
    let signals = runtime.block_on(async { Signals::install() }).map_err(system("receive signals"))?;
    let features = Features::probe(std::env::var(features::DISABLE).unwrap_or_default().parse()?)?;
    log::info!("kernel features {features}");
    let cores = process::cores();
    let workers = config.workers.map_or(cores.len(), |workers| workers.get() as usize);
    let descriptors = process::raise_descriptor_limit();
    let sessions = Arc::new(Places::new(Some(session_limit(&config, workers, descriptors)?)));
    let fleet = Fleet::new(&config, workers);
    let table = Arc::clone(fleet.table());
    let counters = Arc::new(PerWorker::new(workers));

    // Dropped last: what the workers have recorded is written before the process ends.
    let (access_log, _writer) = match &config.access_log {
        AccessLog::Off => None,
        AccessLog::Stderr => Some(access_log::Target::Stderr),
        AccessLog::File(path) => Some(access_log::Target::File(path.clone())),
    }
    .map(access_log::open)
    .transpose()?
    .unzip();

    let view = Arc::new(View {
        table: Arc::clone(&table),
        started: Timestamp::now(),
        workers,
        config: source,
        sessions: Arc::clone(&sessions),
        counters: Arc::clone(&counters),
        listening: ArcSwap::default(),
        pipes_max: (PIPES / workers).max(1) as u64 * workers as u64,
        descriptors_max: descriptors,
        access_log: access_log.clone(),
    });
    let http = config.admin.http.map(admin::bind_http).transpose()?;
    if let Some(address) = http.as_ref().and_then(|http| http.local_addr().ok()) {
        log::info!("status and metrics on http://{address}, read-only");
    }
    let _admin = admin::Server::bind(&admin_socket)?
        .with_http(http)
        .serve(Arc::clone(&view))
        .map_err(system("start the admin interface"))?;
    // Everything is bound before anybody serves: a part of the listeners is worse than none.
    let bound = bind(&config, workers)?;

    let (reports, received) = link::reports();
    let (commanders, mailboxes): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| link::mailbox().map_err(io::Error::from).map_err(system("make a worker's mailbox")))
        .collect::<Result<Vec<_>, Failure>>()?
        .into_iter()
        .unzip();
    let bells = commanders.iter().map(Commander::bell).collect::<Arc<[_]>>();
    let share = |worker, mailbox| Share {
        worker,
        workers,
        features,
        table: Arc::clone(&table),
        process: Arc::clone(&sessions),
        counters: Arc::clone(&counters),
        mailbox,
        reports: reports.clone(),
        bells: Arc::clone(&bells),
        access_log: access_log.clone(),
        narrate,
    };
    // A worker for each core keeps to it. Fewer are left to the scheduler, which puts them where their peers' bytes are in cache: with
    // one worker on two cores the median round trip was 60 µs so, and 75 µs pinned.
    let pinned = workers == cores.len();
    for (worker, mailbox) in mailboxes.into_iter().enumerate() {
        start(share(worker, mailbox), pinned.then(|| cores[worker]))?;
    }
    drop(reports);

    view.listening.store(Arc::new(bound.addresses));
    hand_out(bound.listeners, &commanders)?;
    for service in &config.services {
        let addresses = view.listening.load().get(&service.name).map(|list| list.join(", ")).unwrap_or_default();
        log::info!("{}: serving on {addresses} with {} backends", service.name, service.backends.len());
    }
    log::info!("ready: {workers} workers, at most {} sessions", sessions.limit().unwrap_or(u32::MAX));

    let outcome = runtime.block_on(
        Control {
            signals,
            fleet,
            access_log: access_log.clone(),
            commanders,
            reports: received,
            drain: config.drain,
            sessions,
        }
        .run(),
    );
    unlink(&config);
    Ok(outcome?)
}

/// Sessions that the process may carry: what the configuration says, if the descriptors allow it; else what they allow.
fn session_limit(config: &Config, workers: usize, descriptors: u64) -> Result<std::num::NonZeroU32, Failure> {
    let listeners = config.services.iter().map(|service| service.listen.len() as u64).sum::<u64>();
    let http = config.admin.http.map_or(0, |_| RESERVE_HTTP);
    let probed = |service: &&config::Service| service.health.probe != Probe::None;
    let backends = |service: &config::Service| service.backends.len() + service.backups.len();
    let probes = config.services.iter().filter(probed).map(backends).sum::<usize>().min(Prober::AT_ONCE) as u64;
    let reserve = RESERVE + http + probes + workers as u64 * (RESERVE_PER_WORKER + listeners) + 2 * PIPES as u64;
    let carried = descriptors.saturating_sub(reserve) / 2;
    let wanted = config.max_connections.map_or_else(|| carried.max(1), |limit| u64::from(limit.get()));
    match std::num::NonZeroU32::new(u32::try_from(wanted).unwrap_or(u32::MAX)) {
        Some(limit) if wanted <= carried => Ok(limit),
        _ => Err(Failure::TooMany { wanted, descriptors, carried, reserve }),
    }
}

/// Every listener of a configuration, bound.
struct Bound {
    /// For each listening address, one listener a worker.
    listeners: Vec<Vec<Listener>>,
    addresses: Listening,
}

fn bind(config: &Config, workers: usize) -> Result<Bound, Failure> {
    let mut bound = Bound { listeners: Vec::new(), addresses: Listening::default() };
    for (index, service) in config.services.iter().enumerate() {
        let addresses = bound.addresses.entry(Arc::clone(&service.name)).or_default();
        for listen in &service.listen {
            let outcome = match listen {
                Listen::Tcp(address) => socket::listen_tcp(*address, workers),
                Listen::Unix(path) => socket::listen_unix(path, workers),
            };
            let sockets = outcome.map_err(|error| Failure::Listen {
                service: Arc::clone(&service.name),
                address: listen.to_string(),
                hint: hint(&error),
                error,
            })?;
            use std::os::fd::AsFd;
            addresses.push(match listen {
                Listen::Tcp(address) => sockets
                    .first()
                    .and_then(|socket| socket::local_address(socket.as_fd()))
                    .unwrap_or(*address)
                    .to_string(),
                Listen::Unix(_) => listen.to_string(),
            });
            bound.listeners.push(sockets.into_iter().map(|socket| Listener { socket, service: index }).collect());
        }
    }
    Ok(bound)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; somebody listens there, another process or another service of this one: find it with 'ss -ltnp', stop it or choose another address"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, and a Unix socket's directory must be writable"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address: see 'ip address'",
        io::ErrorKind::AlreadyExists => "; remove it, or choose another path",
        _ => "",
    }
}

fn hand_out(listeners: Vec<Vec<Listener>>, commanders: &[Commander]) -> Result<(), Failure> {
    let mut shares: Vec<Vec<Listener>> = commanders.iter().map(|_| Vec::new()).collect();
    for sockets in listeners {
        sockets.into_iter().zip(&mut shares).for_each(|(listener, share)| share.push(listener));
    }
    commanders.iter().zip(shares).try_for_each(|(commander, share)| {
        commander
            .tell(Command::Adopt(share))
            .map_err(|error| Failure::System("hand the listeners to the workers", io::Error::other(error)))
    })
}

/// Starts a worker's thread and waits until it has its ring. However the thread ends, the control plane hears of it.
fn start(share: Share, core: Option<usize>) -> Result<(), Failure> {
    let (worker, reports) = (share.worker, share.reports.clone());
    let (ready, started) = mpsc::sync_channel(1);
    let body = move || {
        if let Some(core) = core
            && let Err(error) = process::pin_to(core)
        {
            log::warn!("worker {worker} cannot be kept on core {core}: {error}");
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| match Worker::new(share) {
            Ok(worker) => {
                let _ = ready.send(Ok(()));
                worker.run().map_err(|fault| fault.to_string())
            }
            Err(fault) => {
                let _ = ready.send(Err(fault));
                Ok(())
            }
        }));
        let outcome =
            outcome.unwrap_or_else(|_| Err("a bug (panic): see the line above, and please report it".to_owned()));
        let _ = reports.blocking_send(Report::Ended { worker, outcome });
    };
    thread::Builder::new().name(format!("worker-{worker}")).spawn(body).map_err(system("start a worker's thread"))?;
    match started.recv() {
        Ok(outcome) => outcome.map_err(|fault| Failure::Start(worker, fault)),
        Err(error) => Err(Failure::System("start a worker", io::Error::other(error))),
    }
}

/// Removes the Unix sockets that were listened on.
fn unlink(config: &Config) {
    for path in config.services.iter().flat_map(|service| &service.listen) {
        if let Listen::Unix(path) = path {
            let _ = fs::remove_file(path);
        }
    }
}
