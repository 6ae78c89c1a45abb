//! A configuration in the making.

use std::fmt::Display;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::Namespaces;

/// What a balancer is started with: one service `web` on 127.0.0.1, until said otherwise.
pub(crate) struct Setup {
    pub(super) directory: TempDir,
    pub(super) inside: Option<Arc<Namespaces>>,
    pub(super) user: Option<u32>,
    pub(super) copied: bool,
    pub(super) umask: Option<&'static str>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) passed: Vec<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// Its limits of descriptors, soft and hard.
    pub(super) descriptors: Option<(u64, u64)>,
    workers: u32,
    /// What stands behind the admin socket.
    http: &'static str,
    process: Vec<String>,
    services: Vec<Service>,
}

struct Service {
    name: String,
    /// As YAML has it.
    listen: String,
    backends: Vec<String>,
    settings: Vec<String>,
}

impl Service {
    fn new(name: &str) -> Self {
        Self { name: name.into(), listen: "127.0.0.1:0".into(), backends: Vec::new(), settings: Vec::new() }
    }
}

impl Setup {
    /// One service `web`, without backends yet.
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::Builder::new().prefix("balancer-").tempdir().expect("a temporary directory"),
            inside: None,
            user: None,
            copied: false,
            umask: None,
            environment: Vec::new(),
            passed: Vec::new(),
            stderr: None,
            descriptors: None,
            workers: 2,
            http: "",
            process: Vec::new(),
            services: vec![Service::new("web")],
        }
    }

    /// A directory that lives as long as the balancer.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The number of event loops; 2 until said otherwise.
    pub(crate) fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// The admin side listens on a free TCP port of 127.0.0.1, too.
    pub(crate) fn http(mut self) -> Self {
        self.http = ", http: 127.0.0.1:0";
        self
    }

    /// A line of YAML at the top level.
    pub(crate) fn process(mut self, line: &str) -> Self {
        self.process.push(line.into());
        self
    }

    /// Another service, which what follows is about.
    pub(crate) fn service(mut self, name: &str) -> Self {
        self.services.push(Service::new(name));
        self
    }

    /// Where the service listens, if not on a free port of 127.0.0.1.
    pub(crate) fn listen(mut self, address: impl Display) -> Self {
        self.last().listen = format!("\"{address}\"");
        self
    }

    /// Several places where the service listens.
    pub(crate) fn listen_on(mut self, addresses: &[&str]) -> Self {
        self.last().listen = format!("{addresses:?}");
        self
    }

    /// A backend of the service.
    pub(crate) fn backend(mut self, name: &str, address: impl Display) -> Self {
        self.last().backends.push(format!("{name}: \"{address}\""));
        self
    }

    /// A backend with a property: `weight: 2`.
    pub(crate) fn backend_with(mut self, name: &str, address: impl Display, property: &str) -> Self {
        self.last().backends.push(format!("{name}: {{ address: \"{address}\", {property} }}"));
        self
    }

    /// A line of YAML in the service.
    pub(crate) fn setting(mut self, line: &str) -> Self {
        self.last().settings.push(line.into());
        self
    }

    /// Runs the balancer in the near one of two network namespaces.
    pub(crate) fn inside(mut self, namespaces: &Arc<Namespaces>) -> Self {
        self.inside = Some(Arc::clone(namespaces));
        self
    }

    /// Runs the balancer as an ordinary user.
    pub(crate) fn run_as(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Runs the balancer with these limits of descriptors.
    pub(crate) fn descriptors(mut self, soft: u64, hard: u64) -> Self {
        self.descriptors = Some((soft, hard));
        self
    }

    /// Runs the balancer with this umask.
    pub(crate) fn umask(mut self, mask: &'static str) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Runs a copy of the program, which a test may replace.
    pub(crate) fn copied(mut self) -> Self {
        self.copied = true;
        self
    }

    /// Runs the balancer with a variable of its environment set.
    pub(crate) fn variable(mut self, name: &str, value: impl Display) -> Self {
        self.environment.push((name.into(), value.to_string()));
        self
    }

    /// Switches a kernel feature off, beside those that are off for all tests.
    pub(crate) fn without(self, feature: &str) -> Self {
        let off = std::env::var("BALANCER_DISABLE").unwrap_or_default();
        self.variable("BALANCER_DISABLE", format!("{off},{feature}"))
    }

    /// Passes the balancer a listening socket as the service manager does; two at most.
    pub(crate) fn passed(mut self, listener: impl Into<OwnedFd>) -> Self {
        self.passed.push(listener.into());
        self
    }

    /// Gives the balancer this as its standard error, which the harness else reads as its log.
    pub(crate) fn stderr(mut self, stderr: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    pub(super) fn service_names(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| service.name.as_str())
    }

    pub(super) fn yaml(&self) -> String {
        let mut yaml =
            format!("workers: {}\nadmin: {{ socket: {}{} }}\n", self.workers, self.socket().display(), self.http);
        for line in &self.process {
            let _ = writeln!(yaml, "{line}");
        }
        if !self.process.iter().any(|line| line.starts_with("state:")) {
            let _ = writeln!(yaml, "state: {}", self.directory.path().join("state").display());
        }
        yaml.push_str("services:\n");
        for service in &self.services {
            let _ = writeln!(yaml, "  {}:\n    listen: {}\n    backends:", service.name, service.listen);
            for backend in &service.backends {
                let _ = writeln!(yaml, "      {backend}");
            }
            for line in &service.settings {
                let _ = writeln!(yaml, "    {line}");
            }
            // A test that is not about health sees no probes, and no backend goes without its doing.
            if !service.settings.iter().any(|line| line.starts_with("health:")) {
                yaml.push_str("    health: { probe: none, passive: off }\n");
            }
        }
        yaml
    }

    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("admin.sock")
    }

    fn last(&mut self) -> &mut Service {
        self.services.last_mut().expect("there is always one")
    }
}
