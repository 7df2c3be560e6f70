//! The WebSocket link: frames in, frames out, and how it ended, on tokio-tungstenite.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{FutureExt, Sink, SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{self, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message as WsMessage, error::ProtocolError};

use super::io::Io;
use super::link::Incoming;
use super::tcp::os_words;
use super::tcp_info::tcp_info;
use super::tls;
use crate::proto::close::{CloseFrame, Ending};
use crate::proto::event::{Message, TcpInfo};

/// Allocated at once and zero-filled at each read, so it is sized for what idle connections carry,
/// pongs. Larger frames get room of their own; system calls are saved below, by `Io`.
const READ_BUFFER: usize = 64;

/// One WebSocket connection after its upgrade.
#[derive(Debug)]
pub(crate) struct WsLink {
    ws: WebSocketStream<Io>,
    /// A pong is queued and not yet handed to the operating system. Until it is, nothing more is
    /// read: a peer that pings and takes no bytes would fill our memory with pongs.
    owes_pong: bool,
}

impl WsLink {
    /// The client's end. `early` is what came along with the 101.
    pub(crate) fn client(io: Io, early: &[u8], max_message_size: usize) -> Self {
        Self::new(io, early, Role::Client, max_message_size)
    }

    /// The server's end. `early` is what came along with the request.
    pub(crate) fn server(io: Io, early: &[u8], max_message_size: usize) -> Self {
        Self::new(io, early, Role::Server, max_message_size)
    }

    fn new(io: Io, early: &[u8], role: Role, max_message_size: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            // Every frame is written when it is sent.
            .write_buffer_size(0)
            .max_message_size(Some(max_message_size))
            .max_frame_size(Some(max_message_size));
        // `from_partially_read` is only async for its waker: it is ready at the first poll.
        let ws = WebSocketStream::from_partially_read(io, early.to_vec(), role, Some(config))
            .now_or_never()
            .expect("wrapping a stream does not wait");
        Self {
            ws,
            owes_pong: false,
        }
    }

    /// Our address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.ws.get_ref().local_addr()
    }

    /// What the kernel knows of the connection at this moment.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        self.ws.get_ref().tcp_stream().and_then(tcp_info)
    }

    /// The next frame that means something. Cancel safe.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Ending>> {
        if self.owes_pong {
            ready!(self.ws.poll_flush_unpin(cx)).map_err(ending)?;
            self.owes_pong = false;
        }
        loop {
            let message = match ready!(self.ws.poll_next_unpin(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Err(ending(error))),
                None => return Poll::Ready(Err(Ending::Fin)),
            };
            return Poll::Ready(Ok(match message {
                WsMessage::Ping(_) => {
                    self.owes_pong = true;
                    Incoming::Ping
                }
                WsMessage::Pong(payload) => Incoming::Pong(payload),
                WsMessage::Text(text) => Incoming::Message(Message::from_parts(text.into(), true)),
                WsMessage::Binary(bytes) => Incoming::Message(Message::from_parts(bytes, false)),
                WsMessage::Close(Some(frame)) if is_substitute(&frame) => {
                    let error = "a Close with a code that no endpoint may send";
                    return Poll::Ready(Err(protocol_ending(1002, error)));
                }
                WsMessage::Close(frame) => Incoming::Close(close_frame(frame)),
                // Only ever written, never read.
                WsMessage::Frame(_) => continue,
            }));
        }
    }

    /// Queues a ping; [`Self::flush`] sends it.
    pub(crate) fn start_ping(&mut self, payload: [u8; 8]) -> Result<(), Ending> {
        self.start(WsMessage::Ping(Bytes::copy_from_slice(&payload)))
    }

    /// Queues a data message; [`Self::flush`] sends it.
    pub(crate) fn start_message(&mut self, message: Message) -> Result<(), Ending> {
        self.start(match message.into_parts() {
            (bytes, true) => match bytes.try_into() {
                Ok(text) => WsMessage::Text(text),
                Err(_) => return Err(protocol_ending(1007, "text that is not UTF-8")),
            },
            (bytes, false) => WsMessage::Binary(bytes),
        })
    }

    /// Queues a Close; [`Self::flush`] sends it, and `recv` waits for the reply.
    pub(crate) fn start_close(&mut self, frame: &CloseFrame) -> Result<(), Ending> {
        self.start(WsMessage::Close(Some(protocol::CloseFrame {
            code: CloseCode::from(frame.code),
            reason: frame.reason.as_ref().into(),
        })))
    }

    /// Tries once to send a Close, waiting for nothing; whether it left.
    pub(crate) fn try_close(&mut self, frame: &CloseFrame) -> bool {
        let flushed = |link: &mut Self| matches!(link.flush().now_or_never(), Some(Ok(())));
        self.start_close(frame).is_ok() && flushed(self)
    }

    /// Hands what is queued to the operating system. Cancel safe, and without a deadline of its
    /// own.
    pub(crate) async fn flush(&mut self) -> Result<(), Ending> {
        self.ws.flush().await.map_err(ending)
    }

    /// The queue has no bound of its own and needs none: the one writer flushes each frame before
    /// the next, and no ping is read while a pong is owed.
    fn start(&mut self, message: WsMessage) -> Result<(), Ending> {
        Pin::new(&mut self.ws).start_send(message).map_err(ending)
    }
}

/// For a code that must not be sent (RFC 6455 section 7.4) tungstenite puts this in its place, and
/// does not tell which it was.
fn is_substitute(frame: &protocol::CloseFrame) -> bool {
    frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation"
}

fn close_frame(frame: Option<protocol::CloseFrame>) -> CloseFrame {
    match frame {
        Some(frame) => CloseFrame::new(frame.code.into(), &frame.reason),
        None => CloseFrame::new(1005, ""),
    }
}

fn protocol_ending(code: u16, error: impl ToString) -> Ending {
    Ending::Protocol {
        code,
        error: error.to_string(),
    }
}

/// What an error of tungstenite's says about how the connection ended.
fn ending(error: Error) -> Ending {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ending::Fin,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Fin,
        Error::Protocol(error) => protocol_ending(1002, error),
        Error::Utf8(error) => protocol_ending(1007, format!("text that is not UTF-8: {error}")),
        Error::Capacity(error) => Ending::TooBig(error.to_string()),
        Error::Io(error) => io_ending(&error),
        // A write buffer without limit is never full, and the rest belong to handshakes.
        Error::WriteBufferFull(_)
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_)
        | Error::Tls(_)
        | Error::AttackAttempt => protocol_ending(1002, error),
    }
}

/// What an error of the stream below says about how the connection ended.
pub(super) fn io_ending(error: &io::Error) -> Ending {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return Ending::Tls {
            by_peer: tls::is_alert(error),
            error: tls::of_error(error),
        };
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => Ending::Fin,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Ending::Reset
        }
        ErrorKind::TimedOut => Ending::TimedOut,
        _ => Ending::LocalNetwork(os_words(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::AlertDescription;

    #[test]
    fn an_error_of_tls_is_told_from_one_of_the_network() {
        let of = |error| ending(Error::Io(io::Error::new(ErrorKind::InvalidData, error)));
        let alert = rustls::Error::AlertReceived(AlertDescription::InternalError);
        let expected = Ending::Tls {
            by_peer: true,
            error: "alert internal_error".to_owned(),
        };
        assert_eq!(of(alert), expected);
        let damaged = of(rustls::Error::DecryptError);
        assert!(matches!(damaged, Ending::Tls { by_peer: false, .. }));
        let unacknowledged = ending(Error::Io(ErrorKind::TimedOut.into()));
        assert_eq!(unacknowledged, Ending::TimedOut);
        // A stream cut without a close_notify.
        let cut = ending(Error::Io(ErrorKind::UnexpectedEof.into()));
        assert_eq!(cut, Ending::Fin);
    }
}
