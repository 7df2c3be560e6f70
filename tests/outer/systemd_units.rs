//! The units as they are shipped, held against systemd's own judgement.

use std::fs;
use std::path::PathBuf;

use crate::support::*;

const UNITS: [&str; 2] = ["ws-keepalive.service", "ws-keepalive-server@.service"];

fn shipped(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("packaging/systemd").join(name)
}

fn analyze(arguments: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new("systemd-analyze");
    command.args(arguments);
    let mut process = Process::spawn("systemd-analyze", &mut command);
    let code = exit_code(process.wait(secs(30.0)));
    let said = [process.stdout.texts(), process.stderr.texts()].concat();
    (code, said.join("\n"))
}

#[test]
fn the_units_expose_no_more_than_1_5_of_10() {
    let _machine = shared();
    for unit in UNITS {
        let path = shipped(unit);
        let path = path.to_str().unwrap();
        let (code, said) = analyze(&["security", "--offline=true", "--threshold=15", path]);
        assert_eq!(code, 0, "{said}");
        // The judge does judge.
        let (code, said) = analyze(&["security", "--offline=true", "--threshold=5", path]);
        assert_ne!(code, 0, "{said}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_the_examples() {
    let _machine = shared();
    let dir = ConfigDir::new();
    let place = |name: &str, into: &str| {
        let text = fs::read_to_string(shipped(name)).unwrap();
        // Where the program is before it is installed.
        let text = text.replace("/usr/bin/ws-keepalive", env!("CARGO_BIN_EXE_ws-keepalive"));
        let path = dir.path().join(into);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let units = UNITS.map(|unit| place(unit, unit));
    let sockets = ["ws-keepalive.socket", "ws-keepalive-embedded.socket"];
    let sockets = sockets.map(|name| place(&format!("examples/{name}"), name));
    let template = place(
        "examples/ws-keepalive-server@.socket",
        "ws-keepalive-server@.socket",
    );
    let instances = [&units[1], &template].map(|path| path.replace('@', "@9000"));
    for (template, instance) in [&units[1], &template].into_iter().zip(&instances) {
        std::os::unix::fs::symlink(template, instance).unwrap();
    }
    for path in [
        &units[0],
        &sockets[0],
        &sockets[1],
        &instances[0],
        &instances[1],
    ] {
        let (code, said) = analyze(&["verify", "--man=no", path]);
        let about_ours = said.lines().any(|line| line.contains("ws-keepalive"));
        assert!(code == 0 && !about_ours, "{path}: {said}");
    }
    // What may be relaxed is known to systemd, every line of it.
    let relaxed = fs::read_to_string(shipped("examples/relax.conf")).unwrap();
    let relaxed = relaxed.replace("\n#", "\n").replace("\n ", "\n# ");
    let in_force = |line: &&str| !line.is_empty() && !line.starts_with(['#', '[']);
    assert!(relaxed.lines().filter(in_force).count() >= 8, "{relaxed}");
    let drop_in = dir.path().join("ws-keepalive.service.d/relax.conf");
    fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
    fs::write(&drop_in, relaxed).unwrap();
    let (code, said) = analyze(&["verify", "--man=no", &units[0]]);
    let about_ours = said.lines().any(|line| line.contains("ws-keepalive"));
    assert!(code == 0 && !about_ours, "{said}");
}
