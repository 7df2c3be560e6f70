//! The deb and the rpm, installed, upgraded, removed and purged where systemd runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::*;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Everything that is there, but for what a running system writes on its own.
fn files(debian: &Container) -> BTreeSet<String> {
    let all = debian.shell(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root \
         -o -path /var/log -o -path /var/tmp -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt \
         -o -path /var/lib/systemd/timers \\) -prune -o -print",
    );
    // Copies that the password tools keep of the files before, and their lock.
    let of_users = [
        "/etc/passwd-",
        "/etc/group-",
        "/etc/shadow-",
        "/etc/gshadow-",
        "/etc/.pwd.lock",
    ];
    let lines = all.lines().filter(|line| !of_users.contains(line));
    lines.map(str::to_owned).collect()
}

/// What is there now and was not there before.
fn left(debian: &Container, before: &BTreeSet<String>) -> Vec<String> {
    files(debian).difference(before).cloned().collect()
}

fn answers(debian: &Container, port: u16) {
    let line = format!("curl --silent --max-time 5 http://127.0.0.1:{port}/metrics");
    debian.until("/metrics answers", secs(20.0), &line, |ran| {
        ran.stdout.contains("\nws_keepalive_build_info{")
    });
}

fn main_pid(debian: &Container) -> String {
    debian.shell("systemctl show --property=MainPID --value ws-keepalive")
}

/// The default, but for the port, and with a target that nobody answers.
const EDITED: &str = "[metrics]\nlisten = \"127.0.0.1:8099\"\n\n\
    [[target]]\nname = \"kept\"\nurl = \"ws://127.0.0.1:9/ws\"\n";

#[test]
fn the_deb_is_installed_upgraded_removed_and_purged_on_debian_12() {
    life_of_the_deb(Suite::Bookworm);
}

#[test]
fn the_deb_is_installed_upgraded_removed_and_purged_on_debian_13() {
    life_of_the_deb(Suite::Trixie);
}

fn life_of_the_deb(suite: Suite) {
    let _machine = shared();
    let packages = packages();
    let debian = Container::boot(suite);
    let before = files(&debian);

    debian.install_deb(&packages.deb);
    assert_eq!(debian.shell("systemctl is-active ws-keepalive"), "active");
    assert_eq!(debian.shell("systemctl is-enabled ws-keepalive"), "enabled");
    answers(&debian, 8080);
    assert_eq!(
        debian.shell(
            "stat -c '%a %U:%G' /etc/ws-keepalive /etc/ws-keepalive.d /etc/ws-keepalive.toml"
        ),
        "750 root:ws-keepalive\n755 root:root\n644 root:root"
    );
    let user = debian.shell("ps -o user:20= -p $(systemctl show -p MainPID --value ws-keepalive)");
    assert_eq!(user, "ws-keepalive");
    debian.shell("ws-keepalive check && ws-keepalive status && websocket-keepalive --version");

    debian.write("/etc/ws-keepalive.toml", EDITED);
    debian.write("/etc/ws-keepalive/token", "secret\n");
    debian.write("/etc/ws-keepalive.d/more.toml", "");
    debian.shell("systemctl enable --now ws-keepalive-server@9000");
    let [daemon, server] = ["ws-keepalive", "ws-keepalive-server@9000"]
        .map(|unit| debian.shell(&format!("systemctl show -p MainPID --value {unit}")));
    debian.install_deb(&packages.next_deb);
    let version = debian.shell("dpkg-query --show --showformat='${Version}' ws-keepalive");
    assert_eq!(version, format!("{NEXT}-1"));
    assert_eq!(debian.read("/etc/ws-keepalive.toml"), EDITED);
    assert_eq!(debian.shell("systemctl is-active ws-keepalive"), "active");
    assert_ne!(main_pid(&debian), daemon, "restarted");
    let restarted = "systemctl show -p MainPID --value ws-keepalive-server@9000";
    assert_ne!(debian.shell(restarted), server, "restarted");
    answers(&debian, 8099);

    // Who disabled it is left in peace by an upgrade; here, by the version before.
    debian.shell("systemctl disable --now ws-keepalive");
    debian.install_deb(&packages.deb);
    assert_eq!(
        debian.run("systemctl is-enabled ws-keepalive").stdout,
        "disabled"
    );
    assert_eq!(
        debian.run("systemctl is-active ws-keepalive").stdout,
        "inactive"
    );
    debian.shell("systemctl enable --now ws-keepalive");

    let apt = "DEBIAN_FRONTEND=noninteractive apt-get -q -y";
    debian.shell(&format!("{apt} remove ws-keepalive"));
    assert_eq!(debian.run("pgrep -c ws-keepalive").stdout, "0");
    assert_eq!(debian.read("/etc/ws-keepalive.toml"), EDITED);
    assert!(debian.path("/etc/ws-keepalive/token").exists());
    assert!(!debian.path("/usr/bin/ws-keepalive").exists());

    debian.shell(&format!("{apt} purge ws-keepalive"));
    assert_eq!(left(&debian, &before), Vec::<String>::new());
    debian.shell("getent passwd ws-keepalive");
    assert_eq!(debian.shell("systemctl --failed --plain --no-legend"), "");
}

#[test]
fn a_start_that_fails_does_not_fail_the_installation_of_the_deb() {
    let _machine = shared();
    let debian = Container::boot(Suite::Bookworm);
    debian.write(
        "/etc/ws-keepalive.toml",
        "[metrics]\nlistten = \"127.0.0.1:8080\"\n",
    );
    debian.install_deb(&packages().deb);
    let state = debian.shell("dpkg-query --show --showformat='${Status}' ws-keepalive");
    assert_eq!(state, "install ok installed");
    assert_eq!(
        debian.run("systemctl is-active ws-keepalive").stdout,
        "failed"
    );
    debian.write("/etc/ws-keepalive.toml", EDITED);
    debian.shell("systemctl start ws-keepalive");
    answers(&debian, 8099);
}

#[test]
fn the_rpm_is_installed_upgraded_and_erased() {
    let _machine = shared();
    let packages = packages();
    let debian = Container::boot(Suite::Bookworm);
    let before = files(&debian);
    // What it requires is called otherwise in Debian.
    let rpm = |verb: &str, package: &Path| {
        let inside = debian.bring(package);
        let ran = debian.run(&format!("rpm {verb} --nodeps --force-debian {inside} 2>&1"));
        assert_eq!(
            (ran.code, &*ran.stdout),
            (0, ""),
            "{verb}: scriptlets say nothing"
        );
    };

    rpm("--install", &packages.rpm);
    assert_eq!(debian.shell("systemctl is-active ws-keepalive"), "active");
    assert_eq!(debian.shell("systemctl is-enabled ws-keepalive"), "enabled");
    answers(&debian, 8080);
    assert_eq!(
        debian.shell("stat -c '%a %U:%G' /etc/ws-keepalive /etc/ws-keepalive.d"),
        "750 root:ws-keepalive\n755 root:root"
    );
    debian.shell("ws-keepalive check && ws-keepalive status && websocket-keepalive --version");
    assert_eq!(
        debian.shell("rpm --query --configfiles ws-keepalive"),
        "/etc/ws-keepalive.toml"
    );

    debian.write("/etc/ws-keepalive.toml", EDITED);
    debian.shell("systemctl enable --now ws-keepalive-server@9000");
    let pid = main_pid(&debian);
    rpm("--upgrade", &packages.next_rpm);
    assert_eq!(
        debian.shell("rpm --query --queryformat '%{VERSION}' ws-keepalive"),
        NEXT
    );
    assert_eq!(debian.read("/etc/ws-keepalive.toml"), EDITED);
    assert_ne!(main_pid(&debian), pid, "restarted");
    answers(&debian, 8099);

    debian.shell("rpm --erase --nodeps --force-debian ws-keepalive");
    assert_eq!(debian.run("pgrep -c ws-keepalive").stdout, "0");
    assert_eq!(debian.read("/etc/ws-keepalive.toml.rpmsave"), EDITED);
    // Directories of others, who are not here: on EL, of `filesystem` and of the shells.
    let of_others = [
        "/usr/share/fish",
        "/usr/share/fish/vendor_completions.d",
        "/usr/share/licenses",
        "/usr/share/zsh/site-functions",
    ];
    let mut left = left(&debian, &before);
    left.retain(|path| !of_others.contains(&&**path));
    assert_eq!(left, ["/etc/ws-keepalive.toml.rpmsave"]);
    debian.shell("getent passwd ws-keepalive");

    // Where a configuration is there already it stays, and a start that it prevents prevents no more.
    debian.write("/etc/ws-keepalive.toml", "[metrics]\nlistten = 1\n");
    let inside = debian.bring(&packages.rpm);
    let said = debian.shell(&format!(
        "rpm --install --nodeps --force-debian {inside} 2>&1"
    ));
    let expected = "warning: /etc/ws-keepalive.toml created as /etc/ws-keepalive.toml.rpmnew";
    assert_eq!(said, expected);
    assert_eq!(
        debian.run("systemctl is-active ws-keepalive").stdout,
        "failed"
    );
}

#[test]
fn an_edited_configuration_is_kept_by_what_the_packages_say_of_it() {
    let _machine = shared();
    let packages = packages();
    let flags = output(
        "rpm",
        &[
            "--query",
            "--package",
            path(&packages.rpm),
            "--queryformat",
            "[%{FILENAMES} %{FILEFLAGS:fflags}\\n]",
        ],
    );
    // c: configuration, n: noreplace.
    assert!(
        flags
            .lines()
            .any(|line| line == "/etc/ws-keepalive.toml cn"),
        "{flags}"
    );
    let conffiles = output("dpkg-deb", &["--info", path(&packages.deb), "conffiles"]);
    assert_eq!(conffiles.trim(), "/etc/ws-keepalive.toml");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a program prints that ends well and says nothing else.
fn output(program: &str, arguments: &[&str]) -> String {
    let ran = output_of(Command::new(program).args(arguments));
    let [said, complained] =
        [ran.stdout, ran.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(
        ran.status.success(),
        "{program}: {}: {said}{complained}",
        ran.status
    );
    said
}

/// What both packages hold, by its mode; `*` stands for one part of a path, of which there is one at least.
const CONTENTS: &[(&str, &str)] = &[
    ("-rw-r--r--", "/etc/ws-keepalive.toml"),
    ("-rwxr-xr-x", "/usr/bin/ws-keepalive"),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/ws-keepalive-server@.service",
    ),
    ("-rw-r--r--", "/usr/lib/systemd/system/ws-keepalive.service"),
    ("-rw-r--r--", "/usr/lib/sysusers.d/ws-keepalive.conf"),
    ("-rw-r--r--", "/usr/lib/tmpfiles.d/ws-keepalive.conf"),
    (
        "-rw-r--r--",
        "/usr/share/bash-completion/completions/ws-keepalive",
    ),
    ("-rw-r--r--", "/usr/share/doc/ws-keepalive/CHANGELOG.md"),
    ("-rw-r--r--", "/usr/share/doc/ws-keepalive/README.md"),
    ("-rw-r--r--", "/usr/share/doc/ws-keepalive/config/demo.toml"),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/config/examples/*.toml",
    ),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/config/ws-keepalive.toml",
    ),
    ("-rw-r--r--", "/usr/share/doc/ws-keepalive/docs/*.md"),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/examples/proxies/caddy/Caddyfile",
    ),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/examples/proxies/haproxy/haproxy.cfg",
    ),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/examples/proxies/nginx/*.conf",
    ),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/examples/proxies/ws-keepalive.toml",
    ),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/examples/systemd/*",
    ),
    (
        "-rw-r--r--",
        "/usr/share/fish/vendor_completions.d/ws-keepalive.fish",
    ),
    ("-rw-r--r--", "/usr/share/man/man1/ws-keepalive*.1.gz"),
    ("-rw-r--r--", "/usr/share/man/man5/ws-keepalive.toml.5.gz"),
    ("-rw-r--r--", "/usr/share/ws-keepalive/grafana/*.json"),
    (
        "-rw-r--r--",
        "/usr/share/ws-keepalive/prometheus/*.rules.yml",
    ),
];
const ONLY_DEB: &[(&str, &str)] = &[
    ("lrwxrwxrwx", "/usr/bin/websocket-keepalive"),
    ("lrwxrwxrwx", "/usr/share/man/man1/websocket-keepalive.1.gz"),
    (
        "-rw-r--r--",
        "/usr/share/doc/ws-keepalive/changelog.Debian.gz",
    ),
    ("-rw-r--r--", "/usr/share/doc/ws-keepalive/changelog.gz"),
    ("-rw-r--r--", "/usr/share/doc/ws-keepalive/copyright"),
    ("-rw-r--r--", "/usr/share/lintian/overrides/ws-keepalive"),
    (
        "-rw-r--r--",
        "/usr/share/zsh/vendor-completions/_ws-keepalive",
    ),
];
const ONLY_RPM: &[(&str, &str)] = &[
    ("-rwxr-xr-x", "/usr/bin/websocket-keepalive"),
    ("-rw-r--r--", "/usr/share/man/man1/websocket-keepalive.1.gz"),
    ("-rw-r--r--", "/usr/share/licenses/ws-keepalive/LICENSE*"),
    ("-rw-r--r--", "/usr/share/zsh/site-functions/_ws-keepalive"),
];

/// `listed` are lines of mode and path.
fn holds_exactly(listed: &[(String, String)], only: &[(&str, &str)]) {
    let expected: Vec<_> = CONTENTS.iter().chain(only).collect();
    let fits = |(mode, path): &(String, String), (wanted, pattern): &(&str, &str)| {
        mode == wanted
            && match pattern.split_once('*') {
                None => path == pattern,
                Some((before, after)) => path
                    .strip_prefix(before)
                    .and_then(|rest| rest.strip_suffix(after))
                    .is_some_and(|between| !between.contains('/')),
            }
    };
    for file in listed {
        let known = expected.iter().any(|pattern| fits(file, pattern));
        assert!(known, "not in the table: {file:?}");
    }
    for pattern in &expected {
        let there = listed.iter().any(|file| fits(file, pattern));
        assert!(there, "missing: {pattern:?} in {listed:#?}");
    }
}

#[test]
fn the_packages_hold_what_the_table_says_and_nothing_else() {
    let _machine = shared();
    let packages = packages();
    let deb = output("dpkg-deb", &["--contents", path(&packages.deb)]);
    let deb: Vec<(String, String)> = deb
        .lines()
        .filter(|line| !line.starts_with('d'))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[1], "0/0", "root's: {line}");
            (
                words[0].to_owned(),
                words[5].trim_start_matches('.').to_owned(),
            )
        })
        .collect();
    holds_exactly(&deb, ONLY_DEB);
    let format = "[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\\n]";
    let rpm = [
        "--query",
        "--package",
        path(&packages.rpm),
        "--queryformat",
        format,
    ];
    let rpm: Vec<(String, String)> = output("rpm", &rpm)
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[1], "root:root", "{line}");
            (words[0].to_owned(), words[2].to_owned())
        })
        .collect();
    holds_exactly(&rpm, ONLY_RPM);
}

#[test]
fn lintian_and_rpmlint_find_nothing() {
    let _machine = shared();
    let packages = packages();
    let arguments = ["--fail-on", "error,warning", path(&packages.deb)];
    assert_eq!(output("lintian", &arguments), "");
    let overrides =
        std::fs::read_to_string(format!("{REPOSITORY}/packaging/debian/lintian-overrides"));
    let overrides = overrides.unwrap();
    let overrides: Vec<&str> = overrides
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(overrides, ["ws-keepalive: initial-upload-closes-no-bugs"]);

    let config = format!("{REPOSITORY}/packaging/rpm/rpmlint.toml");
    let said = output("rpmlint", &["--config", &config, path(&packages.rpm)]);
    assert!(said.contains(" 0 errors, 0 warnings"), "{said}");
}

#[test]
fn a_binary_for_a_newer_glibc_than_el_9_has_is_not_packaged() {
    let _machine = shared();
    let dir = ConfigDir::new();
    let mut refused = make_packages(dir.path(), &[("GLIBC", "2.2.5")]);
    assert_eq!(exit_code(refused.wait(secs(60.0))), 1);
    let said = refused.stderr.texts().join("\n");
    assert!(
        said.contains("newer than the GLIBC_2.2.5 of EL 9"),
        "{said}"
    );
    let made = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(made, 0);
    // And what is packaged asks for no newer one.
    let requires = output(
        "rpm",
        &["--query", "--package", "--requires", path(&packages().rpm)],
    );
    let versions = requires
        .lines()
        .filter_map(|line| line.split_once("(GLIBC_2."));
    let newest = versions
        .filter_map(|(_, rest)| rest.split(['.', ')']).next()?.parse::<u32>().ok())
        .max();
    assert!(newest.is_some_and(|minor| minor <= 34), "{requires}");
}

/// The files of the deb.
fn unpacked() -> ConfigDir {
    let dir = ConfigDir::new();
    output(
        "dpkg-deb",
        &["--extract", path(&packages().deb), path(dir.path())],
    );
    dir
}

/// The files of the rpm.
fn unpacked_rpm() -> ConfigDir {
    let dir = ConfigDir::new();
    let line = format!(
        "rpm2archive --nocompression - <{} | tar --extract --directory {}",
        path(&packages().rpm),
        path(dir.path())
    );
    output("bash", &["-o", "pipefail", "-c", &line]);
    dir
}

#[test]
fn links_of_the_packaged_pages_lead_somewhere() {
    let _machine = shared();
    for (kind, package) in [("deb", unpacked()), ("rpm", unpacked_rpm())] {
        let root = package.path().join("usr/share/doc/ws-keepalive");
        let pages = links::pages(&root);
        assert!(pages.len() > 8, "{kind}: {:?}", pages.keys());
        let broken = links::broken(&pages, |path| root.join(path).exists());
        assert!(broken.is_empty(), "{kind}:\n{}", broken.join("\n"));
        // What is not followed in the source's pages is still there by its words.
        let index = &pages[Path::new("docs/README.md")];
        assert!(
            index.contains("How it is built: ARCHITECTURE.md.\n"),
            "{kind}: {index}"
        );
    }
}

#[test]
fn the_man_pages_are_without_fault_to_man_and_mandoc() {
    let _machine = shared();
    let root = unpacked();
    let mut seen = 0;
    for section in ["man1", "man5"] {
        let pages = root.path().join("usr/share/man").join(section);
        for page in std::fs::read_dir(pages).unwrap().flatten() {
            let page = page.path();
            let mut lint = Command::new("mandoc");
            let found = output_of(lint.args(["-Tlint", "-Wwarning"]).arg(&page));
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            assert_eq!(found, "", "{page:?}");
            let mut man = Command::new("man");
            man.args(["--warnings", "--encoding=UTF-8", "--local-file"])
                .arg(&page)
                .env("LC_ALL", "C.UTF-8")
                .env("MANWIDTH", "100");
            let man = output_of(&mut man);
            assert_eq!(String::from_utf8_lossy(&man.stderr), "", "{page:?}");
            let text = String::from_utf8_lossy(&man.stdout).into_owned();
            assert!(
                text.contains("SEE ALSO") && text.contains("ws-keepalive 0."),
                "{page:?}: {text}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_completions_complete_in_bash_zsh_and_fish() {
    let _machine = shared();
    let root = unpacked();
    let share = root.path().join("usr/share");
    let bash = format!(
        "set -e; . /usr/share/bash-completion/bash_completion; . {}/bash-completion/completions/ws-keepalive\n\
         COMP_WORDS=(ws-keepalive re) COMP_CWORD=1\n_ws__keepalive ws-keepalive re ws-keepalive\n\
         echo \"${{COMPREPLY[*]}}\"; complete -p ws-keepalive",
        share.display()
    );
    let said = output("bash", &["--norc", "-c", &bash]);
    assert!(said.starts_with("reload\ncomplete "), "{said}");
    let zsh = format!(
        "fpath=({}/zsh/vendor-completions $fpath); autoload -U compinit; compinit -D -u\n\
         echo $_comps[ws-keepalive]; autoload +X -U _ws-keepalive && whence -w _ws-keepalive",
        share.display()
    );
    let said = output("zsh", &["-f", "-c", &zsh]);
    assert_eq!(said, "_ws-keepalive\n_ws-keepalive: function\n");
    let fish = format!(
        "source {}/fish/vendor_completions.d/ws-keepalive.fish; complete -C 'ws-keepalive re'",
        share.display()
    );
    let said = output("fish", &["--no-config", "-c", &fish]);
    assert!(said.starts_with("reload\t"), "{said}");
}

#[test]
fn the_packaged_configuration_is_good_and_so_are_its_examples() {
    let _machine = shared();
    let file = format!("{REPOSITORY}/packaging/ws-keepalive.toml");
    let said = check(Path::new(&file));
    assert!(!said.contains("warning"), "{said}");
    let dir = ConfigDir::new();
    let authority = Pki::new("example");
    std::fs::copy(authority.ca(), dir.path().join("ca.pem")).unwrap();
    std::fs::write(dir.path().join("chat.token"), "token\n").unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    // An example is a comment without a space.
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(example) if example.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            example
        }
        _ => line,
    });
    let examples = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(examples.matches("\n[[target]]").count(), 3, "{examples}");
    dir.overwrite(&examples.replace("/etc/ws-keepalive/", &format!("{}/", dir.path().display())));
    let said = check(&dir.file());
    assert!(!said.contains("warning"), "{said}");
}

/// What `check` says of a file that it takes.
fn check(file: &Path) -> String {
    let mut check = Process::spawn("check", &mut program(&["check", path(file)]));
    let status = check.wait(secs(20.0));
    let said = [check.stdout.texts(), check.stderr.texts()]
        .concat()
        .join("\n");
    assert!(status.success(), "{status}: {said}");
    said
}

#[test]
fn the_kubernetes_example_is_yaml_and_its_configuration_is_good() {
    let _machine = shared();
    let file = format!("{REPOSITORY}/packaging/kubernetes/ws-keepalive.yaml");
    let script = "puts JSON.generate(YAML.load_stream(File.read(ARGV[0])))";
    let json = output("ruby", &["-ryaml", "-rjson", "-e", script, &file]);
    let objects: Vec<Value> = serde_json::from_str(&json).unwrap();
    let of_kind = |kind: &str| {
        objects
            .iter()
            .find(|object| object["kind"] == kind)
            .unwrap()
    };
    let text = of_kind("ConfigMap")["data"]["ws-keepalive.toml"]
        .as_str()
        .unwrap();
    let dir = ConfigDir::new();
    let secrets = of_kind("Secret")["stringData"].as_object().unwrap();
    for (name, value) in secrets {
        std::fs::write(dir.path().join(name), value.as_str().unwrap()).unwrap();
    }
    dir.overwrite(&text.replace("/etc/ws-keepalive/secrets", path(dir.path())));
    check(&dir.file());

    let pod = &of_kind("Deployment")["spec"]["template"]["spec"];
    let image = concat!("ws-keepalive:", env!("CARGO_PKG_VERSION"));
    assert_eq!(pod["containers"][0]["image"], image);
    assert_eq!(pod["enableServiceLinks"], false);
    let container = &pod["containers"][0];
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
    }
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    // What is named is there: a volume for each mount, and the file where the flag says.
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in container["volumeMounts"].as_array().unwrap() {
        let there = volumes.iter().any(|volume| volume["name"] == mount["name"]);
        assert!(there && mount["subPath"].is_null(), "{mount}");
    }
    assert_eq!(
        container["args"][2],
        "/etc/ws-keepalive/config/ws-keepalive.toml"
    );
}
