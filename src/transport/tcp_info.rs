//! What the kernel knows of a TCP connection: Linux's TCP_INFO, see tcp(7).
//!
//! Beside `crate::memory` and `crate::systemd` the one module that may hold `unsafe` code: no crate of ours wraps this
//! option safely.
#![allow(unsafe_code)]

use tokio::net::TcpStream;

use crate::proto::event::TcpInfo;

/// What the kernel tells of `stream` at this moment; `None` where it does not tell. One system
/// call that never waits. Of a connection that was reset it still has what it measured.
#[cfg(target_os = "linux")]
pub(crate) fn tcp_info(stream: &TcpStream) -> Option<TcpInfo> {
    use std::os::fd::AsRawFd;

    let mut raw = [0_u8; size_of::<libc::tcp_info>()];
    let mut length = libc::socklen_t::try_from(raw.len()).ok()?;
    // SAFETY: the descriptor is open as long as `stream` is borrowed; the kernel writes at most
    // `length` bytes, all of them inside `raw`, and how many they were into `length`.
    let status = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            raw.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match status {
        0 => linux::read(raw.get(..usize::try_from(length).ok()?)?),
        // Evidence is a bonus: the end of a connection is told without it.
        _ => None,
    }
}

/// Other systems have something else or nothing of the kind.
#[cfg(not(target_os = "linux"))]
pub(crate) fn tcp_info(_stream: &TcpStream) -> Option<TcpInfo> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::offset_of;
    use std::time::Duration;

    use super::TcpInfo;

    /// What `told` says: as much of a `struct tcp_info` as the kernel has; older ones have less.
    pub(super) fn read(told: &[u8]) -> Option<TcpInfo> {
        let number = |offset: usize| {
            let bytes = told.get(offset..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let micros = |offset| Some(Duration::from_micros(number(offset)?.into()));
        Some(TcpInfo {
            state: state(*told.get(offset_of!(libc::tcp_info, tcpi_state))?),
            rtt: micros(offset_of!(libc::tcp_info, tcpi_rtt))?,
            rtt_variation: micros(offset_of!(libc::tcp_info, tcpi_rttvar))?,
            retransmits: number(offset_of!(libc::tcp_info, tcpi_total_retrans))?,
            unacked: number(offset_of!(libc::tcp_info, tcpi_unacked))?,
        })
    }

    /// The states of linux/net/tcp_states.h in the words of ss(8).
    fn state(number: u8) -> &'static str {
        match number {
            1 => "ESTAB",
            2 => "SYN-SENT",
            3 => "SYN-RECV",
            4 => "FIN-WAIT-1",
            5 => "FIN-WAIT-2",
            6 => "TIME-WAIT",
            // A connection that was reset, too.
            7 => "UNCONN",
            8 => "CLOSE-WAIT",
            9 => "LAST-ACK",
            10 => "LISTEN",
            11 => "CLOSING",
            _ => "UNKNOWN",
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_that_stands_and_its_end_are_told_as_ss_says_them() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"hello").await.unwrap();
        near.read_exact(&mut [0; 5]).await.unwrap();
        let info = tcp_info(&near).unwrap();
        assert_eq!((info.state, info.unacked), ("ESTAB", 0), "{info:?}");
        assert!(info.rtt > Duration::ZERO, "{info:?}");
        assert!(info.rtt < Duration::from_secs(1), "{info:?}");

        drop(far);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(tcp_info(&near).unwrap().state, "CLOSE-WAIT");
    }

    #[tokio::test]
    async fn a_connection_that_was_reset_still_has_its_round_trip() {
        let (mut near, far) = pair().await;
        far.set_zero_linger().unwrap();
        drop(far);
        near.read(&mut [0; 1]).await.unwrap_err();
        let info = tcp_info(&near).unwrap();
        assert_eq!(info.state, "UNCONN", "{info:?}");
        assert!(info.rtt > Duration::ZERO, "{info:?}");
    }

    #[test]
    fn a_field_is_read_from_its_place_and_not_beyond_what_was_told() {
        let mut raw = [0_u8; size_of::<libc::tcp_info>()];
        raw[offset_of!(libc::tcp_info, tcpi_state)] = 1;
        for (offset, value) in [
            (offset_of!(libc::tcp_info, tcpi_rtt), 1_500_u32),
            (offset_of!(libc::tcp_info, tcpi_rttvar), 700),
            (offset_of!(libc::tcp_info, tcpi_total_retrans), 5),
            (offset_of!(libc::tcp_info, tcpi_unacked), 3),
        ] {
            raw[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let told = TcpInfo {
            state: "ESTAB",
            rtt: Duration::from_micros(1_500),
            rtt_variation: Duration::from_micros(700),
            retransmits: 5,
            unacked: 3,
        };
        let last = offset_of!(libc::tcp_info, tcpi_total_retrans) + 4;
        assert_eq!(linux::read(&raw), Some(told));
        assert_eq!(linux::read(&raw[..last]), Some(told));
        assert_eq!(linux::read(&raw[..last - 1]), None);
        assert_eq!(linux::read(&[]), None);
    }
}
