//! Under which name a request asks. A page of somebody else's in an operator's browser may ask here by a name of its own that DNS
//! leads here (DNS rebinding): such a request has that name as its `Host`, which a page cannot change.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode, Version};

/// Names that are answered beside addresses and `localhost`: in lower case, without a last dot.
pub(super) type Hosts = std::sync::Arc<[String]>;

/// Whether a request asks under a name that is answered: the `Host`, and the target where that names a host, too. HTTP/1.0 needs no
/// `Host`, and health checks send none; browsers always send one.
///
/// # Errors
/// The status to answer with: why, and what to do.
pub(super) fn check<B>(request: &Request<B>, hosts: &[String]) -> Result<(), (StatusCode, String)> {
    let mut headers = request.headers().get_all(HOST).iter();
    let header = headers.next();
    // RFC 9112, 3.2: one header, which HTTP/1.1 must have.
    if headers.next().is_some() {
        return Err((StatusCode::BAD_REQUEST, "the request has more than one Host header: send one".to_owned()));
    }
    if header.is_none() && request.version() > Version::HTTP_10 {
        return Err((
            StatusCode::BAD_REQUEST,
            "the request has no Host header, which HTTP/1.1 needs: send one".to_owned(),
        ));
    }
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    match target.into_iter().chain(header.map(HeaderValue::as_bytes)).find(|host| !is_answered(host, hosts)) {
        None => Ok(()),
        Some(host) => {
            let host = host.escape_ascii();
            let why = format!(
                "this listener is not asked as \"{host}\": ask by an address or as localhost, or add the name to `admin.hosts` of the configuration"
            );
            Err((StatusCode::MISDIRECTED_REQUEST, why))
        }
    }
}

/// Whether this `host:port` is answered; the port may be any, as others may pass it on from another one.
fn is_answered(host: &[u8], hosts: &[String]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        // The zone of a link-local address means nothing here: RFC 6874.
        let address = address.split('%').next().unwrap_or_default();
        return is_port(port) && address.parse::<Ipv6Addr>().is_ok();
    }
    let end = host.find(':').unwrap_or(host.len());
    let (name, port) = host.split_at(end);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    is_port(port) && (name == "localhost" || name.parse::<Ipv4Addr>().is_ok() || hosts.contains(&name))
}

/// Nothing, or a colon and digits: RFC 3986, 3.2.3.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_listed_names_are_answered_with_any_port() {
        let hosts = ["lb.example.com".to_owned()];
        let answered = |host: &str| is_answered(host.as_bytes(), &hosts);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "10.0.0.1.",
            "[::1]",
            "[::1]:9900",
            "[fe80::1%25eth0]:1",
            "[::ffff:10.0.0.1]",
            "localhost",
            "LocalHost:80",
            "localhost.",
            "localhost.:80",
            "localhost:",
            "LB.example.com",
            "lb.example.com.:9900",
        ] {
            assert!(answered(host), "{host}");
        }
        for host in [
            "",
            ":80",
            ".",
            "evil.example",
            "lb.example.com.evil.example",
            "xlb.example.com",
            "localhost..",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a.localhost",
            "user@localhost",
            "localhost@evil.example",
            "localhost:80:80",
            "localhost:http",
            "localhost/",
            "::1",
            "[::1",
            "[::1]x",
            "[evil.example]",
            "[127.0.0.1]",
            "127.1",
            "0x7f000001",
            "2130706433",
            " localhost",
        ] {
            assert!(!answered(host), "{host}");
        }
        assert!(!is_answered(b"localhost\xff", &hosts));
    }
}
