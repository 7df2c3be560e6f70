//! Notices that a configuration file changed: an editor's rename, a ConfigMap's symlink swap, a
//! write in two halves, a file gone and back.
//!
//! A watch on a file dies with the first rename over it, so directories are watched, and what
//! decides is the content: events only say when to look. The debounce is our own, because a
//! thread that waits for an event costs nothing while there is none.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use super::load::Sources;
use crate::os;
use crate::reload::{ReloadRequest, ReloadSender, Trigger};

/// Quiet time after an event before the files are read: an editor writes more than once.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// A directory that is never quiet is looked at this often all the same.
const DEBOUNCE_MAX: Duration = Duration::from_secs(2);

/// Between two looks without any event: finds directories that were replaced, and changes made
/// where the kernel cannot see them (NFS).
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Between two looks where watching does not work, mostly for want of inotify instances.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// What the configuration files last held, as a hash. Shared by all who cause a reload, so that a
/// change is loaded once, whoever notices it first.
#[derive(Debug)]
pub(crate) struct Seen {
    sources: Sources,
    fingerprint: AtomicU64,
}

impl Seen {
    /// Takes note of what the files hold. To be made before they are first loaded: a change
    /// between the two then causes one reload too many, never one too few.
    pub(crate) fn new(sources: &Sources) -> Arc<Self> {
        Arc::new(Self {
            fingerprint: AtomicU64::new(fingerprint(sources)),
            sources: sources.clone(),
        })
    }

    /// Whether the files hold something else than at the last look. Blocks for as long as it
    /// takes to read them. Call it before every load, too.
    pub(crate) fn look(&self) -> bool {
        let now = fingerprint(&self.sources);
        self.fingerprint.swap(now, SeqCst) != now
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    stir: SyncSender<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // If the channel is full, the thread is about to wake up anyway.
        let _ = self.stir.try_send(());
    }
}

impl Watch {
    /// Asks `reload` for a reload whenever the files of `seen` change. Never fails for want of
    /// inotify: it polls instead, and says so.
    pub(crate) fn start(seen: Arc<Seen>, reload: ReloadSender) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        // One place: a second event while one waits says nothing new.
        let (stir, stirred) = sync_channel(1);
        let mut directories = Directories::new(stir.clone());
        // Watched when this returns, not some time later.
        directories.renew(&seen.sources);
        // And what changed before that is looked for.
        let _ = stir.try_send(());
        let looker = Looker {
            seen,
            reload,
            stirred,
            stop: stop.clone(),
            directories,
        };
        let builder = std::thread::Builder::new().name("config-watch".to_owned());
        builder.spawn(move || looker.run())?;
        Ok(Self { stop, stir })
    }
}

/// The watching thread.
struct Looker {
    seen: Arc<Seen>,
    reload: ReloadSender,
    stirred: Receiver<()>,
    stop: Arc<AtomicBool>,
    directories: Directories,
}

impl Looker {
    fn run(mut self) {
        while self.wait() {
            self.directories.renew(&self.seen.sources);
            let request = ReloadRequest {
                trigger: Trigger::File,
                reply: None,
            };
            if self.seen.look() && self.reload.blocking_send(request).is_err() {
                return;
            }
        }
    }

    /// Until it is time to look again; `false` when there is no need any more.
    fn wait(&self) -> bool {
        let pause = match self.directories.watcher {
            Some(_) => LOOK_EVERY,
            None => POLL_EVERY,
        };
        let mut settled = match self.stirred.recv_timeout(pause) {
            Ok(()) => false,
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let latest = Instant::now() + DEBOUNCE_MAX;
        while !settled && !self.stop.load(SeqCst) && Instant::now() < latest {
            settled = self.stirred.recv_timeout(DEBOUNCE).is_err();
        }
        !self.stop.load(SeqCst) && !self.reload.is_closed()
    }
}

/// The directories that are watched.
struct Directories {
    /// `None` where watching does not work.
    watcher: Option<RecommendedWatcher>,
    /// Which directory, by device and inode, was at each path when it was watched.
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl Directories {
    fn new(stir: SyncSender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is an access; acting on it would never end.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = stir.try_send(());
            }
        });
        let watcher = watcher.inspect_err(cannot_watch).ok();
        Self {
            watcher,
            watched: BTreeMap::new(),
        }
    }

    /// Watches the directories that matter now: another may have taken a path, a link may lead
    /// elsewhere, the `.d` directory may have come.
    fn renew(&mut self, sources: &Sources) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted = directories(sources);
        self.watched.retain(|path, id| {
            let keep = wanted.get(path) == Some(id);
            if !keep {
                // Fails where the directory is gone, and its watch with it.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        for (path, id) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path, id);
                }
                // Gone again since we looked.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => {
                    cannot_watch(&error);
                    self.watcher = None;
                    return;
                }
            }
        }
    }
}

fn cannot_watch(error: &notify::Error) {
    let error = os::words(error);
    warn!(
        error,
        "cannot watch the configuration's directory; reading it every 2 s instead"
    );
}

/// The directories whose entries decide what the configuration is.
fn directories(sources: &Sources) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut paths = vec![sources.drop_in_dir()];
    // Every link on the way to the file may be swapped. The kernel follows 40 at most.
    let mut file = sources.path().to_owned();
    for _ in 0..40 {
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let next = fs::read_link(&file).map(|link| directory.join(link));
        paths.push(directory);
        match next {
            Ok(next) => file = next,
            Err(_) => break,
        }
    }
    let id = |path: PathBuf| {
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_dir)?;
        Some((path, (metadata.dev(), metadata.ino())))
    };
    paths.into_iter().filter_map(id).collect()
}

/// A hash of the names and contents of all files the configuration is read from.
fn fingerprint(sources: &Sources) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_file(sources.path(), &mut hasher);
    let entries = fs::read_dir(sources.drop_in_dir());
    let mut drop_ins: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    drop_ins.sort_unstable();
    for path in drop_ins {
        path.hash(&mut hasher);
        hash_file(&path, &mut hasher);
    }
    hasher.finish()
}

fn hash_file(path: &Path, hasher: &mut DefaultHasher) {
    // A pipe can be read once only, and that is for the loader.
    let content = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(io::ErrorKind::Other),
        Ok(_) => fs::read(path).map_err(|error| error.kind()),
        Err(error) => Err(error.kind()),
    };
    content.hash(hasher);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    struct Bench {
        dir: TempDir,
        seen: Arc<Seen>,
        requests: mpsc::Receiver<ReloadRequest>,
        _watch: Watch,
    }

    impl Bench {
        /// Watches `conf.toml` in a directory that `prepare` fills.
        fn new(prepare: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let sources = Sources {
                file: Some(dir.path().join("conf.toml")),
                ..Sources::default()
            };
            let seen = Seen::new(&sources);
            let (sender, requests) = mpsc::channel(16);
            let _watch = Watch::start(seen.clone(), sender).unwrap();
            Self {
                dir,
                seen,
                requests,
                _watch,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.path(name), content).unwrap();
        }

        /// A reload is asked for well before the watch would look without an event.
        async fn asked(&mut self) {
            let request = timeout(LOOK_EVERY / 2, self.requests.recv()).await;
            assert_eq!(request.unwrap().unwrap().trigger, Trigger::File);
        }

        /// What was done before asks for nothing: a later change is seen, and once only.
        async fn not_asked(&mut self) {
            // Longer than the debounce, so that this change does not fall into its time.
            let quiet = timeout(DEBOUNCE * 3, self.requests.recv()).await;
            assert!(quiet.is_err(), "asked for no reason");
        }
    }

    fn plain() -> Bench {
        Bench::new(|dir| fs::write(dir.join("conf.toml"), "one").unwrap())
    }

    /// Does `change` to a plain bench before its watch can look; once more on another where this
    /// machine stood still for that long.
    fn before_a_look<T>(change: impl Fn(&Bench) -> T) -> (Bench, T) {
        loop {
            let begun = Instant::now();
            let bench = plain();
            let done = change(&bench);
            if begun.elapsed() < DEBOUNCE {
                return (bench, done);
            }
        }
    }

    #[tokio::test]
    async fn a_write_in_two_halves_ends_in_a_reload_of_the_whole() {
        let mut bench = plain();
        bench.write("conf.toml", "");
        bench.asked().await;
        bench.write("conf.toml", "two, whole");
        bench.asked().await;
        bench.not_asked().await;
    }

    #[tokio::test]
    async fn two_changes_within_the_debounce_are_one() {
        let (mut bench, ()) = before_a_look(|bench| {
            bench.write("conf.toml", "half");
            bench.write("conf.toml", "whole");
        });
        bench.asked().await;
        bench.not_asked().await;
    }

    #[tokio::test]
    async fn an_editors_rename_is_seen_again_and_again() {
        let mut bench = plain();
        for round in ["two", "three"] {
            bench.write(".conf.toml.swp", round);
            fs::rename(bench.path(".conf.toml.swp"), bench.path("conf.toml")).unwrap();
            bench.asked().await;
        }
    }

    #[tokio::test]
    async fn content_that_did_not_change_asks_for_nothing() {
        let (mut bench, ()) = before_a_look(|bench| {
            // Which empties it first.
            bench.write("conf.toml", "one");
            bench.write("neighbour.toml", "not ours");
            fs::read(bench.path("conf.toml")).unwrap();
        });
        bench.not_asked().await;
    }

    #[tokio::test]
    async fn a_change_another_trigger_loaded_first_asks_for_nothing() {
        let (mut bench, changed) = before_a_look(|bench| {
            bench.write("conf.toml", "two");
            bench.seen.look()
        });
        assert!(changed);
        bench.not_asked().await;
    }

    #[tokio::test]
    async fn a_config_map_swap_is_seen() {
        let mut bench = Bench::new(|dir| {
            for (generation, content) in [("..1", "one"), ("..2", "two"), ("..3", "three")] {
                fs::create_dir(dir.join(generation)).unwrap();
                fs::write(dir.join(generation).join("conf.toml"), content).unwrap();
            }
            symlink("..1", dir.join("..data")).unwrap();
            symlink("..data/conf.toml", dir.join("conf.toml")).unwrap();
        });
        for (generation, before) in [("..2", "..1"), ("..3", "..2")] {
            symlink(generation, bench.path("..data_tmp")).unwrap();
            fs::rename(bench.path("..data_tmp"), bench.path("..data")).unwrap();
            fs::remove_dir_all(bench.path(before)).unwrap();
            bench.asked().await;
            bench.not_asked().await;
        }
    }

    #[tokio::test]
    async fn a_link_into_another_directory_is_followed() {
        let elsewhere = tempfile::tempdir().unwrap();
        let real = elsewhere.path().join("real.toml");
        fs::write(&real, "one").unwrap();
        let mut bench = Bench::new(|dir| symlink(&real, dir.join("conf.toml")).unwrap());
        // Twice: the first look of all would see the first change without any event.
        for content in ["two", "three"] {
            fs::write(&real, content).unwrap();
            bench.asked().await;
        }
    }

    #[tokio::test]
    async fn a_file_gone_and_back_is_seen_twice() {
        let mut bench = plain();
        fs::remove_file(bench.path("conf.toml")).unwrap();
        bench.asked().await;
        bench.write("conf.toml", "one");
        bench.asked().await;
    }

    #[tokio::test]
    async fn a_drop_in_directory_that_comes_later_is_watched() {
        let mut bench = plain();
        fs::create_dir(bench.path("conf.d")).unwrap();
        bench.write("conf.d/a.toml", "a");
        bench.asked().await;
        bench.write("conf.d/b.toml", "b");
        bench.asked().await;
        bench.write("conf.d/README", "not read");
        bench.not_asked().await;
        fs::remove_file(bench.path("conf.d/a.toml")).unwrap();
        bench.asked().await;
    }

    #[tokio::test]
    async fn it_polls_where_it_cannot_watch() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("conf.toml");
        let sources = Sources {
            file: Some(file.clone()),
            ..Sources::default()
        };
        let (reload, mut requests) = mpsc::channel(1);
        let (_stir, stirred) = sync_channel(1);
        let looker = Looker {
            seen: Seen::new(&sources),
            reload,
            stirred,
            stop: Arc::default(),
            directories: Directories {
                watcher: None,
                watched: BTreeMap::new(),
            },
        };
        let thread = std::thread::spawn(move || looker.run());
        fs::write(&file, "one").unwrap();
        assert!(timeout(POLL_EVERY * 3, requests.recv()).await.is_ok());
        drop(requests);
        thread.join().unwrap();
    }
}
