//! The composition root: starts the rooms in order, waits, and takes them down again.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use jiff::Timestamp;
use thiserror::Error;

use crate::admin::{self, View};
use crate::config::{self, AdminSocket, Config};
use crate::control::{
    self, Capacity, Control, Fleet, HandedOver, Invocation, Listeners, Parts, Predecessor, Signals, TooMany,
};
use crate::forward::{self, Share, Worker, most_pipes};
use crate::messages::{self, Commander, Listener, WorkerEvent};
use crate::observe::access_log;
use crate::observe::counters::PerWorker;
use crate::observe::running::{ConfigFile, Running};
use crate::observe::timeline::Timeline;
use crate::sys::features::{self, Features};
use crate::sys::unix::SocketFile;
use crate::sys::{process, ring, shortage};
use crate::table::Permits;

/// What is to run.
#[derive(Debug)]
pub struct Program {
    /// Services, limits, workers.
    pub config: Config,
    /// Where it came from.
    pub source: ConfigFile,
    /// The admin socket; `None`: there is none.
    pub admin_socket: Option<PathBuf>,
    /// Log each new session.
    pub announce_sessions: bool,
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
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] access_log::OpenError),
    /// A worker did not start.
    #[error("worker {0} cannot start: {1}")]
    Start(usize, forward::Fault),
    /// A thread or a descriptor that the start needs cannot be had.
    #[error("cannot {0}: {1}; {remedy}", remedy = shortage::remedy_at_start(.1))]
    System(&'static str, io::Error),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] control::Failure),
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::System(doing, error)
}

/// Runs the program until it is told to stop. Where another process has started it to take over from it, that one serves until
/// this one can.
///
/// # Errors
/// [`Failure`]: what went wrong and what to do about it.
pub fn run(program: Program) -> Result<(), Failure> {
    let (predecessor, handed_over) =
        match Predecessor::find().map_err(system("take over from the process that runs"))? {
            Some((predecessor, handed_over)) => (Some(predecessor), handed_over),
            None => {
                let passed = process::passed_descriptors().into_iter().map(|socket| Arc::new(Listener::new(socket)));
                (None, HandedOver { passed: passed.collect(), ..HandedOver::default() })
            }
        };
    let outcome = serve(program, predecessor.as_ref(), handed_over);
    if let (Some(predecessor), Err(failure)) = (&predecessor, &outcome) {
        predecessor.fail(&failure.to_string());
    }
    outcome
}

fn serve(program: Program, predecessor: Option<&Predecessor>, handed_over: HandedOver) -> Result<(), Failure> {
    let Program { config, source, admin_socket, announce_sessions } = program;
    let invocation = Invocation::current().map_err(system("find out where this program is"))?;
    // The control plane's loop; tokio_uring::start would panic where the kernel refuses the ring. From here on a signal is heard.
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(ring::Refused::new)?;
    let signals = runtime.block_on(async { Signals::install() }).map_err(system("receive signals"))?;
    let features = Features::probe(std::env::var(features::DISABLE).unwrap_or_default().parse()?)?;
    log::info!("kernel features {features}");
    let cores = process::cores();
    let workers = config.workers.map_or(cores.len(), |workers| workers.get() as usize);
    let descriptors = process::raise_descriptor_limit();
    let capacity = Capacity { descriptors, workers, pipes: most_pipes(workers) };
    let sessions = Arc::new(Permits::new(Some(capacity.sessions(&config)?)));
    let timeline = Arc::new(Timeline::default());
    let fleet = Fleet::new(&config, workers, Arc::clone(&timeline));
    let table = Arc::clone(fleet.table());
    let counters = Arc::new(PerWorker::new(workers));

    let (handle, writer) = control::open_access_log(&config.access_log)?;
    let access_log = Arc::new(access_log::Log::new(handle));
    let running = Arc::new(Running::new(source));
    let view = Arc::new(View {
        table: Arc::clone(&table),
        started: Timestamp::now(),
        workers,
        running: Arc::clone(&running),
        disk: admin::Disk::default(),
        sessions: Arc::clone(&sessions),
        counters: Arc::clone(&counters),
        pipes_max: capacity.pipes as u64,
        descriptors_max: descriptors,
        access_log: Arc::clone(&access_log),
        timeline: Arc::clone(&timeline),
    });
    let HandedOver { listeners: inherited, passed, admin: admin_socket_left, http: http_left } = handed_over;
    control::await_addresses(&config);
    let listeners = Listeners::new(workers, inherited, passed).map_err(system("take over the listeners"))?;
    let (requests, received_requests) = messages::admin_requests();
    let location = admin::Location { socket: admin_socket, ..location(&config.admin) };
    let admin_socket_left = admin_socket_left.map(|(path, socket)| (SocketFile::left(&path), socket));
    let left = admin::Sockets { admin: admin_socket_left, http: http_left };
    let mut endpoints = admin::Endpoints::new(location, left, view, requests)?;
    let has_admin = endpoints.is_inherited();
    if predecessor.is_none() {
        endpoints.begin();
    }

    let (events, received_events) = messages::worker_events();
    let (commanders, mailboxes): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| messages::mailbox().map_err(io::Error::from).map_err(system("make a worker's mailbox")))
        .collect::<Result<Vec<_>, Failure>>()?
        .into_iter()
        .unzip();
    let wakers = commanders.iter().map(Commander::waker).collect::<Arc<[_]>>();
    // A worker for each core keeps to it. Fewer are left to the scheduler, which puts them where their peers' bytes are in cache: with
    // one worker on two cores the median round trip was 60 µs so, and 75 µs pinned.
    let pinned = workers == cores.len();
    let share = |worker, mailbox| Share {
        worker,
        workers,
        core: pinned.then(|| cores[worker]),
        features,
        table: Arc::clone(&table),
        process: Arc::clone(&sessions),
        counters: Arc::clone(&counters),
        mailbox,
        events: events.clone(),
        wakers: Arc::clone(&wakers),
        access_log: Arc::clone(&access_log),
        announce_sessions,
    };
    for (worker, mailbox) in mailboxes.into_iter().enumerate() {
        start(share(worker, mailbox))?;
    }
    drop(events);

    let parts = Parts {
        signals,
        fleet,
        listeners,
        access_log,
        writer,
        commanders,
        events: received_events,
        requests: received_requests,
        config,
        running,
        capacity,
        sessions,
        counters,
        invocation,
        administration: Box::new(Administration(endpoints)),
        timeline,
    };
    let mut control = Control::new(parts, predecessor.is_some());
    let prepared = control.prepare().map_err(control::Failure::from)?;
    if let Some(predecessor) = predecessor {
        // From here on nothing fails that the other process could have been spared.
        predecessor.ready(has_admin).map_err(system("take over from the process that runs"))?;
    }
    control.open(prepared)?;
    predecessor.into_iter().for_each(Predecessor::serving);
    let outcome = runtime.block_on(control.run());
    match outcome {
        Err(control::Failure::Impatient(_)) => control.abandon(),
        _ => control.close(),
    }
    Ok(outcome?)
}

/// Where a configuration wants the administration interface.
fn location(config: &config::Admin) -> admin::Location {
    admin::Location { socket: admin_socket(config), http: config.http, hosts: config.hosts.clone() }
}

/// Where a configuration wants the admin socket; `None`: nowhere.
pub fn admin_socket(config: &config::Admin) -> Option<PathBuf> {
    match &config.socket {
        AdminSocket::Default => Some(admin::default_socket()),
        AdminSocket::At(path) => Some(path.clone()),
        AdminSocket::None => None,
    }
}

/// The administration interface in the control plane's hands.
#[derive(Debug)]
struct Administration(admin::Endpoints);

impl control::Administration for Administration {
    fn prepare(&mut self, config: &config::Admin) -> Result<(), String> {
        self.0.prepare(location(config)).map_err(|error| error.to_string())
    }

    fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    fn begin(&mut self) {
        self.0.begin();
    }

    fn commit(&mut self) {
        self.0.commit();
    }

    fn duplicate(&self) -> io::Result<HandedOver> {
        let admin::Sockets { admin, http } = self.0.duplicate()?;
        let admin = admin.map(|(file, socket)| (file.path().to_owned(), socket));
        Ok(HandedOver { admin, http, ..HandedOver::default() })
    }

    fn retire(&mut self, inherited: bool) {
        self.0.retire(inherited);
    }

    fn close(&mut self) {
        self.0.close();
    }
}

/// Starts a worker's thread and waits until it has its ring. However the thread ends, the control plane hears of it.
fn start(share: Share) -> Result<(), Failure> {
    let (worker, core, events) = (share.worker, share.core, share.events.clone());
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
        let _ = events.blocking_send(WorkerEvent::Ended { worker, outcome });
    };
    thread::Builder::new().name(format!("worker-{worker}")).spawn(body).map_err(system("start a worker's thread"))?;
    match started.recv() {
        Ok(outcome) => outcome.map_err(|fault| Failure::Start(worker, fault)),
        Err(error) => Err(Failure::System("start a worker", io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    #[test]
    fn what_the_system_refuses_at_the_start_comes_with_what_to_do() {
        for (error, words) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::AGAIN, "TasksMax="),
            (Errno::PERM, "SystemCallFilter="),
            (Errno::INVAL, "journalctl -k"),
        ] {
            let said = Failure::System("start a worker's thread", error.into()).to_string();
            assert!(said.starts_with("cannot start a worker's thread: ") && said.contains(words), "{said}");
        }
    }
}
