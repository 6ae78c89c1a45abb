//! A running process: what /proc says of it, signals to it, and its sure end.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_getfd, pidfd_open,
    prlimit,
};
use socket2::SockRef;

use super::tools::program;
use super::wait::{PATIENCE, Stopwatch, Took, queued, wait_until};

/// A process as /proc shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Its number.
    pub(crate) fn id(self) -> u32 {
        self.0
    }

    /// Bytes of memory that it has resident.
    pub(crate) fn resident(self) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS in /proc/PID/status");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("VmRSS is a number of kB") * 1024
    }

    /// Processor time that all its threads have used, in steps of 10 ms.
    pub(crate) fn processor_time(self) -> Duration {
        processor_time(&self.read("stat"))
    }

    /// Processor time that one of its threads has used, in steps of 10 ms.
    #[track_caller]
    pub(crate) fn processor_time_of(self, thread: &str) -> Duration {
        processor_time(&self.read(&format!("task/{}/stat", self.thread(thread))))
    }

    /// How long its threads have been ready to run while the kernel had given the cores to others: all of them together, those
    /// that run still. Nothing for a process that has ended.
    pub(crate) fn queued(self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        tasks.map(|task| queued(&task.path().join("schedstat").to_string_lossy())).sum()
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(self) -> usize {
        self.try_descriptors().expect("reading /proc/PID/fd")
    }

    fn try_descriptors(self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.0))?.count())
    }

    /// The names of its threads.
    pub(crate) fn threads(self) -> Vec<String> {
        self.each_task("comm").into_iter().map(|name| name.trim().to_owned()).collect()
    }

    /// Kernel threads that work off what the ring could not do at once. There are none in steady state.
    pub(crate) fn ring_workers(self) -> usize {
        self.threads().iter().filter(|name| name.starts_with("iou-wrk")).count()
    }

    /// Waits until every one of its threads sleeps: whatever it was to do, it has done.
    #[track_caller]
    pub(crate) fn await_rest(self) {
        let sleeps = |stat: &String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'));
        wait_until("every thread sleeps", PATIENCE, || self.each_task("stat").iter().all(sleeps));
    }

    /// How often each of its threads has gone to sleep, by name: it stays the same while nothing wakes them.
    pub(crate) fn sleeps(self) -> BTreeMap<String, u64> {
        let statuses = self.each_task("status");
        let sleeps = statuses.iter().map(|status| {
            (field(status, "Name:"), field(status, "voluntary_ctxt_switches:").parse().unwrap_or_default())
        });
        sleeps.collect()
    }

    /// The cores that each of its threads may use, by name, as the kernel lists them: `0-3`.
    pub(crate) fn cores(self) -> BTreeMap<String, String> {
        let statuses = self.each_task("status");
        statuses.iter().map(|status| (field(status, "Name:"), field(status, "Cpus_allowed_list:"))).collect()
    }

    /// One of its sockets that accept clients at this address, shared with it.
    #[track_caller]
    pub(crate) fn listener_at(self, address: SocketAddr) -> OwnedFd {
        let process = pidfd_open(self.pid().expect("a process has a number"), PidfdFlags::empty()).expect("a pidfd");
        let names = fs::read_dir(format!("/proc/{}/fd", self.0)).expect("its descriptors").flatten();
        let numbers = names.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        let mut shared = numbers.filter_map(|number: i32| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
        let is_it = |socket: &OwnedFd| {
            socket_acceptconn(socket).is_ok_and(|accepts| accepts)
                && SockRef::from(socket).local_addr().is_ok_and(|at| at.as_socket() == Some(address))
        };
        shared.find(is_it).unwrap_or_else(|| panic!("nobody listens on {address}"))
    }

    /// Changes its soft limit of descriptors. The hard one stays what it has inherited from this process.
    pub(crate) fn limit_descriptors(self, limit: u64) {
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(self.pid(), Resource::Nofile, Rlimit { current: Some(limit), maximum })
            .expect("setting another process's descriptor limit");
    }

    /// Holds one of its threads as a debugger does, until the result is dropped; all others go on.
    #[track_caller]
    pub(crate) fn hold(self, thread: &str) -> Kills {
        // PTRACE_SEIZE, PTRACE_INTERRUPT and the wait (__WALL) until it has stopped; the end of the tracer lets the thread
        // go: ptrace(2).
        const SCRIPT: &str = "import ctypes, os, sys, time\n\
            trace = ctypes.CDLL(None, use_errno=True).ptrace\n\
            trace.argtypes = [ctypes.c_long] * 4\n\
            assert trace(0x4206, int(sys.argv[1]), 0, 0) == 0, ctypes.get_errno()\n\
            assert trace(0x4207, int(sys.argv[1]), 0, 0) == 0, ctypes.get_errno()\n\
            os.waitpid(int(sys.argv[1]), 0x40000000)\n\
            print('held', flush=True)\n\
            time.sleep(60)\n";
        let mut tracer = Command::new(program("python3"));
        tracer.args(["-c", SCRIPT]).arg(self.thread(thread).to_string()).stdout(Stdio::piped());
        let mut tracer = Kills(tracer.spawn().expect("starting python3"));
        let said = tracer.0.stdout.as_mut().map(|output| output.read_exact(&mut [0; 5]));
        said.expect("its output").expect("the thread is held");
        tracer
    }

    /// The number of its thread of this name.
    #[track_caller]
    fn thread(self, name: &str) -> u32 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).expect("the process runs").flatten();
        let is_it =
            |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
        let task = tasks.into_iter().find(is_it).unwrap_or_else(|| panic!("no thread {name}"));
        task.file_name().to_string_lossy().parse().expect("a number")
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// Sends it a signal.
    pub(crate) fn signal(self, signal: Signal) {
        kill_process(self.pid().expect("a process has a number"), signal).expect("sending a signal");
    }

    /// Stops all of it, until the result is dropped. Nothing that happens from now on reaches any of its threads before.
    #[track_caller]
    pub(crate) fn freeze(self) -> Frozen {
        self.signal(Signal::STOP);
        let stopped = |stat: &String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        wait_until("every thread has stopped", PATIENCE, || self.each_task("stat").iter().all(stopped));
        Frozen(self)
    }

    fn pid(self) -> Option<Pid> {
        i32::try_from(self.0).ok().and_then(Pid::from_raw)
    }

    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).expect("the process runs")
    }

    fn each_task(self, file: &str) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).expect("the process runs");
        // A thread may end between the listing and the reading.
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join(file)).ok()).collect()
    }
}

/// A field of /proc/PID/status.
fn field(status: &str, name: &str) -> String {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

/// User and system time of a line of /proc/PID/stat.
fn processor_time(stat: &str) -> Duration {
    let (_, fields) = stat.rsplit_once(')').expect("a name in /proc/PID/stat");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// A child that is killed and waited for when it is dropped.
pub(crate) struct Kills(pub(crate) Child);

impl Kills {
    /// The process.
    pub(crate) fn process(&self) -> Process {
        Process(self.0.id())
    }

    /// Kills it as the kernel does: no handler, no goodbye.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for its own end and says how long it took.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> (ExitStatus, Took) {
        let (mut watch, mut status, mut took) = (Stopwatch::start(self.process()), None, None);
        wait_until("the process has ended", within, || {
            status = self.0.try_wait().expect("waiting for a child");
            took = Some(watch.took());
            status.is_some()
        });
        (status.expect("it ended"), took.expect("it was looked at"))
    }
}

impl Drop for Kills {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that is stopped as long as this lives.
pub(crate) struct Frozen(Process);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}
