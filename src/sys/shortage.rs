//! What a call that failed says of this machine: whether it was short of something, and what to do about it.

use super::Errno;

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

/// What helps where a call has failed, whichever it was. What an error says of one call alone, its caller knows.
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
