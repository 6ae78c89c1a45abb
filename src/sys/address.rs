//! Whether this machine has an address, and if not, why and what helps.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::Errno;

/// Why an address cannot be bound now (`EADDRNOTAVAIL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressUnavailable {
    /// No interface has it.
    Missing,
    /// The kernel still checks whether another machine has it, too: RFC 4862, 5.4.
    Tentative,
    /// Another machine has it, too.
    Duplicate,
}

// IFA_F_DADFAILED and IFA_F_TENTATIVE, linux/if_addr.h.
const DUPLICATE: u8 = 0x08;
const TENTATIVE: u8 = 0x40;

/// Why this machine could not bind this address now; `None`: it could, as far as it is known.
pub fn absence(address: SocketAddr) -> Option<AddressUnavailable> {
    // The kernel's own answer, which knows `ip_nonlocal_bind` and local routes, too; no port of a service is touched.
    let tried = UdpSocket::bind(SocketAddr::new(address.ip(), 0));
    let missing = |error| Errno::from_io_error(&error) == Some(Errno::ADDRNOTAVAIL);
    if !tried.err().is_some_and(missing) {
        return None;
    }
    let IpAddr::V6(ip) = address.ip() else { return Some(AddressUnavailable::Missing) };
    // There also where a service may not see the rest of /proc (ProcSubset=pid).
    let table = std::fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    Some(in_table(&table, &format!("{:032x}", ip.to_bits())))
}

/// OperationKind the kernel's table of IPv6 addresses says of one. Its columns: address, interface, prefix, scope, flags, name.
fn in_table(table: &str, address: &str) -> AddressUnavailable {
    let mut fields = table.lines().map(str::split_whitespace);
    let flags = fields.find_map(|mut line| (line.next() == Some(address)).then(|| line.nth(3)).flatten());
    match flags.and_then(|flags| u8::from_str_radix(flags, 16).ok()) {
        Some(flags) if flags & DUPLICATE != 0 => AddressUnavailable::Duplicate,
        Some(flags) if flags & TENTATIVE != 0 => AddressUnavailable::Tentative,
        _ => AddressUnavailable::Missing,
    }
}

/// OperationKind helps; `freebind`: where the configuration has that key.
pub fn remedy(absence: Option<AddressUnavailable>, address: SocketAddr, freebind: bool) -> String {
    let key = if freebind { "`freebind: true` in the service, or " } else { "" };
    match absence {
        Some(AddressUnavailable::Missing) => {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            format!(
                "no interface of this machine has this address (see 'ip address'): add it, or, where it comes later, as a standby's does, set {key}net.{family}.ip_nonlocal_bind=1 in sysctl"
            )
        }
        Some(AddressUnavailable::Tentative) => format!(
            "the kernel still checks whether another machine has this address ('ip address' says tentative): try again, or set {key}net.ipv6.ip_nonlocal_bind=1 in sysctl"
        ),
        Some(AddressUnavailable::Duplicate) => {
            "another machine on its link has this address, too ('ip address' says dadfailed): take it away there, or choose another one"
                .to_owned()
        }
        None => "this machine has the address by now: try again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_it_can_bind() {
        assert_eq!(absence("127.0.0.1:80".parse().unwrap()), None);
        assert_eq!(absence("0.0.0.0:80".parse().unwrap()), None);
        assert_eq!(absence("192.0.2.1:80".parse().unwrap()), Some(AddressUnavailable::Missing));
        assert_eq!(absence("[2001:db8::1]:80".parse().unwrap()), Some(AddressUnavailable::Missing));
    }

    #[test]
    fn the_kernels_table_tells_why() {
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
            20010db8000000000000000000000001 02 40 00 c0     wire\n\
            20010db8000000000000000000000009 02 40 00 c8     wire\n";
        for (ip, absence) in [
            ("20010db8000000000000000000000001", AddressUnavailable::Tentative),
            ("20010db8000000000000000000000009", AddressUnavailable::Duplicate),
            ("20010db8000000000000000000000002", AddressUnavailable::Missing),
            ("00000000000000000000000000000001", AddressUnavailable::Missing),
        ] {
            assert_eq!(in_table(table, ip), absence, "{ip}");
        }
        assert_eq!(in_table("", "00"), AddressUnavailable::Missing);
        assert_eq!(
            format!("{:032x}", "2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().to_bits()),
            "20010db8000000000000000000000009"
        );
    }
}
