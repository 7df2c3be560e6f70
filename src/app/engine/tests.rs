//! The reload path, over files and sockets, with tasks that hold nothing.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::config::load::Overrides;
use crate::config::{Secret, Target};
use crate::proto::close::Asked;
use crate::server::admin::Readiness;
use crate::stats::TargetStats;
use crate::supervisor::{Control, Reporter};
use crate::systemd::Passed;

#[derive(Clone)]
struct Idle;

#[derive(Clone)]
struct Stop(Arc<Notify>);

impl Control for Stop {
    fn set(&self, _: Arc<Target>) {}
    fn stop(&self, _: Asked) {
        self.0.notify_one();
    }
}

impl Hold for Idle {
    type Control = Stop;

    fn control(&self, _: &Arc<Target>) -> Stop {
        Stop(Arc::default())
    }

    async fn hold(self, control: Stop, _: Arc<TargetStats>, reporter: Reporter) {
        let _reporter = reporter;
        control.0.notified().await;
    }

    fn lost(_: &TargetStats, _: &str) {}
}

struct Bench {
    dir: TempDir,
    engine: Engine<Idle>,
    registry: Arc<Registry>,
    reload: ReloadSender,
}

const TWO_TARGETS: &str = "
    [[target]]
    name = 'one'
    url = 'ws://localhost:1/one'
    [[target]]
    name = 'two'
    url = 'ws://localhost:1/two'
";

impl Bench {
    /// Starts with `text`, in a file that need not be there.
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources {
            file: Some(dir.path().join("conf.toml")),
            required: false,
            overrides: Overrides {
                // With a target of its own, a program may start without a file.
                targets: vec![Secret::new("ws://localhost:1/flag".to_owned())],
                ..Overrides::default()
            },
            ..Sources::default()
        };
        std::fs::write(sources.path(), text).unwrap();
        let seen = Seen::new(&sources);
        let loaded = load(&sources).unwrap();
        let registry = Registry::new();
        let (reload, requests) = mpsc::channel(4);
        let mut listeners = Listeners::new(
            registry.clone(),
            Readiness::new(),
            reload.clone(),
            Passed::default(),
            Arc::default(),
        );
        let change = listeners.prepare(&loaded.config).unwrap();
        listeners.commit(change).unwrap();
        let gate = DialGate::new(loaded.config.dial);
        let supervisor = Supervisor::new(Idle, registry.clone());
        let mut engine = Engine::new(
            sources,
            seen,
            requests,
            supervisor,
            listeners,
            gate,
            registry.clone(),
        );
        engine.start_with(loaded);
        Self {
            dir,
            engine,
            registry,
            reload,
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("conf.toml")
    }

    async fn reload(&mut self) -> ReloadOutcome {
        let (reply, outcome) = oneshot::channel();
        let request = ReloadRequest {
            trigger: Trigger::Control,
            reply: Some(reply),
        };
        self.reload.send(request).await.unwrap();
        let turning = async {
            loop {
                self.engine.turn().await;
            }
        };
        tokio::select! {
            outcome = outcome => outcome.unwrap(),
            () = turning => unreachable!(),
        }
    }

    async fn reload_with(&mut self, text: &str) -> ReloadOutcome {
        std::fs::write(self.file(), text).unwrap();
        self.reload().await
    }

    fn successful(&self) -> u8 {
        self.registry.reload_successful.load(Relaxed)
    }
}

/// `[metrics]` off, and `[server]` on `port`.
fn server(port: u16, more: &str) -> String {
    format!("[metrics]\nenabled = false\n[server]\nlisten = '127.0.0.1:{port}'\n{more}\n")
}

/// A port for listeners. The socket never listens: as long as it is there, no outgoing connection
/// and nobody who asks for any port gets this one.
fn reserved() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    // As listeners do, which may then have it too.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn what_changed_is_answered_and_counted() {
    let mut bench = Bench::new(&format!("[metrics]\nenabled = false\n{TWO_TARGETS}"));
    assert_eq!(bench.successful(), 1);
    let text = format!(
        "[metrics]\nenabled = false\n{}\nlabels = {{ region = 'x' }}",
        TWO_TARGETS.replace("'one'", "'three'")
    );
    let changes = bench.reload_with(&text).await.unwrap();
    assert_eq!(
        changes.to_string(),
        "kept 1, retuned 1, replaced 0, added 1, removed 1"
    );
    assert_eq!(changes.added, ["three".into()]);
    assert_eq!(bench.registry.target_count(), 3);
}

#[tokio::test]
async fn a_failed_bind_changes_nothing() {
    let (_reserved, address) = reserved();
    let taken = TcpListener::bind(address).unwrap();
    let control = |dir: &Path| format!("[control]\nsocket = '{}/c.sock'\n", dir.display());
    let mut bench = Bench::new(&format!("[metrics]\nenabled = false\n{TWO_TARGETS}"));
    let socket = control(bench.dir.path());

    let text = server(address.port(), &socket);
    let refused = bench.reload_with(&text).await.unwrap_err();
    assert!(refused.contains(&address.to_string()), "{refused}");
    assert!(refused.contains("server.listen"), "{refused}");
    let metrics = format!("[metrics]\nlisten = '{address}'\n{socket}");
    let refused = bench.reload_with(&metrics).await.unwrap_err();
    assert!(refused.contains(&address.to_string()), "{refused}");
    assert!(refused.contains("--metrics-server"), "{refused}");

    assert_eq!(bench.successful(), 0);
    assert_eq!(bench.registry.target_count(), 3);
    assert_eq!(bench.engine.listeners.in_words(), [""; 0]);
    // Bound for nothing, and gone again.
    assert!(!bench.dir.path().join("c.sock").exists());

    drop(taken);
    let changes = bench.reload_with(&text).await.unwrap();
    assert_eq!(changes.removed.len(), 2);
    assert_eq!(changes.listeners.len(), 2, "{:?}", changes.listeners);
    assert_eq!(bench.successful(), 1);
}

#[tokio::test]
async fn a_file_that_was_there_may_not_be_missing() {
    let mut bench = Bench::new(&format!("[metrics]\nenabled = false\n{TWO_TARGETS}"));
    let text = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::remove_file(bench.file()).unwrap();
    let refused = bench.reload().await.unwrap_err();
    assert!(refused.contains("conf.toml"), "{refused}");
    assert_eq!(bench.registry.target_count(), 3);
    let changes = bench.reload_with(&text).await.unwrap();
    assert_eq!(changes.kept, 3);
}

#[tokio::test]
async fn a_configuration_that_came_through_a_pipe_is_not_read_again() {
    let mut bench = Bench::new(&format!("[metrics]\nenabled = false\n{TWO_TARGETS}"));
    std::fs::remove_file(bench.file()).unwrap();
    // Read again it would be empty, and every target gone.
    std::os::unix::fs::symlink("/dev/null", bench.file()).unwrap();
    let refused = bench.reload().await.unwrap_err();
    assert!(refused.contains("not a regular file"), "{refused}");
    assert_eq!(bench.registry.target_count(), 3);
}

#[tokio::test]
async fn a_change_of_the_servers_settings_leaves_its_port_open() {
    let (_reserved, address) = reserved();
    let port = address.port();
    let mut bench = Bench::new(&server(port, ""));
    let changes = bench
        .reload_with(&server(port, "ping_interval = '7s'"))
        .await
        .unwrap();
    assert_eq!(
        changes.listeners,
        [format!("server restarted on 127.0.0.1:{port}")]
    );
    TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // An equal configuration leaves it alone.
    let changes = bench.reload().await.unwrap();
    assert_eq!(changes.listeners, [""; 0]);
    let changes = bench
        .reload_with("[metrics]\nenabled = false\n")
        .await
        .unwrap();
    assert_eq!(
        changes.listeners,
        [format!("server on 127.0.0.1:{port} stopped")]
    );
    assert!(bench.engine.listeners.in_words().is_empty());
}

#[tokio::test]
async fn what_needs_a_restart_is_said() {
    let mut bench = Bench::new("[metrics]\nenabled = false\n");
    let text = "[metrics]\nenabled = false\n[log]\nlevel = 'debug'\n[dial]\nconcurrency = 3\n";
    let changes = bench.reload_with(text).await.unwrap();
    assert_eq!(changes.pending, ["log: changes at the next restart"]);
    assert_eq!(bench.engine.dial.unwrap().concurrency, 3);
}

#[tokio::test]
async fn a_drain_answers_those_who_still_wait_for_a_reload() {
    let mut bench = Bench::new(&format!("[metrics]\nenabled = false\n{TWO_TARGETS}"));
    let (reply, outcome) = oneshot::channel();
    let request = ReloadRequest {
        trigger: Trigger::Http,
        reply: Some(reply),
    };
    bench.reload.send(request).await.unwrap();
    assert_eq!(bench.engine.drain().await, 3);
    assert!(bench.reload.is_closed());
    let outcome = tokio::time::timeout(Duration::from_secs(5), outcome);
    assert!(outcome.await.unwrap().is_err());
}

#[tokio::test]
async fn a_warning_is_said_again_only_when_it_changed() {
    let text = |idle: &str| {
        format!(
            "[metrics]\nenabled = false\n[[target]]\nurl = 'ws://localhost:1/slow'\n\
             path_idle_timeout = '{idle}'\n"
        )
    };
    let mut bench = Bench::new(&text("20s"));
    let first = bench.engine.warned.clone();
    assert_eq!(first.len(), 1, "{first:?}");
    bench.reload_with(&text("20s")).await.unwrap();
    assert_eq!(new_warnings(&first, &bench.engine.warned).count(), 0);
    bench.reload_with(&text("19s")).await.unwrap();
    let said: Vec<_> = new_warnings(&first, &bench.engine.warned).collect();
    assert!(
        matches!(&said[..], [warning] if warning.contains("19s")),
        "{said:?}"
    );
    bench.reload_with(&text("1m")).await.unwrap();
    assert!(bench.engine.warned.is_empty());
}

#[tokio::test]
async fn a_target_that_fans_out_is_held_at_each_of_its_addresses_over_reloads() {
    let text = format!("[metrics]\nenabled = false\n{TWO_TARGETS}");
    let mut bench = Bench::new(&text);
    let fanned_out = |bench: &Bench| {
        let mut loaded = load(&bench.engine.sources).unwrap();
        for target in &mut loaded.config.targets {
            if &*target.identity.name == "two" {
                let target = Arc::make_mut(target);
                Arc::make_mut(&mut target.policy).fan_out = Some(Duration::from_secs(30));
            }
        }
        loaded
    };
    bench.engine.fan_outs = FanOuts::new(Arc::new(|host, _| {
        assert_eq!(&*host, "localhost");
        let addresses = [([127, 0, 0, 1], 0).into(), ([127, 0, 0, 2], 0).into()];
        Box::pin(std::future::ready(Ok(addresses.to_vec())))
    }));
    let loaded = fanned_out(&bench);
    let changes = bench.engine.decide(Ok(Ok(loaded))).unwrap();
    // Its own name goes at once, and its addresses come when they are known.
    assert_eq!(changes.removed, ["two".into()]);
    let held = |bench: &Bench| -> Vec<_> {
        let targets = bench.registry.targets();
        let identities = targets.iter().map(|stats| stats.identity());
        identities
            .filter(|identity| &**identity.target() == "two")
            .filter_map(|identity| identity.address_index())
            .collect()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while held(&bench) != [0, 1] {
        let turn = tokio::time::timeout_at(deadline, bench.engine.turn());
        turn.await.expect("both addresses in time");
    }
    let loaded = fanned_out(&bench);
    let changes = bench.engine.decide(Ok(Ok(loaded))).unwrap();
    assert_eq!((changes.kept, changes.added.len()), (4, 0));
    assert_eq!(held(&bench), [0, 1]);
    // The connection of the name itself, which was removed, may be closing yet.
    let drained = bench.engine.drain().await;
    assert!((4..=5).contains(&drained), "{drained}");
}
