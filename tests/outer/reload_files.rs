//! The ways in which a configuration file changes under a running daemon.

use std::time::Instant;

use crate::support::*;

fn target(name: &str, peer: &OddPeer) -> String {
    format!(
        "[[target]]\nname = \"{name}\"\nurl = \"{}\"\nping_interval = \"500ms\"\n",
        peer.url()
    )
}

fn peers() -> [OddPeer; 2] {
    [(); 2].map(|()| OddPeer::upgrading(Manner::default()))
}

fn targets_are(daemon: &Daemon, names: &[&str]) {
    daemon.scrape_until(
        &format!("the targets are {names:?}, all up"),
        secs(15.0),
        |scrape| {
            let up = |name: &&str| scrape.of_target("established", name) == Some(1.0);
            scrape.targets().into_iter().eq(names.iter().copied()) && names.iter().all(up)
        },
    );
}

/// The configuration went wrong and right again, and `peer`'s first connection never noticed.
fn kept_its_socket(daemon: &Daemon, peer: &OddPeer) {
    assert_eq!(peer.dials().len(), 1);
    assert!(peer.times(|what| *what == Happened::Gone).is_empty());
    let scrape = daemon.scrape();
    assert_eq!(
        scrape.of_target("ws_keepalive_disconnects_total", "one"),
        Some(0.0)
    );
}

#[test]
fn a_truncated_file_changes_nothing_until_it_is_whole_again() {
    let _machine = shared();
    let [one, two] = peers();
    let daemon = Daemon::run(&target("one", &one));
    targets_are(&daemon, &["one"]);
    let whole = daemon.text(&(target("one", &one) + &target("two", &two)));
    let lines = daemon.process.stderr.len();
    daemon
        .dir
        .overwrite(&whole[..whole.rfind("ping_interval").unwrap() + "ping_interval = \"5".len()]);
    daemon.last_reload(false, secs(15.0));
    targets_are(&daemon, &["one"]);
    daemon
        .process
        .stderr
        .wait_from(lines, "an error with file and line", secs(15.0), |line| {
            let (_, place) = line.text_of("message").split_once("ws-keepalive.toml:")?;
            let mut place = place.split(':').map(str::parse::<u32>);
            let both = matches!((place.next(), place.next()), (Some(Ok(_)), Some(Ok(_))));
            (both && line.text_of("level") == "error").then_some(())
        });
    daemon.dir.overwrite(&whole);
    targets_are(&daemon, &["one", "two"]);
    daemon.last_reload(true, secs(15.0));
    kept_its_socket(&daemon, &one);
}

#[test]
fn an_editors_rename_is_followed_more_than_once() {
    let _machine = shared();
    let [one, two] = peers();
    let daemon = Daemon::run(&target("one", &one));
    let (small, large) = (
        target("one", &one),
        target("one", &one) + &target("two", &two),
    );
    for _ in 0..3 {
        daemon.dir.rename_over(&daemon.text(&large));
        targets_are(&daemon, &["one", "two"]);
        daemon.dir.rename_over(&daemon.text(&small));
        targets_are(&daemon, &["one"]);
    }
    kept_its_socket(&daemon, &one);
    assert_eq!(two.dials().len(), 3);
    until("each was closed with 1000", secs(15.0), || {
        let closes =
            two.times(|what| matches!(what, Happened::Frame(Frame::Close { code: 1000, .. })));
        if closes.len() == 3 {
            Ok(())
        } else {
            Err(format!("{} closes", closes.len()))
        }
    });
}

#[test]
fn a_configmaps_symlink_swap_is_followed_more_than_once() {
    let _machine = shared();
    let [one, two] = peers();
    let (small, large) = (
        target("one", &one),
        target("one", &one) + &target("two", &two),
    );
    let daemon = Daemon::run_in(
        ConfigDir::new(),
        |dir, text| dir.swap_configmap(1, text),
        &small,
    );
    targets_are(&daemon, &["one"]);
    for version in [2, 4] {
        daemon.dir.swap_configmap(version, &daemon.text(&large));
        targets_are(&daemon, &["one", "two"]);
        daemon.dir.swap_configmap(version + 1, &daemon.text(&small));
        targets_are(&daemon, &["one"]);
    }
    kept_its_socket(&daemon, &one);
}

#[test]
fn a_file_gone_and_back_is_read_when_it_is_back() {
    let _machine = shared();
    let [one, two] = peers();
    let daemon = Daemon::run(&target("one", &one));
    targets_are(&daemon, &["one"]);
    daemon.dir.remove();
    daemon.last_reload(false, secs(15.0));
    targets_are(&daemon, &["one"]);
    daemon
        .dir
        .overwrite(&daemon.text(&(target("one", &one) + &target("two", &two))));
    targets_are(&daemon, &["one", "two"]);
    daemon.last_reload(true, secs(15.0));
    kept_its_socket(&daemon, &one);
}

#[test]
fn of_two_changes_within_the_debounce_the_last_one_stands() {
    let _machine = shared();
    // A machine that is busy may put the debounce between the two: then nothing was tried.
    const TRIES: usize = 10;
    let tried = (0..TRIES).any(|_| two_changes_within_the_debounce());
    assert!(tried, "never two changes in 100 ms");
}

/// Whether the two were so near each other; if so, the last one stood.
fn two_changes_within_the_debounce() -> bool {
    let [one, two] = peers();
    let daemon = Daemon::run(&target("one", &one));
    targets_are(&daemon, &["one"]);
    let short_lived = target("two", &two).replace("two", "short-lived");
    let changes = [short_lived, target("two", &two)];
    let changes = changes.map(|added| daemon.text(&(target("one", &one) + &added)));
    let begun = Instant::now();
    for change in &changes {
        daemon.dir.rename_over(change);
    }
    // The debounce is 250 ms.
    if begun.elapsed() > secs(0.1) {
        return false;
    }
    targets_are(&daemon, &["one", "two"]);
    kept_its_socket(&daemon, &one);
    assert_eq!(
        two.dials().len(),
        1,
        "the first change was never acted upon"
    );
    true
}

#[test]
fn after_a_bad_file_a_good_one_is_applied_and_the_gauge_tells() {
    let _machine = shared();
    let [one, two] = peers();
    let daemon = Daemon::run(&target("one", &one));
    daemon.last_reload(true, secs(15.0));
    let stamp = |scrape: &Scrape| {
        scrape
            .value(
                "ws_keepalive_config_last_reload_success_timestamp_seconds",
                &[],
            )
            .unwrap()
    };
    let before = stamp(&daemon.scrape());
    let bad = target("one", &one)
        + "pingg_interval = \"1s\"\n[[target]]\nurl = \"gopher://example.com\"\n";
    let lines = daemon.process.stderr.len();
    daemon.dir.rename_over(&daemon.text(&bad));
    daemon.last_reload(false, secs(15.0));
    assert_eq!(stamp(&daemon.scrape()), before);
    // Both mistakes in one report, the unknown key with a suggestion.
    for word in ["pingg_interval", "ping_interval", "gopher"] {
        let log = &daemon.process.stderr;
        log.wait_from(lines, word, secs(15.0), |line| {
            line.text.contains(word).then_some(())
        });
    }
    daemon
        .dir
        .rename_over(&daemon.text(&(target("one", &one) + &target("two", &two))));
    targets_are(&daemon, &["one", "two"]);
    daemon.last_reload(true, secs(15.0));
    assert!(stamp(&daemon.scrape()) >= before);
    kept_its_socket(&daemon, &one);
}

#[test]
fn files_in_the_d_directory_are_watched_too() {
    let _machine = shared();
    let [one, two] = peers();
    let daemon = Daemon::run(&target("one", &one));
    targets_are(&daemon, &["one"]);
    let directory = daemon.dir.file().with_extension("d");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("50-two.toml"), target("two", &two)).unwrap();
    targets_are(&daemon, &["one", "two"]);
    std::fs::write(directory.join("50-two.toml"), target("deux", &two)).unwrap();
    targets_are(&daemon, &["deux", "one"]);
    std::fs::remove_file(directory.join("50-two.toml")).unwrap();
    targets_are(&daemon, &["one"]);
    kept_its_socket(&daemon, &one);
}

#[test]
fn flags_beat_the_file_after_a_reload_as_before() {
    let _machine = shared();
    let [one, two] = peers();
    let file = |hours| {
        format!(
            "[[target]]\nname = \"one\"\nurl = \"{}\"\nping_interval = \"{hours}h\"\n",
            one.url()
        )
    };
    let url = two.url();
    let flags = ["--ping-interval", "200ms", "--target", &url];
    let zone = ["--set", "one.labels.zone=flag"];
    let daemon = Daemon::run_with(&file(1), &[&flags[..], &zone].concat());
    let holds = |what: &str| {
        let pings = one.pings().len();
        daemon.scrape_until(what, secs(15.0), |scrape| {
            let labels = [("target", "one"), ("zone", "flag")];
            scrape.value("established", &labels) == Some(1.0)
                && scrape.targets().len() == 2
                && one.pings().len() >= pings + 5
        });
    };
    holds("the flags hold at the start");
    let lines = daemon.process.stderr.len();
    daemon
        .dir
        .rename_over(&daemon.text(&(file(2) + "labels = { rack = \"7\" }\n")));
    daemon
        .process
        .stderr
        .wait_from(lines, "the reload", secs(15.0), |line| {
            (number_after(&line.text, "retuned") == Some(1)).then_some(())
        });
    holds("the flags hold after a reload");
    let scrape = daemon.scrape();
    let labels = [("target", "one"), ("zone", "flag"), ("rack", "7")];
    assert_eq!(scrape.value("established", &labels), Some(1.0));
    assert_eq!((one.dials().len(), two.dials().len()), (1, 1));
}
