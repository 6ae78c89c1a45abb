//! Two network namespaces joined by a wire, so that a peer can vanish and ports can be few. Needs root.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::run;

/// The near side's address, where the balancer runs.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A near and a far namespace; both are gone when this is dropped.
pub(crate) struct Namespaces {
    near: Side,
    far: Side,
}

/// One of the two.
pub(crate) struct Side {
    name: String,
}

impl Namespaces {
    /// Two namespaces of their own, joined.
    pub(crate) fn new() -> Arc<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("bal{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        // Built before the first command, so that half a set-up is taken down too.
        let pair = Self { near: Side { name: format!("{tag}n") }, far: Side { name: format!("{tag}f") } };
        for side in [&pair.near, &pair.far] {
            run("ip", &["netns", "add", &side.name]);
            side.ip("link set lo up");
        }
        pair.near.ip(&format!("link add wire type veth peer name wire netns {}", pair.far.name));
        for (side, address) in [(&pair.near, "10.77.0.1/24"), (&pair.far, "10.77.0.2/24")] {
            side.ip(&format!("address add {address} dev wire"));
            side.ip("link set wire up");
        }
        Arc::new(pair)
    }

    /// Where the balancer runs.
    pub(crate) fn near(&self) -> &Side {
        &self.near
    }

    /// Where its peer is.
    pub(crate) fn far(&self) -> &Side {
        &self.far
    }
}

impl Side {
    /// Does something inside: sockets made there stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("entering it as root");
            work()
        };
        std::thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// How many TCP packets have arrived here (RFC 4022, `tcpInSegs`).
    pub(crate) fn packets(&self) -> u64 {
        self.counted("Tcp: ", "InSegs")
    }

    /// How many IP packets have come along the wire (RFC 4293, `ipInReceives`), also those that are dropped here.
    pub(crate) fn packets_on_the_wire(&self) -> u64 {
        self.counted("Ip: ", "InReceives")
    }

    fn counted(&self, protocol: &str, counter: &str) -> u64 {
        let counts = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel counts"));
        let mut lines = counts.lines().filter_map(|line| line.strip_prefix(protocol));
        let mut next = || lines.next().expect("names, then numbers").split(' ');
        let (mut names, mut numbers) = (next(), next());
        let place = names.position(|name| name == counter).expect("packets that have arrived");
        numbers.nth(place).expect("as many numbers as names").parse().expect("a number")
    }

    /// From now on nothing arrives here and nothing leaves, without a word to the other side.
    pub(crate) fn vanish(&self) {
        let rules = "add table inet gone; \
            add chain inet gone in { type filter hook input priority 0; policy drop; }; \
            add chain inet gone out { type filter hook output priority 0; policy drop; }";
        run("ip", &["netns", "exec", &self.name, "nft", rules]);
    }

    /// Ends [`Self::vanish`].
    pub(crate) fn reappear(&self) {
        run("ip", &["netns", "exec", &self.name, "nft", "delete table inet gone"]);
    }

    /// From now on what arrives for this TCP port is swallowed, as a dropping firewall does it.
    pub(crate) fn swallow(&self, port: u16) {
        let rules = format!(
            "add table inet swallow; add chain inet swallow in {{ type filter hook input priority 0; }}; \
             add rule inet swallow in tcp dport {port} drop"
        );
        run("ip", &["netns", "exec", &self.name, "nft", &rules]);
    }

    /// From now on no way leads from here to this network, and the kernel says so.
    pub(crate) fn unreachable(&self, network: &str) {
        self.ip(&format!("route add unreachable {network}"));
    }

    /// Leaves these local ports for outgoing connections.
    pub(crate) fn local_ports(&self, first: u16, last: u16) {
        self.sysctl(&format!("net.ipv4.ip_local_port_range={first} {last}"));
    }

    /// Gives its end of the wire one more address: `10.77.0.9/24`, with options behind it (`nodad`).
    pub(crate) fn add_address(&self, address: &str) {
        self.ip(&format!("address add {address} dev wire"));
    }

    /// Takes one away from it, by the same text.
    pub(crate) fn remove_address(&self, address: &str) {
        let address = address.split(' ').next().unwrap_or_default();
        self.ip(&format!("address delete {address} dev wire"));
    }

    /// How long an IPv6 address that its end of the wire gets from now on is tentative, in seconds, and up to one more (RFC 4862, 5.4).
    pub(crate) fn tentative_for(&self, seconds: u32) {
        self.sysctl(&format!("net.ipv6.conf.wire.dad_transmits={seconds}"));
    }

    fn sysctl(&self, setting: &str) {
        run("ip", &["netns", "exec", &self.name, "sysctl", "-qw", setting]);
    }

    fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments.split_whitespace());
        run("ip", &all);
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}
