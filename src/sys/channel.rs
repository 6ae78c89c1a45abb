//! A channel between two processes of this program: packets that carry descriptors (`SCM_RIGHTS`, unix(7)).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The longest packet, in bytes.
const LONGEST: usize = 16 << 10;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Descriptors that one packet can carry. The kernel's limit is 253.
    pub const MOST: usize = 128;

    /// An end to keep, and one to give to another process as its standard input.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(own), other))
    }

    /// The end that this process was given as its standard input, which is empty from now on.
    ///
    /// # Errors
    /// Standard input is no such channel.
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        if socket_type(stdin)? != SocketType::SEQPACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "standard input is not a channel"));
        }
        let own = stdin.try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self(own))
    }

    /// Sends one packet, with at most [`Channel::MOST`] descriptors.
    ///
    /// # Errors
    /// The other end is gone, or the packet is too long.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Self::MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if bytes.len() > LONGEST
            || descriptors.len() > Self::MOST
            || !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet is too long"));
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next packet and its descriptors; `None`: the other end is gone.
    ///
    /// # Errors
    /// None comes in time (`EAGAIN`), or no descriptor is left.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Self::MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; LONGEST];
        let got = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                got => break got?,
            }
        };
        bytes.truncate(got.bytes);
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if got.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
            return Err(io::Error::other("not every descriptor has arrived: are there enough left?"));
        }
        Ok((got.bytes > 0).then_some((bytes, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn packets_keep_their_bounds_and_bring_their_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let other = Channel(other);
        let file = File::open("/proc/self/comm").unwrap();
        one.send(b"first", &[file.as_fd(); Channel::MOST]).unwrap();
        one.send(b"second", &[]).unwrap();
        let (bytes, mut descriptors) = other.receive(SOON).unwrap().unwrap();
        assert_eq!((&*bytes, descriptors.len()), (&b"first"[..], Channel::MOST));
        let mut text = String::new();
        File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        assert_eq!(other.receive(SOON).unwrap().unwrap().0, b"second");
        assert_eq!(other.receive(SOON).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(other.receive(SOON).unwrap().is_none());
        assert!(other.send(b"nobody hears", &[]).is_err());
    }

    #[test]
    fn what_does_not_fit_a_packet_is_an_error() {
        let (one, _other) = Channel::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        assert!(one.send(b"x", &[file.as_fd(); Channel::MOST + 1]).is_err());
        assert!(one.send(&[0; LONGEST + 1], &[]).is_err());
    }
}
