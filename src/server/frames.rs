//! Frames of RFC 6455 as the server's end sees them, for connections whose answers are not to be
//! those of the session's link. Pure.

use std::io::Cursor;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::proto::close::CloseFrame;
use crate::proto::event::Message;

/// Payload of a control frame (RFC 6455 section 5.5).
const LARGEST_CONTROL: u64 = 125;

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    Ping(Bytes),
    Pong,
    Message(Message),
    Close(CloseFrame),
}

/// Takes frames out of bytes, and puts fragments together.
#[derive(Debug)]
pub(super) struct Frames {
    max_message_size: usize,
    /// The message whose last fragment is still to come.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    is_text: bool,
    bytes: BytesMut,
}

impl Frames {
    pub(super) fn new(max_message_size: usize) -> Self {
        let begun = None;
        Self {
            max_message_size,
            begun,
        }
    }

    /// The next of `input`; `None`: it is not all there. The error is the Close that is owed for
    /// what came; nothing can be taken after it.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, CloseFrame> {
        loop {
            let Some((header, payload)) = self.frame(input)? else {
                return Ok(None);
            };
            let message = match header.opcode {
                OpCode::Control(Control::Ping) => {
                    return Ok(Some(Incoming::Ping(payload.freeze())));
                }
                OpCode::Control(Control::Pong) => return Ok(Some(Incoming::Pong)),
                OpCode::Control(Control::Close) => return close(&payload).map(Some),
                OpCode::Data(Data::Text) => self.begin(true, payload)?,
                OpCode::Data(Data::Binary) => self.begin(false, payload)?,
                OpCode::Data(Data::Continue) => {
                    let begun = self.begun.as_mut();
                    let begun = begun.ok_or_else(|| violation("a fragment of no message"))?;
                    begun.bytes.extend_from_slice(&payload);
                    begun
                }
                // The header's parser refuses them.
                OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                    return Err(violation("a reserved opcode"));
                }
            };
            let is_text = message.is_text;
            if header.is_final
                && let Some(begun) = self.begun.take()
            {
                if is_text && std::str::from_utf8(&begun.bytes).is_err() {
                    return Err(CloseFrame::new(1007, "text that is not UTF-8"));
                }
                let message = Message::from_parts(begun.bytes.freeze(), is_text);
                return Ok(Some(Incoming::Message(message)));
            }
        }
    }

    fn begin(&mut self, is_text: bool, bytes: BytesMut) -> Result<&mut Begun, CloseFrame> {
        if self.begun.is_some() {
            return Err(violation("a message within another"));
        }
        Ok(self.begun.insert(Begun { is_text, bytes }))
    }

    /// A whole frame, unmasked, held to the rules of section 5.2.
    fn frame(&self, input: &mut BytesMut) -> Result<Option<(FrameHeader, BytesMut)>, CloseFrame> {
        let mut cursor = Cursor::new(&input[..]);
        let parsed = FrameHeader::parse(&mut cursor);
        let Some((header, length)) = parsed.map_err(|_| violation("a reserved opcode"))? else {
            return Ok(None);
        };
        // A header has 14 bytes at most.
        let head = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(violation("a reserved bit without an extension"));
        }
        let Some(mask) = header.mask else {
            return Err(violation("a frame that is not masked"));
        };
        if matches!(header.opcode, OpCode::Control(_)) {
            if !header.is_final || length > LARGEST_CONTROL {
                return Err(violation("a control frame in fragments or over 125 bytes"));
            }
        } else {
            let before = self.begun.as_ref().map_or(0, |begun| begun.bytes.len());
            let room = self.max_message_size.saturating_sub(before);
            if usize::try_from(length).map_or(true, |length| length > room) {
                let max = self.max_message_size;
                let reason = format!("a message of more than {max} bytes");
                return Err(CloseFrame::new(1009, &reason));
            }
        }
        // Held to `max_message_size` or 125 above.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if input.len() - head < length {
            return Ok(None);
        }
        input.advance(head);
        let mut payload = input.split_to(length);
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Ok(Some((header, payload)))
    }
}

/// Writes an unmasked frame, a whole message or a control frame, into `output`.
pub(super) fn put(output: &mut BytesMut, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    header
        .format(payload.len() as u64, &mut output.writer())
        .expect("writing into memory does not fail");
    output.extend_from_slice(payload);
}

pub(super) fn put_message(output: &mut BytesMut, message: &Message) {
    let kind = if message.is_text() {
        Data::Text
    } else {
        Data::Binary
    };
    put(output, OpCode::Data(kind), message.as_bytes());
}

pub(super) fn put_pong(output: &mut BytesMut, payload: &[u8]) {
    put(output, OpCode::Control(Control::Pong), payload);
}

/// A Close; of 1005, which stands for none, the frame has no code.
pub(super) fn put_close(output: &mut BytesMut, frame: &CloseFrame) {
    let mut payload = Vec::new();
    if frame.code != 1005 {
        payload.extend(frame.code.to_be_bytes());
        payload.extend(frame.reason.as_bytes());
    }
    put(output, OpCode::Control(Control::Close), &payload);
}

fn close(payload: &[u8]) -> Result<Incoming, CloseFrame> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Incoming::Close(CloseFrame::new(1005, ""))),
            _ => Err(violation("a Close with half a code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // RFC 6455 section 7.4: what an endpoint may send.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(violation("a Close with a code that no endpoint may send"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Incoming::Close(CloseFrame::new(code, reason))),
        Err(_) => Err(CloseFrame::new(1007, "a reason that is not UTF-8")),
    }
}

fn violation(what: &str) -> CloseFrame {
    CloseFrame::new(1002, what)
}

#[cfg(test)]
mod tests;
