//! Reading the configuration again when somebody asks for it, and applying all of it or nothing. Requests take their turns; the
//! file is read off the control plane's thread, because a disk can be slow.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{Control, NOT_SERVING, Parts, State, await_addresses, now, systemd};
use crate::config::{self, AccessLog, Loaded, diff};
use crate::messages::Reply;
use crate::observe::access_log;
use crate::observe::running::{ConfigFile, Reloaded};
use crate::observe::timeline::Kind;

/// A file that takes longer to read is on a disk that hangs, or is no file.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that may wait for the one before them.
const WAITING: usize = 64;

/// Lines of one reload that the timeline gets.
const RECORDED: usize = 20;
/// Lines of one reload that the log gets; the rest is counted.
const LINES: usize = 100;
/// One request.
#[derive(Debug)]
pub(super) struct Ask {
    /// Who asks.
    pub(super) by: String,
    /// Also where `reload.guard` would refuse it.
    pub(super) force: bool,
    /// Who wants to know what became of it; nobody does after a signal.
    pub(super) answer: Option<oneshot::Sender<Reply>>,
}

/// What an applied file comes to, a line each.
#[derive(Debug, Default)]
struct Applied {
    /// What has changed.
    changes: Vec<String>,
    /// What in the file may mean something else than its author thinks.
    warnings: Vec<String>,
}

/// The file that a request has brought, or why it cannot be used.
pub(super) type Read = Result<Loaded, String>;

/// See the module.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    waiting: VecDeque<Ask>,
    reading: Option<Reading>,
    /// Held by a thread while it reads.
    busy: Arc<()>,
}

#[derive(Debug)]
struct Reading {
    ask: Ask,
    read: oneshot::Receiver<Read>,
    until: Instant,
}

impl Reader {
    /// Reads the file at this path.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, waiting: VecDeque::new(), reading: None, busy: Arc::default() }
    }

    /// Has the file read for a request. A signal that finds another one waiting adds nothing to it.
    ///
    /// # Errors
    /// Too many wait: the request comes back.
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), Ask> {
        if ask.answer.is_none() && self.waiting.iter().any(|other| other.answer.is_none()) {
            return Ok(());
        }
        if self.waiting.len() >= WAITING {
            return Err(ask);
        }
        self.waiting.push_back(ask);
        self.begin();
        Ok(())
    }

    /// The next request whose file has been read. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> (Ask, Read) {
        let Some(Reading { read, until, .. }) = &mut self.reading else { return std::future::pending().await };
        let read = match timeout_at(*until, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err("reading the configuration broke off: see the log".to_owned()),
            Err(_) => Err(format!(
                "{} could not be read within {PATIENCE:?}: is it a file, and does its disk answer?",
                self.path.display()
            )),
        };
        match self.reading.take() {
            Some(Reading { ask, .. }) => {
                self.begin();
                (ask, read)
            }
            None => std::future::pending().await,
        }
    }

    fn begin(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let Some(ask) = self.waiting.pop_front() else { return };
        let (done, read) = oneshot::channel();
        self.reading = Some(Reading { ask, read, until: Instant::now() + PATIENCE });
        if Arc::strong_count(&self.busy) > 1 {
            let _ = done.send(Err(format!("an earlier attempt to read {} still hangs", self.path.display())));
            return;
        }
        let (path, busy) = (self.path.clone(), Arc::clone(&self.busy));
        let body = move || {
            let read = config::load(&path).map_err(|report| format!("{report}\n{}", report.conclusion()));
            // Here, where the control plane need not wait for it.
            let _ = read.as_ref().map(|loaded| await_addresses(&loaded.config));
            drop(busy);
            let _ = done.send(read);
        };
        // Where there is no thread to be had, the channel's end says so.
        if let Err(error) = thread::Builder::new().name("config".to_owned()).spawn(body) {
            log::error!("cannot start the thread that reads the configuration: {error}");
        }
    }
}

/// Opens the access log of a configuration, if it wants one.
///
/// # Errors
/// It cannot be opened: why, and what to do.
pub fn open_access_log(
    access_log: &AccessLog,
) -> Result<(Option<access_log::Handle>, Option<access_log::Writer>), access_log::OpenError> {
    let target = match access_log {
        AccessLog::Off => None,
        AccessLog::Stderr => Some(access_log::Target::Stderr),
        AccessLog::File(path) => Some(access_log::Target::File(path.clone())),
    };
    Ok(target.map(access_log::open).transpose()?.unzip())
}

/// The next request of a reader, if there is one.
pub(super) async fn next(reader: &mut Option<Reader>) -> (Ask, Read) {
    match reader {
        Some(reader) => reader.next().await,
        None => std::future::pending().await,
    }
}

impl Control {
    /// Has the configuration read again.
    pub(super) fn ask(&mut self, ask: Ask) {
        let refused = match &mut self.reader {
            _ if self.state != State::Serving => (ask, NOT_SERVING),
            None => (ask, "there is no configuration file to read again: this configuration is built in"),
            Some(reader) => match reader.ask(ask) {
                Ok(()) => {
                    systemd::reloading();
                    return;
                }
                Err(ask) => (ask, "too many reloads wait already: try again"),
            },
        };
        let (ask, why) = refused;
        self.answer(ask, Err((Reloaded::Refused, why.to_owned())));
    }

    /// A configuration was read: applies all of it or nothing, and says which.
    pub(super) fn reload(&mut self, ask: Ask, read: Read) {
        let refused = |why: &str| Err((Reloaded::Refused, why.to_owned()));
        let outcome = match read {
            _ if self.state != State::Serving => refused(NOT_SERVING),
            _ if self.upgrading.is_some() => refused("an upgrade is under way: try again"),
            Err(why) => Err((Reloaded::Invalid, why)),
            Ok(loaded) => self.apply(loaded, ask.force),
        };
        self.answer(ask, outcome);
        if self.state == State::Serving {
            systemd::ready(&self.summary());
        }
    }

    /// Applies a configuration. Whatever can fail comes first and changes nothing.
    fn apply(&mut self, loaded: Loaded, force: bool) -> Result<Applied, (Reloaded, String)> {
        let Loaded { config, path, sha256, warnings } = loaded;
        let old = &self.parts.config;
        let refused = |why| (Reloaded::Refused, why);
        let failed = |why: &dyn std::fmt::Display| (Reloaded::Failed, why.to_string());
        let key = if old.workers != config.workers { "workers" } else { "state" };
        if old.workers != config.workers || old.state != config.state {
            // A worker that leaves would have to move its sessions, and one that comes would have no part of the listeners. What is
            // kept in one directory would be missing in another.
            return Err(refused(format!(
                "a running process cannot change its `{key}`: `balancer upgrade` starts a new one with this file, without losing a connection"
            )));
        }
        let losses = diff::losses(old, &config);
        if !losses.is_empty() && !force {
            return Err(refused(format!(
                "{}; reload.guard wants {}% kept: if the file means it, run `balancer reload --force`",
                losses.join(", "),
                old.reload.guard
            )));
        }
        let limit = self.parts.capacity.sessions(&config).map_err(|error| failed(&error))?;
        let prepared = self.parts.listeners.prepare(&config).map_err(|error| failed(&error))?;
        let log = (old.access_log != config.access_log).then(|| open_access_log(&config.access_log)).transpose();
        let log = log.map_err(|error| failed(&error))?;
        let administration = self.prepare_administration(&config).map_err(|error| failed(&error))?;
        let changes = diff::changes(&self.parts.config, &config, &self.parts.fleet);
        if administration {
            self.parts.administration.commit();
        }
        let Parts { sessions, fleet, running, access_log, writer, .. } = &mut self.parts;
        if let Some((handle, new)) = log {
            access_log.replace(handle);
            // It waits for a slow disk; nobody waits for it.
            let before = std::mem::replace(writer, new);
            let _ = thread::Builder::new().name("log-end".to_owned()).spawn(move || drop(before));
        }
        sessions.set_limit(Some(limit));
        fleet.apply(&config, now());
        running.file.store(Arc::new(ConfigFile::new(Some(path), Some(sha256))));
        self.parts.config = config;
        if let Err(error) = self.commit(prepared) {
            // Its end is reported, or the watchdog finds it.
            log::error!("the listeners' change did not reach every worker: {error}");
        }
        self.wake_workers(true);
        self.save_and_watch(None);
        Ok(Applied { changes, warnings: warnings.lines() })
    }

    /// Prepares the administration interface where it changes, or where somebody has removed its socket. Answers whether there is
    /// something to commit.
    fn prepare_administration(&mut self, config: &config::Config) -> Result<bool, String> {
        let Parts { administration, config: old, .. } = &mut self.parts;
        let changed = old.admin != config.admin;
        if !changed && !administration.is_lost() {
            return Ok(false);
        }
        match administration.prepare(&config.admin) {
            Ok(()) if !changed => log::warn!("somebody has removed the administration socket: it is made anew"),
            // What the reload is for has nothing to do with it.
            Err(why) if !changed => {
                log::error!("somebody has removed the administration socket, and it cannot be made anew: {why}");
                return Ok(false);
            }
            outcome => outcome?,
        }
        Ok(true)
    }

    /// Says what became of a reload: to the log, to the status, and to who asked.
    fn answer(&self, ask: Ask, outcome: Result<Applied, (Reloaded, String)>) {
        let generation = self.parts.fleet.table().load().generation;
        let (result, Applied { changes, warnings }, error) = match outcome {
            Ok(applied) => (Reloaded::Applied, applied, None),
            Err((result, why)) => (result, Applied::default(), Some(why)),
        };
        self.parts.running.note(result, error.clone());
        match &error {
            Some(why) => {
                log::error!("reload {}: {why}; nothing has changed", result.label());
                let why = why.lines().next().unwrap_or_default();
                self.record(Kind::ReloadRefused, Some(&ask.by), format!("reload {}: {why}", result.label()));
            }
            None => {
                self.record(Kind::Reload, Some(&ask.by), format!("reloaded: generation {generation}"));
                changes.iter().take(RECORDED).for_each(|line| self.record(Kind::Reload, Some(&ask.by), line));
                changes.iter().take(LINES).for_each(|line| log::info!("{line}"));
                warnings.iter().for_each(|line| log::warn!("{line}"));
                let shown =
                    if changes.len() > LINES { format!(", the first {LINES} are above") } else { String::new() };
                log::info!("reloaded: generation {generation}, {} changes{shown}", changes.len());
            }
        }
        if let Some(answer) = ask.answer {
            // Who does not wait any more does not want to know.
            let _ = answer.send(Reply { result, generation, changes, warnings, error });
        }
    }
}
