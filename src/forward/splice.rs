//! One splice turn: from socket to socket through a pipe, up to a budget.

use std::os::fd::BorrowedFd;

use super::flow::SpliceEnd;
use crate::sys::pipe::Pipe;
use crate::sys::{Errno, socket};

/// Bytes after which others have their turn.
const BUDGET: usize = 1 << 20;
/// After a fill smaller than this the source is probably empty: a poll finds out more cheaply than another splice.
const WORTH_ANOTHER: usize = 64 * 1024;

/// Moves up to the budget. Answers the bytes that the sink took, and what ended the turn.
pub(super) fn turn(source: BorrowedFd<'_>, pipe: &mut Pipe, sink: BorrowedFd<'_>) -> (usize, SpliceEnd) {
    let mut delivered = 0;
    loop {
        let mut filled = usize::MAX;
        // Filled only when it is empty: then "try again" can mean nothing but an empty socket, never a lack of slots.
        if pipe.filled() == 0 {
            filled = match pipe.fill(source) {
                // It may hide a reset.
                Ok(0) if socket::take_error(source).is_ok() => return (delivered, SpliceEnd::End),
                Ok(0) => return (delivered, SpliceEnd::SourceBroken),
                Ok(filled) => filled,
                Err(Errno::AGAIN) => return (delivered, SpliceEnd::Drained),
                // The socket cannot be spliced from.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOMEM) => {
                    return (delivered, SpliceEnd::NoPipe);
                }
                Err(_) => return (delivered, SpliceEnd::SourceBroken),
            };
        }
        match pipe.empty(sink) {
            Ok(0) => return (delivered, SpliceEnd::SinkBroken),
            Ok(bytes) => delivered += bytes,
            Err(Errno::AGAIN | Errno::NOMEM) => return (delivered, SpliceEnd::SinkFull),
            Err(_) => return (delivered, SpliceEnd::SinkBroken),
        }
        if pipe.filled() == 0 && (filled < WORTH_ANOTHER || delivered >= BUDGET) {
            return (delivered, SpliceEnd::Drained);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    /// Two ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let other = listener.accept().unwrap().0;
        for stream in [&one, &other] {
            stream.set_nonblocking(true).unwrap();
        }
        (one, other)
    }

    #[test]
    fn a_reset_right_behind_the_end_is_not_hidden_by_it() {
        let ((sender, source), (sink, _receiver)) = (connection(), connection());
        let mut pipe = Pipe::new(true).unwrap();
        socket::finish(sender.as_fd()).unwrap();
        socket::reset(sender.as_fd());
        // The kernel says the end first, and keeps the error.
        assert_eq!(turn(source.as_fd(), &mut pipe, sink.as_fd()), (0, SpliceEnd::SourceBroken));
    }

    #[test]
    fn an_end_without_a_reset_is_an_end() {
        let ((sender, source), (sink, _receiver)) = (connection(), connection());
        socket::finish(sender.as_fd()).unwrap();
        let mut pipe = Pipe::new(true).unwrap();
        assert_eq!(turn(source.as_fd(), &mut pipe, sink.as_fd()), (0, SpliceEnd::End));
    }

    #[test]
    fn a_turn_ends_at_its_budget_however_much_the_source_has() {
        let ((mut sender, source), (sink, mut receiver)) = (connection(), connection());
        let mut pipe = Pipe::new(true).unwrap();
        let (mut most, mut all) = (0, 0);
        for _ in 0..50 {
            while sender.write(&[0; 1 << 16]).is_ok_and(|count| count > 0) {}
            let (moved, _) = turn(source.as_fd(), &mut pipe, sink.as_fd());
            most = most.max(moved);
            all += moved;
            let mut buffer = vec![0; 1 << 20];
            while receiver.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
        // The last fill may go beyond it. Without a budget the kernel's queues alone give some megabytes.
        assert!(most < 2 << 20, "{most} bytes in one turn");
        assert!(all > 10 << 20, "{all} bytes in all: the source was never full");
    }
}
