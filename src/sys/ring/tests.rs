//! OperationKind a ring may do, and what not.

use std::os::fd::AsFd;

use super::*;

#[test]
fn a_ring_does_nothing_but_what_it_is_for() {
    for features in [Features::NONE, Features::probe(Features::ALL).unwrap()] {
        let mut ring = Ring::new(features).unwrap();
        let mut outcome = |entry: Entry| {
            ring.push(7, entry);
            let mut completions = Vec::new();
            ring.wait(Some(Duration::from_secs(5)), &mut completions).unwrap();
            assert_eq!(completions.len(), 1);
            completions[0].result()
        };
        let path = c"/etc/hostname";
        let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build();
        assert_eq!(outcome(open), Err(Errno::ACCESS), "a file can be opened");
        assert_eq!(outcome(opcode::Nop::new().build()), Err(Errno::ACCESS));
        assert_eq!(outcome(opcode::AsyncCancel::new(1).build().flags(Flags::IO_LINK)), Err(Errno::ACCESS));
        // OperationKind it is for is allowed, if without effect here.
        assert_eq!(outcome(opcode::AsyncCancel::new(1).build()), Err(Errno::NOENT));
        let widened = ring.ring.submitter().register_restrictions(&mut [Restriction::sqe_op(opcode::OpenAt::CODE)]);
        assert!(widened.is_err(), "what is confined can be let free");
    }
}

#[test]
fn only_an_accept_brings_a_descriptor_whatever_its_token() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ring = Ring::new(Features::NONE).unwrap();
    let next = |ring: &mut Ring| {
        let mut completions = Vec::new();
        ring.wait(Some(Duration::from_secs(5)), &mut completions).unwrap();
        completions.pop().unwrap()
    };
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // Its result is an event mask, which is the number of some descriptor of this process.
    ring.poll(ACCEPT, listener.as_fd(), Readiness::Readable);
    let completion = next(&mut ring);
    assert_eq!((completion.result(), completion.token()), (Ok(libc::POLLIN as u32), 0));
    assert_eq!(completion.accepted().unwrap_err(), Errno::INVAL);
    ring.accept(0, listener.as_fd(), false);
    let completion = next(&mut ring);
    assert_eq!(completion.token(), ACCEPT);
    let accepted = std::net::TcpStream::from(completion.accepted().unwrap());
    assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
}

#[test]
fn a_refusal_names_its_cause_and_the_remedy() {
    for (error, sysctl, words) in [
        (libc::EPERM, "2", ["kernel.io_uring_disabled is 2", "sysctl kernel.io_uring_disabled=0"]),
        (libc::EPERM, "1", ["not in the group kernel.io_uring_group", "add the user to that group"]),
        (libc::EPERM, "0", ["seccomp", "allow io_uring_setup, io_uring_enter and io_uring_register"]),
        // Before Linux 6.6 there is no such setting, and the package's unit hides it.
        (libc::EPERM, "", ["sysctl kernel.io_uring_disabled=0", "or a seccomp profile"]),
        (libc::EACCES, "", ["seccomp", "SystemCallFilter"]),
        (libc::ENOSYS, "", ["no io_uring", "Linux 5.15 or later is needed"]),
        (libc::ENOMEM, "0", ["ulimit -l", "LimitMEMLOCK="]),
        (libc::EMFILE, "0", ["ulimit -n", "LimitNOFILE="]),
        (libc::ENFILE, "0", ["Too many open files in system", "fs.file-max"]),
        (libc::EINVAL, "0", ["Invalid argument", "io_uring_setup(2)"]),
    ] {
        let said = Refused::explain(&io::Error::from_raw_os_error(error), sysctl).to_string();
        assert!(said.starts_with("the kernel refuses io_uring: "), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{error} with {sysctl:?}: {said}");
    }
}
