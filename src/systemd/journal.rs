//! The journal's native protocol: an entry is a datagram of fields, by name
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).
//!
//! Not tracing-journald: it sends from the thread that logs, and a journal that takes nothing would
//! hold every ping.

use std::env;
use std::io::{self, IoSlice, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::sys::stat::fstat;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The name this program's entries are found by: `journalctl -t ws-keepalive`.
const IDENTIFIER: &str = "ws-keepalive";

/// syslog's facility for daemons.
const FACILITY: &str = "3";

/// A longer name is dropped by the journal.
const LONGEST_NAME: usize = 64;

/// Names that mean something to the journal or that systemd sets itself
/// (systemd.journal-fields(7)): a field of ours by such a name gets a prefix.
const TAKEN: &[&str] = &[
    "CODE_FILE",
    "CODE_FUNC",
    "CODE_LINE",
    "DOCUMENTATION",
    "ERRNO",
    "INVOCATION_ID",
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "TID",
    "UNIT",
    "USER_INVOCATION_ID",
    "USER_UNIT",
];

/// And names that begin so.
const TAKEN_FAMILIES: &[&str] = &["_", "COREDUMP_", "OBJECT_", "SYSLOG_"];

const PREFIX: &str = "WS_KEEPALIVE_";

/// Whether standard error is a stream to the journal, as `$JOURNAL_STREAM` has it: its device and
/// inode. The variable alone is inherited by whoever has his error output redirected.
pub(crate) fn stderr_is_the_journal() -> bool {
    let Ok(stat) = fstat(io::stderr()) else {
        return false;
    };
    let ours = format!("{}:{}", stat.st_dev, stat.st_ino);
    env::var_os("JOURNAL_STREAM").is_some_and(|stream| stream == *ours)
}

/// A socket to send entries from.
#[derive(Debug)]
pub(crate) struct Journal {
    socket: UnixDatagram,
    address: PathBuf,
}

impl Journal {
    pub(crate) fn open() -> io::Result<Self> {
        Self::at(SOCKET.into())
    }

    fn at(address: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        Ok(Self { socket, address })
    }

    /// Blocks for as long as the journal takes nothing, as a write to standard error would.
    pub(crate) fn send(&self, entry: &Entry) -> io::Result<()> {
        match self.socket.send_to(&entry.0, &self.address) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => self.send_large(entry),
            Err(error) => Err(error),
        }
    }

    /// What is too large for a datagram goes in a sealed memory file, whose descriptor is sent.
    fn send_large(&self, entry: &Entry) -> io::Result<()> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create(c"ws-keepalive-log", flags)?);
        file.write_all(&entry.0)?;
        file.rewind()?;
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals()))?;
        let descriptors = [file.as_raw_fd()];
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&[])],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::empty(),
            Some(&UnixAddr::new(&self.address)?),
        )?;
        Ok(())
    }
}

/// Exactly these: journald refuses a file that has one less, or one more.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// One entry of the journal.
#[derive(Debug)]
pub(crate) struct Entry(Vec<u8>);

impl Entry {
    /// With what every entry has. `priority` is syslog's: 3 for an error, 7 for detail.
    pub(crate) fn new(priority: u8, message: &str) -> Self {
        let mut entry = Self(Vec::with_capacity(1024));
        entry.put("MESSAGE", message);
        entry.put("PRIORITY", &priority.to_string());
        entry.put("SYSLOG_IDENTIFIER", IDENTIFIER);
        entry.put("SYSLOG_FACILITY", FACILITY);
        entry
    }

    /// Adds a field of ours. `name` is a Rust identifier; the journal has it in capitals.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.put(&field_name(name), value);
    }

    fn put(&mut self, name: &str, value: &str) {
        self.0.extend(name.as_bytes());
        if value.contains('\n') {
            // Several lines: the length before them, 64 bits, little endian.
            self.0.push(b'\n');
            self.0.extend((value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend(value.as_bytes());
        self.0.push(b'\n');
    }

    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn field_name(name: &str) -> String {
    let mut name = name.to_ascii_uppercase();
    let is_taken = TAKEN.contains(&name.as_str())
        || TAKEN_FAMILIES.iter().any(|family| name.starts_with(family))
        || name.starts_with(|c: char| c.is_ascii_digit());
    if is_taken {
        name.insert_str(0, PREFIX);
    }
    name.truncate(LONGEST_NAME);
    name
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::os::fd::RawFd;

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    /// One entry as journald takes it, and whether it came in a file.
    fn received(socket: &UnixDatagram) -> (Vec<u8>, bool) {
        let mut buffer = vec![0; 1 << 16];
        let mut space = nix::cmsg_space!(RawFd);
        let (length, file) = {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags);
            let message = message.unwrap();
            let file = message.cmsgs().unwrap().find_map(|message| match message {
                ControlMessageOwned::ScmRights(files) => files.first().copied(),
                _ => None,
            });
            (message.bytes, file)
        };
        let Some(file) = file else {
            buffer.truncate(length);
            return (buffer, false);
        };
        let content = std::fs::read(format!("/proc/self/fd/{file}")).unwrap();
        nix::unistd::close(file).unwrap();
        (content, true)
    }

    #[test]
    fn what_a_datagram_cannot_hold_arrives_whole_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(path).unwrap();
        for (size, in_a_file) in [(100, false), (3 << 20, true)] {
            let entry = Entry::new(3, &"x".repeat(size));
            journal.send(&entry).unwrap();
            assert!(received(&journald) == (entry.0, in_a_file), "{size}");
        }
    }

    #[test]
    fn a_journal_that_is_not_there_is_an_error_and_the_next_entry_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = Journal::at(path.clone()).unwrap();
        let entry = Entry::new(6, "hello");
        assert!(journal.send(&entry).is_err());
        let first = UnixDatagram::bind(&path).unwrap();
        journal.send(&entry).unwrap();
        drop(first);
        assert!(journal.send(&entry).is_err());
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        journal.send(&entry).unwrap();
        assert_eq!(received(&second), (entry.0, false));
    }

    #[test]
    fn an_entry_is_its_fields_by_name_and_several_lines_have_their_length() {
        let mut entry = Entry::new(4, "edge lost");
        entry.add("outage_id", "0abc");
        entry.add("backtrace", "one\ntwo");
        let mut expected = b"MESSAGE=edge lost\nPRIORITY=4\nSYSLOG_IDENTIFIER=ws-keepalive\n\
              SYSLOG_FACILITY=3\nOUTAGE_ID=0abc\nBACKTRACE\n"
            .to_vec();
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"one\ntwo\n");
        assert_eq!(entry.as_bytes(), expected);
    }

    #[test]
    fn a_name_the_journal_gives_a_meaning_to_gets_a_prefix() {
        for (name, field) in [
            ("target", "TARGET"),
            ("since_last_frame_in_seconds", "SINCE_LAST_FRAME_IN_SECONDS"),
            ("priority", "WS_KEEPALIVE_PRIORITY"),
            ("errno", "WS_KEEPALIVE_ERRNO"),
            ("unit", "WS_KEEPALIVE_UNIT"),
            ("syslog_pid", "WS_KEEPALIVE_SYSLOG_PID"),
            ("_pid", "WS_KEEPALIVE__PID"),
        ] {
            assert_eq!(field_name(name), field);
        }
        assert_eq!(field_name(&"x".repeat(70)).len(), LONGEST_NAME);
    }
}
