//! The administration interface's section.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::file::Reader;
use super::report::did_you_mean;
use super::sections;
use super::tree::{Node, Value, quoted};
use super::{Listen, address};

/// The longest name that DNS has, without its last dot: RFC 1035, 2.3.4.
const LONGEST_NAME: usize = 253;
/// The longest part of one.
const LONGEST_LABEL: usize = 63;

/// The administration interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admin {
    /// The Unix socket.
    pub socket: AdminSocket,
    /// The TCP address of the read-only part; `None`: there is none. Port 0 asks the kernel for a free one.
    pub http: Option<SocketAddr>,
    /// Names under which that may be asked, beside addresses and `localhost`: in lower case, without a last dot.
    pub hosts: Vec<String>,
}

/// Where the interface's Unix socket is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdminSocket {
    /// In the place that follows from the user and the service manager.
    #[default]
    Default,
    /// At this absolute path.
    At(PathBuf),
    /// Nowhere.
    None,
}

impl AdminSocket {
    /// The path, where the file names one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::At(path) => Some(path),
            Self::Default | Self::None => None,
        }
    }
}

impl Reader<'_> {
    pub(super) fn admin(&mut self, node: Option<&Node>) -> Admin {
        let Some(node) = node else { return Admin::default() };
        let section = self.section(node, &sections::ADMIN);
        let socket = section.get("socket").and_then(|node| {
            let socket = self.parsed(node, "the path of a Unix socket, or `none`, is due here", socket)?;
            socket.path().into_iter().for_each(|path| {
                self.take(&Listen::Unix(path.to_owned()), "the admin socket", node.used);
            });
            Some(socket)
        });
        let http = section.get("http").and_then(|node| {
            let address =
                self.parsed(node, "an address and a port are due here, such as 127.0.0.1:9900", address::tcp)?;
            self.take(&Listen::Tcp(address), "`admin.http`", node.used);
            Some(address)
        });
        let hosts = section.get("hosts").map_or_else(Vec::new, |node| self.hosts(node));
        Admin { socket: socket.unwrap_or_default(), http, hosts }
    }

    /// One name or a list of them.
    fn hosts(&mut self, node: &Node) -> Vec<String> {
        let nodes = match &node.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let due = "a host's name, or a list of names, is due here, such as lb.example.com";
        nodes.iter().filter_map(|node| self.parsed(node, due, host)).collect()
    }
}

fn socket(text: &str) -> Result<AdminSocket, String> {
    match text {
        "none" => Ok(AdminSocket::None),
        path if path.starts_with('/') => address::unix_path(path).map(AdminSocket::At),
        other => {
            let hint = did_you_mean(other, ["none"]);
            Err(format!("{} is not a place for the admin socket: write a path from /, or none{hint}", quoted(other)))
        }
    }
}

/// Reads a host's name; the error says what is wrong with the text.
fn host(text: &str) -> Result<String, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "{} is an address: `http` answers under any address, only names are due here",
            quoted(text)
        ));
    }
    if text.contains('*') {
        return Err(format!("{} is no name: each name is written in full", quoted(text)));
    }
    if text.contains(['/', ':']) {
        return Err(format!("{} is more than a name: leave scheme, port and path away", quoted(text)));
    }
    if !text.is_ascii() {
        return Err(format!(
            "{} is not as clients send it: write its form in ASCII, which begins with xn--",
            quoted(text)
        ));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(allowed);
    if name.len() <= LONGEST_NAME && name.split('.').all(label) {
        Ok(name)
    } else {
        Err(format!("{} is not the name of a host, such as lb.example.com", quoted(text)))
    }
}
