//! Addresses as people write them, and what is wrong with those that they did not mean so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::Listen;
use super::tree::quoted;

/// The kernel's bound on a Unix socket's path, without the closing zero.
const UNIX_PATH_MAX: usize = 107;

/// Reads where a service listens; the error says what is wrong with the text.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(Listen::Unix);
    }
    if text.starts_with('/') {
        return Err(format!("a Unix socket is written with its prefix: {}", quoted(&format!("unix:{text}"))));
    }
    if let Some(port) = text.strip_prefix("*:").or_else(|| text.strip_prefix(':')).filter(|rest| is_number(rest)) {
        return Err(format!(
            "the address is missing: write 0.0.0.0:{port} for every IPv4 address, or \"[::]:{port}\" for every IPv6 address"
        ));
    }
    socket_address(text).map(Listen::Tcp)
}

/// Reads a TCP address to listen on; the error says what is wrong with the text.
pub(super) fn tcp(text: &str) -> Result<SocketAddr, String> {
    match listen(text)? {
        Listen::Tcp(address) => Ok(address),
        Listen::Unix(_) => {
            Err("a TCP address is due here, such as 127.0.0.1:9900; the Unix socket is `socket`".to_owned())
        }
    }
}

/// Reads a backend's address; the error says what is wrong with the text.
pub(super) fn backend(text: &str) -> Result<SocketAddr, String> {
    if text.starts_with("unix:") || text.starts_with('/') {
        return Err("a backend is reached over TCP: write its IP address and port, such as 10.0.0.11:8080".to_owned());
    }
    let address = socket_address(text)?;
    if address.ip().is_unspecified() {
        return Err(format!(
            "{} is no address that can be connected to; this machine is 127.0.0.1 or \"[::1]\"",
            address.ip()
        ));
    }
    if address.port() == 0 {
        return Err("a backend's port is 1 to 65535".to_owned());
    }
    Ok(address)
}

/// Reads the path of a Unix socket.
pub(super) fn unix_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        Err("the path of a Unix socket must begin with /".to_owned())
    } else if path.ends_with('/') {
        Err("the path of a Unix socket must end with a file's name".to_owned())
    } else if path.contains('\0') {
        Err("the path of a Unix socket cannot contain a zero byte".to_owned())
    } else if path.len() > UNIX_PATH_MAX {
        Err(format!("the path of a Unix socket has at most {UNIX_PATH_MAX} bytes, this one has {}", path.len()))
    } else {
        Ok(Path::new(path).to_owned())
    }
}

/// Reads the path of a file that is written.
pub(super) fn log_path(path: &str) -> Result<PathBuf, String> {
    if path.ends_with('/') {
        Err("the path of the access log must end with a file's name".to_owned())
    } else if path.contains('\0') {
        Err("the path of the access log cannot contain a zero byte".to_owned())
    } else {
        Ok(Path::new(path).to_owned())
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return usable(address);
    }
    if text.is_empty() {
        return Err("an address and a port are due here, such as 10.0.0.11:8080".to_owned());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(format!("an address has no scheme such as {}: write only {}", quoted(scheme), quoted(rest)));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(bare(ip, text));
    }
    if text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
        return Err(format!("the port is missing: \"{text}:8080\""));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(if is_number(text) {
            format!("the address is missing before the port: {}", quoted(&format!("127.0.0.1:{text}")))
        } else {
            format!("an address and a port are due here, such as 10.0.0.11:8080, found {}", quoted(text))
        });
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(inner)
            if inner.contains('%') && inner.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) =>
        {
            Err("the interface of a link-local address is given by its number: [fe80::1%2]:8080".to_owned())
        }
        Some(inner) if inner.parse::<Ipv6Addr>().is_err() => Err(format!("{} is not an IPv6 address", quoted(inner))),
        _ if host.parse::<Ipv6Addr>().is_ok() => {
            Err(format!("an IPv6 address stands in brackets, and all of it in quotes: \"[{host}]:{port}\""))
        }
        None if host.parse::<Ipv4Addr>().is_err() => Err(not_an_ip(host)),
        _ => Err(format!("{} is not a port, 0 to 65535", quoted(port))),
    }
}

/// An IP address without a port: or, for IPv6, with one that cannot be told from the address.
fn bare(ip: IpAddr, text: &str) -> String {
    if ip.is_ipv4() {
        return format!("the port is missing: {}", quoted(&format!("{text}:8080")));
    }
    let rule = "an IPv6 address stands in brackets, and all of it in quotes";
    match text.rsplit_once(':') {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() && is_number(port) => format!(
            "the port cannot be told from the address: {rule}: \"[{host}]:{port}\", or \"[{text}]:8080\" if {port} is a part of it"
        ),
        _ => format!("the port is missing: {rule}: \"[{text}]:8080\""),
    }
}

fn not_an_ip(host: &str) -> String {
    if host.is_empty() {
        "the address before the port is missing".to_owned()
    } else if host == "localhost" {
        "`localhost` is a host name: write the IP address, 127.0.0.1 or \"[::1]\"".to_owned()
    } else if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        format!("{} is not an IPv4 address: four numbers from 0 to 255, without leading zeros", quoted(host))
    } else if host.contains(':') {
        format!("{} is not an IPv6 address", quoted(host))
    } else {
        format!("{} is a host name: write an IP address, names are not looked up", quoted(host))
    }
}

fn usable(address: SocketAddr) -> Result<SocketAddr, String> {
    if let IpAddr::V6(ip) = address.ip()
        && let Some(ip) = ip.to_ipv4_mapped()
    {
        return Err(format!("this is an IPv4 address: write {ip}:{}", address.port()));
    }
    let broadcast = matches!(address.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    if address.ip().is_multicast() || broadcast {
        return Err(format!("{} reaches many hosts at once, which TCP cannot", address.ip()));
    }
    Ok(address)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_written() {
        assert_eq!(listen("0.0.0.0:0"), Ok(Listen::Tcp(([0, 0, 0, 0], 0).into())));
        assert_eq!(listen("[::]:8080"), Ok(Listen::Tcp((Ipv6Addr::UNSPECIFIED, 8080).into())));
        assert_eq!(listen("unix:/run/web.sock"), Ok(Listen::Unix("/run/web.sock".into())));
        assert_eq!(backend("10.0.0.1:65535"), Ok(([10, 0, 0, 1], 65535).into()));
        assert_eq!(backend("[::1]:80"), Ok((Ipv6Addr::LOCALHOST, 80).into()));
    }

    #[test]
    fn what_was_meant_is_said() {
        for (text, said) in [
            ("web.example:80", "host name"),
            ("localhost:80", "127.0.0.1"),
            ("10.0.0.1", "10.0.0.1:8080"),
            ("::1:80", ": \"[::1]:80\", or \"[::1:80]:8080\" if 80 is"),
            (
                "2001:db8::6",
                "the port is missing: an IPv6 address stands in brackets, and all of it in quotes: \"[2001:db8::6]:8080\"",
            ),
            ("::1:ab", "\"[::1:ab]:8080\""),
            ("[::1]", "\"[::1]:8080\""),
            ("2001:db8:0:0:0:0:0:1:80", "\"[2001:db8:0:0:0:0:0:1]:80\""),
            ("http://10.0.0.1:80/x", "`10.0.0.1:80`"),
            ("10.0.0.256:80", "not an IPv4 address"),
            ("10.0.0.1:65536", "`65536` is not a port"),
            ("10.0.0.1:", "`` is not a port"),
            ("[::1]:x", "`x` is not a port"),
            ("[::g]:80", "`::g` is not an IPv6 address"),
            ("[fe80::1%eth0]:80", "by its number"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("224.0.0.1:80", "many hosts"),
            ("255.255.255.255:80", "many hosts"),
            ("8080", "127.0.0.1:8080"),
            ("", "are due"),
            ("0.0.0.0:80", "no address"),
            ("[::]:80", "no address"),
            ("10.0.0.1:0", "1 to 65535"),
            ("unix:/x", "over TCP"),
        ] {
            let Err(error) = backend(text) else { panic!("{text:?} was accepted") };
            assert!(error.contains(said), "{text:?}: {error}");
        }
        for (text, said) in
            [("*:80", "0.0.0.0:80"), (":80", "0.0.0.0:80"), ("/run/x", "unix:/run/x"), ("unix:x", "begin with /")]
        {
            let Err(error) = listen(text) else { panic!("{text:?} was accepted") };
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
