//! IPv6 addresses that were given to this machine a moment ago.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{Config, Listen};
use crate::sys::address::{AddressUnavailable, absence};

/// The check for duplicates takes up to two seconds (RFC 4862, 5.4), more where an interface is told to ask more often.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits while the kernel still checks whether another machine has an address that is to be listened on, for at most five seconds.
pub fn await_addresses(config: &Config) {
    let listed = config.services.iter().filter(|service| !service.freebind).flat_map(|service| &service.listen);
    let mut addresses: Vec<SocketAddr> = listed
        .filter_map(|listen| if let Listen::Tcp(address) = listen { Some(*address) } else { None })
        .chain(config.admin.http)
        .filter(SocketAddr::is_ipv6)
        .collect();
    let is_tentative = |address: &SocketAddr| absence(*address) == Some(AddressUnavailable::Tentative);
    addresses.retain(is_tentative);
    for address in &addresses {
        log::info!("waiting for {address}: the kernel still checks it for a duplicate on its link");
    }
    let start = Instant::now();
    while !addresses.is_empty() && start.elapsed() < LONGEST {
        std::thread::sleep(Duration::from_millis(10));
        addresses.retain(is_tentative);
    }
}
