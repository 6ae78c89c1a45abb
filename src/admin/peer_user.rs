//! Who asks: the user at the other end of the Unix socket, by the kernel's word (unix(7), SO_PEERCRED).

use tokio::net::UnixStream;

/// The user's name, or `uid 1000` where the system has none for it.
pub(super) fn of(stream: &UnixStream) -> String {
    match stream.peer_cred() {
        Ok(credentials) => name(credentials.uid()),
        Err(_) => "somebody".to_owned(),
    }
}

fn name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(&users, uid).unwrap_or_else(|| format!("uid {uid}"))
}

/// The user's name in a text of passwd(5).
fn named(users: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nops:x:1000:1000::/home/ops:/bin/sh\n";
        assert_eq!(named(users, 1000).as_deref(), Some("ops"));
        assert_eq!(named(users, 0).as_deref(), Some("root"));
        assert_eq!(named(users, 7), None);
    }
}
