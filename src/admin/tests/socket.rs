//! The socket in the file system.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::{Server, start, still_works, view};
use crate::admin::BindError;

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_its_server() {
    let running = start(view(&["web"], &["web-01"]));
    assert_eq!(fs::metadata(&running.path).unwrap().permissions().mode() & 0o7777, 0o660);
    let directory = running.path.parent().unwrap();
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o700, 0o700);
    drop(running.serving);
    assert!(!running.path.exists());
}

#[test]
fn a_socket_that_another_has_put_in_its_place_is_left_alone() {
    let running = start(view(&["web"], &["web-01"]));
    // Kept, so that its inode is not given to the next one.
    fs::rename(&running.path, running.path.with_extension("old")).unwrap();
    let _other = UnixListener::bind(&running.path).unwrap();
    drop(running.serving);
    assert!(running.path.exists());
}

#[test]
fn a_live_socket_is_an_error_that_names_its_process() {
    let running = start(view(&["web"], &["web-01"]));
    let error = Server::bind(&running.path).unwrap_err();
    assert!(matches!(error, BindError::Live { pid, .. } if pid == std::process::id() as i32), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    still_works(&running.path);
}

#[test]
fn a_dead_processs_socket_is_replaced_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let server = Server::bind(&path).unwrap();
    let mut serving = server.serve(view(&["web"], &["web-01"]), crate::messages::admin_requests().0).unwrap();
    serving.begin();
    still_works(&path);
    drop(serving);

    fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path).unwrap_err(), BindError::NotASocket(_)));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let long = directory.path().join("x".repeat(200));
    assert!(matches!(Server::bind(&long).unwrap_err(), BindError::System { .. }));
}
