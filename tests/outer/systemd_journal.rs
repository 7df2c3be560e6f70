//! Lines as entries of the journal: in a mount namespace whose journal is the test's.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::*;

/// The fields of an entry.
type Entry = BTreeMap<String, String>;

/// As journald reads a datagram: `NAME=value`, or the name, the length of the value, and the value.
fn parse(datagram: &[u8]) -> Entry {
    let mut fields = Entry::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| [b'=', b'\n'].contains(byte))
            .unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        let (value, after) = if rest[end] == b'=' {
            let value = &rest[end + 1..];
            let length = value.iter().position(|byte| *byte == b'\n').unwrap();
            (&value[..length], &value[length + 1..])
        } else {
            let (length, value) = rest[end + 1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap());
            let length = usize::try_from(length).unwrap();
            assert_eq!(value[length], b'\n');
            (&value[..length], &value[length + 1..])
        };
        fields.insert(name, String::from_utf8(value.to_vec()).unwrap());
        rest = after;
    }
    fields
}

/// A namespace with a journal of its own, and what is written to it.
struct World {
    namespace: Namespace,
    dir: ConfigDir,
    entries: Journal<Entry>,
    metrics: PathBuf,
}

impl World {
    /// `listens`: whether there is a journal. `reads`: whether it takes anything.
    fn new(listens: bool, reads: bool) -> (Self, Option<UnixDatagram>) {
        let dir = ConfigDir::new();
        let journal = dir.path().join("journal");
        std::fs::create_dir(&journal).unwrap();
        let socket = listens.then(|| UnixDatagram::bind(journal.join("socket")).unwrap());
        let entries = Journal::default();
        if let (Some(socket), true) = (&socket, reads) {
            let (socket, entries) = (socket.try_clone().unwrap(), entries.clone());
            socket
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 18];
                while let Ok(length) = socket.recv(&mut buffer) {
                    entries.push(parse(&buffer[..length]));
                }
            });
        }
        let setup = format!(
            "mount -t tmpfs tmpfs /run\nmkdir -p /run/systemd/journal\n\
             mount --bind {} /run/systemd/journal",
            journal.display()
        );
        let world = Self {
            namespace: Namespace::new(&Names::default(), &setup),
            metrics: dir.path().join("metrics.sock"),
            dir,
            entries,
        };
        (world, socket)
    }

    /// `run` with standard error as `stream` has it: `$(stat ..)` is what it is.
    fn run(&self, targets: &str, stream: &str, more: &[&str]) -> Process {
        let metrics = format!("unix:{}", self.metrics.display());
        self.dir
            .overwrite(&format!("[metrics]\nlisten = \"{metrics}\"\n{targets}"));
        let file = self.dir.file();
        let command = program(&["run", "--config", file.to_str().unwrap()]);
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "export JOURNAL_STREAM=\"$(eval echo $0)\"; exec \"$@\"",
            stream,
        ]);
        shell
            .arg(command.get_program())
            .args(command.get_args())
            .args(more);
        self.namespace.spawn("run", &shell)
    }

    fn scrape(&self) -> Result<Scrape, String> {
        let (_, body) = get(Endpoint::Unix(self.metrics.clone()), "/metrics")?;
        Ok(Scrape::of(body))
    }
}

/// Device and inode of standard error.
const STDERR: &str = "$(stat -Lc %d:%i /proc/self/fd/2)";

const TARGET: &str = "[[target]]\nname = \"edge\"\nurl = \"ws://127.0.0.1:9000/\"\nping_interval = \"1s\"\n\
                      reconnect = { initial = \"200ms\", max = \"200ms\" }\n";

#[test]
fn a_drop_is_found_by_its_fields() {
    let _machine = shared();
    let (world, _socket) = World::new(true, true);
    let server = || {
        let command = program(&["server", "-l", "127.0.0.1", "-p", "9000"]);
        world.namespace.spawn("server", &command)
    };
    let first = server();
    let run = world.run(TARGET, STDERR, &[]);
    let has = |entry: &Entry, fields: &[(&str, &str)]| {
        let holds = |(name, value): &(&str, &str)| entry.get(*name).is_some_and(|v| v == value);
        fields.iter().all(holds).then(|| entry.clone())
    };
    let wait = |what, fields: &[(&str, &str)]| {
        world
            .entries
            .wait(what, secs(15.0), |entry| has(entry, fields))
    };
    let up = wait(
        "it is established",
        &[("EVENT", "established"), ("TARGET", "edge")],
    );
    assert_eq!(up["PRIORITY"], "6", "{up:#?}");
    assert_eq!(up["SYSLOG_IDENTIFIER"], "ws-keepalive");
    assert!(up["MESSAGE"].starts_with("edge established in "), "{up:#?}");
    drop(first);
    let lost = wait("it is lost", &[("EVENT", "lost"), ("TARGET", "edge")]);
    assert_eq!(lost["PRIORITY"], "4", "{lost:#?}");
    assert!(["fin", "reset"].contains(&&*lost["CAUSE"]), "{lost:#?}");
    let failed = wait(
        "a dial fails",
        &[("EVENT", "dial_failed"), ("PHASE", "tcp")],
    );
    assert_eq!(failed["TARGET"], "edge", "{failed:#?}");
    let _second = server();
    let back = wait(
        "it is back",
        &[("EVENT", "back"), ("OUTAGE_ID", &lost["OUTAGE_ID"])],
    );
    assert_eq!(back["TARGET"], "edge");
    // Nothing is said twice, or elsewhere.
    assert_eq!(run.stderr.texts(), [""; 0]);
}

#[test]
fn the_journal_is_for_a_daemon_whose_own_stderr_it_is_and_who_asked_for_no_format() {
    let _machine = shared();
    // Of another stream, as a daemon has that was started from a service's shell; asked for.
    for (stream, more) in [("1:2", &[][..]), (STDERR, &["--log-format", "json"])] {
        let (world, _socket) = World::new(true, true);
        let run = world.run("", stream, more);
        run.stderr.wait("a line of JSON", secs(15.0), |line| {
            (line.text_of("event") == "starting").then_some(())
        });
        assert_eq!(world.entries.len(), 0, "{:#?}", world.entries.all());
    }
}

#[test]
fn without_a_journal_the_lines_go_to_stderr() {
    let _machine = shared();
    let (world, _) = World::new(false, false);
    let run = world.run("", STDERR, &[]);
    run.stderr.wait("a line of JSON", secs(15.0), |line| {
        (line.text_of("event") == "starting").then_some(())
    });
}

#[test]
fn a_journal_that_takes_nothing_delays_no_ping_and_the_loss_is_said_once_it_does() {
    let _machine = shared();
    let (world, socket) = World::new(true, false);
    let command = program(&["server", "-l", "127.0.0.1", "-p", "9000"]);
    let _server = world.namespace.spawn("server", &command);
    let targets: String = (0..100)
        .map(|n| {
            TARGET
                .replace("edge", &format!("t{n:03}"))
                .replace("\"1s\"", "\"100ms\"\npong_timeout = \"5s\"")
        })
        .collect();
    let mut run = world.run(&targets, STDERR, &["--log-level", "debug"]);
    // Each ping and pong is a line: more than the socket and the queue hold.
    until(
        "20,000 lines were due, and pings go on",
        secs(180.0),
        || {
            let pongs: f64 = world
                .scrape()?
                .find("received_pong_total", &[])
                .map(|s| s.value)
                .sum();
            if pongs > 10_000.0 {
                Ok(())
            } else {
                Err(format!("{pongs}"))
            }
        },
    );
    let retries: f64 = world
        .scrape()
        .unwrap()
        .find("ping_retry_count_total", &[])
        .map(|s| s.value)
        .sum();
    assert_eq!(retries, 0.0);
    // It reads at last.
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(secs(10.0))).unwrap();
    let mut buffer = vec![0; 1 << 18];
    // One after the other without a pause: thousands are queued before it.
    let deadline = Instant::now() + secs(60.0);
    let lost = loop {
        let length = socket.recv(&mut buffer).expect("the loss is told");
        let entry = parse(&buffer[..length]);
        if entry.contains_key("DROPPED") {
            break entry;
        }
        assert!(Instant::now() < deadline, "not told of; last: {entry:#?}");
    };
    let words = "log lines were dropped: the journal took none";
    assert!(lost["MESSAGE"].ends_with(words), "{lost:#?}");
    run.signal(Signal::TERM);
    // Its last lines are taken, too.
    std::thread::spawn(move || while socket.recv(&mut buffer).is_ok() {});
    assert_eq!(exit_code(run.wait(secs(20.0))), 0);
}
