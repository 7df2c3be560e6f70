//! Links in the documentation lead somewhere: files are there, anchors are headings, and every page is
//! in the index.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Where people read. Below them every `*.md` counts.
const PLACES: [&str; 3] = ["docs", "examples", "packaging"];
const FILES: [&str; 4] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
];

#[test]
fn every_relative_link_and_anchor_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 8, "{:?}", pages.keys());
    let broken = broken(&pages, |path| root().join(path).exists());
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_index() {
    let pages = pages();
    let index = Path::new("docs/README.md");
    let linked: BTreeSet<PathBuf> = links(&pages[index])
        .iter()
        .map(|link| place(index, link).0)
        .collect();
    let in_docs = pages.keys().filter(|path| path.starts_with("docs"));
    let missing: Vec<_> = in_docs
        .filter(|path| *path != index && !linked.contains(*path))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/README.md does not link {missing:?}"
    );
}

#[test]
fn what_is_broken_is_found() {
    let pages = BTreeMap::from([
        (
            PathBuf::from("docs/a.md"),
            "# A page\n[here](#a-page) [gone](#b) [b](b.md#the-targettls-of-it) [none](c.md)\n\
             [up](../README.md) [out](https://example.com/x.md) [half](b.md#the)\n\
             ```\n[code](nowhere.md)\n# no heading\n```\n[code is none](#no-heading)\n"
                .to_owned(),
        ),
        (
            PathBuf::from("docs/b.md"),
            "## The `[target.tls]` of it\n<a id=\"by-hand\"></a>\n## Twice\n## Twice\n[both](#twice) [both](#twice-1) [no](#twice-2) [hand](#by-hand)\n"
                .to_owned(),
        ),
    ]);
    let found = broken(&pages, |path| path == Path::new("README.md"));
    assert_eq!(
        found,
        [
            "docs/a.md: (#b) is no anchor of docs/a.md",
            "docs/a.md: (c.md): docs/c.md is not there",
            "docs/a.md: (b.md#the) is no anchor of docs/b.md",
            "docs/a.md: (#no-heading) is no anchor of docs/a.md",
            "docs/b.md: (#twice-2) is no anchor of docs/b.md",
        ]
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page by its path from the root.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut found: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    let mut directories: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    found.into_iter().map(read).collect()
}

/// Each link that leads nowhere, in words.
fn broken(pages: &BTreeMap<PathBuf, String>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for (page, text) in pages {
        for link in links(text) {
            let (target, anchor) = place(page, &link);
            let (page, shown) = (page.display(), target.display());
            let known = pages.get(&target);
            if known.is_none() && !exists(&target) {
                broken.push(format!("{page}: ({link}): {shown} is not there"));
            } else if let (Some(text), Some(anchor)) = (known, anchor)
                && !anchors(text).contains(&anchor)
            {
                broken.push(format!("{page}: ({link}) is no anchor of {shown}"));
            }
        }
    }
    broken
}

/// The relative links of `text`, code apart.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        for rest in line.split("](").skip(1) {
            let link = rest.split([')', ' ']).next().unwrap();
            let is_elsewhere = link.contains("://") || link.starts_with("mailto:");
            if !is_elsewhere {
                links.push(link.to_owned());
            }
        }
    }
    links
}

/// Where `link` of `page` leads: the path from the root, and the anchor there.
fn place(page: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (link, None),
    };
    if path.is_empty() {
        return (page.to_owned(), anchor);
    }
    let mut place = page.parent().unwrap().to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            Component::CurDir => {}
            part => place.push(part),
        }
    }
    (place, anchor)
}

/// The anchors of the headings, made as the hosts of repositories make them, and those that are written
/// as `<a id="..">`.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let written = line.split("<a id=\"").skip(1);
        anchors.extend(written.map(|rest| rest.split('"').next().unwrap().to_owned()));
        let Some(heading) = line.strip_prefix('#') else {
            continue;
        };
        let heading = heading.trim_start_matches('#').trim();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let anchor = anchor.to_lowercase();
        let numbered = (1..).map(|n| format!("{anchor}-{n}"));
        let mut names = std::iter::once(anchor.clone()).chain(numbered);
        anchors.insert(names.find(|name| !anchors.contains(name)).unwrap());
    }
    anchors
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}
