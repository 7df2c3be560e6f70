//! Links in the documentation lead somewhere: files are there, anchors are headings, and every page is
//! in the index.
#![allow(clippy::unwrap_used)]

#[path = "support/links.rs"]
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use links::{broken, links, place};

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
    let files = FILES.into_iter().map(|file| {
        let text = fs::read_to_string(root().join(file)).unwrap();
        (PathBuf::from(file), text)
    });
    let below = PLACES.into_iter().flat_map(|place| {
        let pages = links::pages(&root().join(place)).into_iter();
        pages.map(move |(path, text)| (Path::new(place).join(path), text))
    });
    files.chain(below).collect()
}
