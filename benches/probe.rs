//! OperationKind probing costs: 1,000 listeners on this machine, each asked once a second, and the probing thread's share of a core.
//!
//! ```text
//! cargo bench --bench probe
//! ```
//!
//! Over loopback the kernel does the server's half of each handshake in the probing thread as well: a network costs less.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use balancer::control::probe::{Check, Prober, Target};
use balancer::observe::counters::Probed;
use balancer::sys::process::raise_descriptor_limit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};

const TARGETS: usize = 1000;
/// Left out: all first probes go out at once.
const BEGINNING: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

fn main() {
    raise_descriptor_limit();
    let listeners: Vec<_> =
        (0..TARGETS).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().expect("bound")).collect();
    thread::spawn(move || accept_all(&listeners));
    measure(&addresses);
}

/// Accepts whatever comes and closes it when the other side has, as servers do.
fn accept_all(listeners: &[TcpListener]) {
    for listener in listeners {
        listener.set_nonblocking(true).expect("a listener");
    }
    loop {
        let mut waiting: Vec<_> = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        poll(&mut waiting, None).expect("it polls");
        let ready: Vec<bool> = waiting.iter().map(|listener| !listener.revents().is_empty()).collect();
        for (listener, _) in listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
            drop(listener.accept());
        }
    }
}

fn measure(addresses: &[SocketAddr]) {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).expect("a ring");
    runtime.block_on(async {
        let mut prober = Prober::new();
        for (id, &address) in (0..).zip(addresses) {
            let (interval, timeout) = (Duration::from_secs(1), Duration::from_secs(1));
            prober.watch(id, Target { address, check: Check::Tcp, interval, timeout });
        }
        count(&mut prober, BEGINNING).await;
        let (began, cpu) = (Instant::now(), thread_cpu());
        let [passed, failed] = count(&mut prober, MEASURED).await;
        let (cpu, wall) = (thread_cpu() - cpu, began.elapsed());
        let probes = passed + failed;
        println!(
            "{TARGETS} targets at 1 s: {:.0} probes/s, {failed} of {probes} failed, {:.2} % of a core, {:.1} µs a probe",
            f64::from(probes) / wall.as_secs_f64(),
            100.0 * cpu.as_secs_f64() / wall.as_secs_f64(),
            1e6 * cpu.as_secs_f64() / f64::from(probes),
        );
    });
}

/// Lets the prober run for a while; answers how many probes passed and how many failed.
async fn count(prober: &mut Prober, time: Duration) -> [u32; 2] {
    let end = tokio::time::Instant::now() + time;
    let mut results = [0; 2];
    while let Ok(outcome) = tokio::time::timeout_at(end, prober.next()).await {
        results[usize::from(outcome.result != Probed::Passed)] += 1;
    }
    results
}

/// The CPU time of the calling thread, in user mode and in the kernel.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
