//! OperationKind a call that failed says of this machine: whether it was short of something, and what to do about it.

use std::io;
use std::net::SocketAddr;

use super::{Errno, address};

/// Whether a socket could not be had or connected for want of something on this machine, so that nobody else is to blame.
/// `EADDRNOTAVAIL` and `EAGAIN` are local ports that have run out: connect(2), ip(7).
pub fn is_local(error: Errno) -> bool {
    matches!(
        error,
        Errno::ADDRNOTAVAIL
            | Errno::ADDRINUSE
            | Errno::AGAIN
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::MFILE
            | Errno::NFILE
    )
}

/// OperationKind helps where a call has failed, whichever it was. OperationKind an error says of one call alone, its caller knows.
pub fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::MFILE => "raise the limit of descriptors (LimitNOFILE= in the unit, ulimit -n)",
        Errno::NFILE => "raise fs.file-max",
        Errno::NOBUFS | Errno::NOMEM => "the machine is short of memory: see free(1), and net.ipv4.tcp_mem in sysctl",
        Errno::PERM | Errno::ACCESS => {
            "a seccomp profile (SystemCallFilter= in the unit, a container's) or SELinux forbids it: allow it there"
        }
        _ => "the kernel's log may say more (journalctl -k)",
    }
}

/// OperationKind helps where a thread or a descriptor cannot be had.
pub fn remedy_at_start(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => "raise the limit of threads and processes (TasksMax= in the unit, ulimit -u)",
        Some(other) => remedy(other),
        None => "the lines above may say more",
    }
}

/// OperationKind helps where this machine cannot listen on a TCP address; `freebind`: where the configuration has that key.
pub fn remedy_of_listening_at(error: &io::Error, address: SocketAddr, freebind: bool) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => address::remedy(address::absence(address), address, freebind),
        _ => remedy_of_listening(error).to_owned(),
    }
}

/// OperationKind helps where something cannot be listened on.
pub fn remedy_of_listening(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "somebody listens there, perhaps another service of this process or a .socket unit of systemd, or a connection has this port: find it with 'ss -tanp', stop it or choose another address"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, and a Unix socket's directory must be writable"
        }
        io::ErrorKind::NotFound => "its directory must exist: create it, or choose another path",
        io::ErrorKind::AlreadyExists => "remove it, or choose another path",
        _ => remedy_at_start(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_for_what_went_wrong() {
        for (error, words) in [
            (Errno::MFILE, "LimitNOFILE="),
            (Errno::NFILE, "fs.file-max"),
            (Errno::NOMEM, "short of memory"),
            (Errno::PERM, "SystemCallFilter="),
            (Errno::ACCESS, "SELinux"),
            (Errno::PROTONOSUPPORT, "journalctl -k"),
        ] {
            let said = remedy(error);
            assert!(said.contains(words), "{error}: {said}");
            assert_eq!(said.contains("memory"), error == Errno::NOMEM, "{error}: {said}");
        }
    }

    #[test]
    fn what_cannot_be_had_or_listened_on_comes_with_what_to_do() {
        for (error, words) in [
            (Errno::AGAIN, "TasksMax="),
            (Errno::MFILE, "ulimit -n"),
            (Errno::PERM, "CAP_NET_BIND_SERVICE"),
            (Errno::ADDRINUSE, "ss -tanp"),
        ] {
            assert!(remedy_of_listening(&error.into()).contains(words), "{error}");
        }
        assert!(remedy_at_start(&Errno::PERM.into()).contains("SystemCallFilter="));
        assert!(remedy_at_start(&io::Error::other("broken")).contains("lines above"));
    }

    #[test]
    fn a_backend_is_blamed_for_what_it_did_alone() {
        for (error, local) in [
            (Errno::CONNREFUSED, false),
            (Errno::HOSTUNREACH, false),
            (Errno::TIMEDOUT, false),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::NFILE, true),
        ] {
            assert_eq!(is_local(error), local, "{error}");
        }
    }
}
