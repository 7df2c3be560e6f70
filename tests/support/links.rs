//! The relative links of Markdown pages, followed: files are there, anchors are headings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Every `*.md` below `root` by its path from there.
pub(crate) fn pages(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(entry.path()).unwrap();
                found.insert(path, text);
            }
        }
    }
    found
}

/// Each link that leads nowhere, in words.
pub(crate) fn broken(
    pages: &BTreeMap<PathBuf, String>,
    exists: impl Fn(&Path) -> bool,
) -> Vec<String> {
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
pub(crate) fn links(text: &str) -> Vec<String> {
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
pub(crate) fn place(page: &Path, link: &str) -> (PathBuf, Option<String>) {
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
