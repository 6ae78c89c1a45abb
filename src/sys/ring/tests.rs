//! What a ring may do, and what not.

use super::*;

#[test]
fn a_ring_does_nothing_but_what_it_is_for() {
    for features in [Features::NONE, Features::probe(Features::ALL).unwrap()] {
        let mut ring = Ring::new(features).unwrap();
        let mut outcome = |entry: Entry| {
            ring.push(entry.user_data(7));
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
        // What it is for is allowed, if without effect here.
        assert_eq!(outcome(opcode::AsyncCancel::new(1).build()), Err(Errno::NOENT));
        let widened = ring.ring.submitter().register_restrictions(&mut [Restriction::sqe_op(opcode::OpenAt::CODE)]);
        assert!(widened.is_err(), "what is confined can be let free");
    }
}
