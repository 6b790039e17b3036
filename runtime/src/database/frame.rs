//! Frames: a message as bytes behind its length, and the descriptors that a new process is given.
//!
//! What comes from a database process is decoded with care: that process may have been taken over.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a frame's length.
const HEAD_BYTES: usize = size_of::<u32>();

/// Largest frame: the rows of one statement, or its parameters, several times over.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What a connection keeps between two frames, and reads at once.
const KEPT_BYTES: usize = 16 << 10;

/// Writes a message as a frame over what the buffer held.
pub(super) fn encode(message: &impl Serialize, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = std::mem::take(frame);
    bytes.clear();
    bytes.shrink_to(KEPT_BYTES);
    bytes.extend_from_slice(&[0; HEAD_BYTES]);
    let mut bytes = postcard::to_extend(message, bytes).map_err(invalid)?;
    let length = bytes.len() - HEAD_BYTES;
    let head = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX);
    let head = head.ok_or_else(|| invalid(format!("a message of {length} bytes")))?;
    if let Some(place) = bytes.first_chunk_mut() {
        *place = head.to_le_bytes();
    }
    *frame = bytes;
    Ok(())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// A frame as it arrives. There is never more than one on its way.
pub(super) struct Incoming {
    buffer: Vec<u8>,
    filled: usize,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { buffer: vec![0; KEPT_BYTES], filled: 0 }
    }
}

impl Incoming {
    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes note of bytes that were read into the room; the message, when it is whole.
    ///
    /// # Errors
    /// When there were none, or they make no message.
    pub(super) fn filled<T: DeserializeOwned>(&mut self, bytes: usize) -> io::Result<Option<T>> {
        if bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.filled += bytes;
        let Some((head, _)) = self.buffer.split_first_chunk().filter(|_| self.filled >= HEAD_BYTES) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        let end = HEAD_BYTES + length;
        if self.filled < end {
            self.buffer.resize(end.max(self.buffer.len()), 0);
            return Ok(None);
        }
        let message = self.buffer.get(HEAD_BYTES..end).unwrap_or_default();
        let message = postcard::from_bytes(message).map_err(invalid)?;
        self.filled = 0;
        self.buffer.truncate(KEPT_BYTES);
        self.buffer.shrink_to(KEPT_BYTES);
        Ok(Some(message))
    }
}

/// Hands a descriptor to the process at the other end of a socket.
pub(super) fn send_descriptor(socket: impl AsFd, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes a descriptor that was handed over.
pub(super) fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| invalid("no descriptor was handed over"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(frame: &[u8], at_once: usize) -> io::Result<Option<String>> {
        let mut incoming = Incoming::default();
        let mut left = frame;
        while !left.is_empty() {
            let room = incoming.room();
            let bytes = room.len().min(at_once).min(left.len());
            let (now, later) = left.split_at(bytes);
            if let Some(place) = room.get_mut(..bytes) {
                place.copy_from_slice(now);
            }
            left = later;
            if let Some(message) = incoming.filled(bytes)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_message_arrives_in_any_pieces() -> io::Result<()> {
        for length in [0, 1, 100, KEPT_BYTES, 1 << 20] {
            let message = "x".repeat(length);
            let mut frame = b"what was there before".to_vec();
            encode(&message, &mut frame)?;
            for at_once in [1, 3, 1_000, usize::MAX] {
                if length < 1 << 20 || at_once > 3 {
                    assert_eq!(arrive(&frame, at_once)?, Some(message.clone()));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(arrive(&u32::MAX.to_le_bytes(), 4).is_err());
        assert!(arrive(&[1, 0, 0, 0, 0xff], 5).is_err());
        assert!(Incoming::default().filled::<String>(0).is_err());
    }

    #[test]
    fn a_descriptor_is_handed_over() -> Result<(), Box<dyn std::error::Error>> {
        use std::io::{Read as _, Write as _};
        use std::os::unix::net::UnixStream;
        let (one, other) = UnixStream::pair()?;
        let (mut near, far) = UnixStream::pair()?;
        send_descriptor(&one, far.as_fd())?;
        drop(far);
        let mut far = UnixStream::from(receive_descriptor(&other)?);
        near.write_all(b"hello")?;
        let mut read = [0; 5];
        far.read_exact(&mut read)?;
        assert_eq!(&read, b"hello");
        drop(one);
        assert!(receive_descriptor(&other).is_err());
        Ok(())
    }
}
