//! The booted Debians of these tests, held against what their users rely on.

use std::path::Path;

use crate::support::*;

#[test]
fn a_debian_boots_with_a_network_of_its_own_and_ends_with_its_guard() {
    let _machine = shared();
    for (suite, version) in Suite::ALL.into_iter().zip(["252", "257"]) {
        let debian = Container::boot(suite);
        let said = debian.shell("systemctl --version");
        assert!(said.starts_with(&format!("systemd {version}")), "{said}");
        assert_eq!(debian.shell("systemctl --failed --plain --no-legend"), "");
        let interfaces = debian.shell("ls /sys/class/net; ip -brief address");
        assert!(interfaces.starts_with("lo\nlo "), "{interfaces}");
        assert!(interfaces.contains("127.0.0.1/8"), "{interfaces}");

        let ran = debian.run("echo out; echo err >&2; exit 3");
        assert_eq!(
            (ran.code, &*ran.stdout, &*ran.stderr),
            (3, "out", "err"),
            "{ran:?}"
        );

        debian.write("/etc/written", "here\n");
        assert_eq!(debian.shell("cat /etc/written"), "here");
        assert_eq!(debian.read("/etc/written"), "here\n");

        // A service's processes are its own: systemd finds and ends them.
        debian.shell("systemd-run --quiet --unit=sleeper sh -c 'sleep 300 & sleep 300'");
        let sleeping = "pgrep -x -c sleep";
        debian.until("both sleep", secs(20.0), sleeping, |ran| ran.stdout == "2");
        debian.shell("systemctl stop sleeper");
        assert_eq!(debian.run(sleeping).stdout, "0");

        let root = debian.path("/");
        assert!(root.join("etc/written").exists());
        drop(debian);
        assert!(!root.join("etc/written").exists());
    }
}

#[test]
fn what_one_debian_does_no_other_sees() {
    let _machine = shared();
    let first = Container::boot(Suite::Bookworm);
    let second = Container::boot(Suite::Bookworm);
    for debian in [&first, &second] {
        debian.shell("systemd-run --quiet --unit=sleeper sleep 300");
    }
    first.shell("touch /etc/mark; systemctl stop sleeper");
    assert_eq!(second.shell("systemctl is-active sleeper"), "active");
    assert_eq!(second.run("test -e /etc/mark").code, 1);
    let shared_root = tools().join("roots/bookworm");
    assert!(!Path::new(&shared_root).join("etc/mark").exists());
}

#[test]
fn a_package_is_installed_with_nothing_but_what_is_in_the_root() {
    let _machine = shared();
    let dir = ConfigDir::new();
    let control = dir.path().join("tree/DEBIAN/control");
    std::fs::create_dir_all(control.parent().unwrap()).unwrap();
    let text = "Package: tried\nVersion: 1\nArchitecture: all\nDepends: libc6\n\
                Maintainer: Nobody <nobody@example.com>\nDescription: tried\n";
    std::fs::write(control, text).unwrap();
    let deb = dir.path().join("tried.deb");
    let mut build = std::process::Command::new("dpkg-deb");
    build
        .args(["--build", "--root-owner-group"])
        .args([&dir.path().join("tree"), &deb]);
    let built = output_of(&mut build);
    assert!(built.status.success(), "{built:?}");
    for suite in Suite::ALL {
        let debian = Container::boot(suite);
        debian.install_deb(&deb);
        let state = debian.shell("dpkg-query --show --showformat='${Status}' tried");
        assert_eq!(state, "install ok installed");
    }
}
