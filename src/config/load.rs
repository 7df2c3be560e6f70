//! From files, environment and flags to a [`Config`].

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flags::FlagTarget;
use super::layer::Document;
use super::layers::Layers;
pub(crate) use super::mistake::{Mistake, Report};
use super::print;
use super::resolve::{Variable, resolve};
use super::{Config, LogFormat, LogLevel, Secret};
use crate::os;

/// Read when `--config` is not given.
pub(crate) const DEFAULT_FILE: &str = "/etc/ws-keepalive.toml";

/// What to do about a missing file when `run` is what was asked for.
const RUN_REMEDY: &str = "name one by --config, or a target by --target URL";

/// Where the configuration comes from. Kept for the life of the process: a reload calls [`load`]
/// with the same sources, so overrides keep winning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The main file; `None` for [`DEFAULT_FILE`].
    pub(crate) file: Option<PathBuf>,
    /// `--config` was given: the file must exist. Otherwise it may be missing if there is a
    /// `--target`.
    pub(crate) required: bool,
    /// What to do about a missing [`DEFAULT_FILE`]; `None` for what helps `run`.
    pub(crate) remedy: Option<&'static str>,
    pub(crate) overrides: Overrides,
}

impl Sources {
    /// The main file.
    pub(crate) fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// The directory beside the main file whose `*.toml` are read after it.
    pub(crate) fn drop_in_dir(&self) -> PathBuf {
        let path = self.path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            path.with_extension("d")
        } else {
            let mut name = path.as_os_str().to_owned();
            name.push(".d");
            name.into()
        }
    }
}

/// What flags said. `None` and empty: not given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// `--ping-interval`: beats a target's own key.
    pub(crate) ping_interval: Option<Duration>,
    /// `--max-retry-limit`: beats a target's own key.
    pub(crate) max_retry_limit: Option<u32>,
    /// `--metrics[=bool]`.
    pub(crate) metrics: Option<bool>,
    /// `--metrics-server`: an address or `unix:/path`, checked by [`load`].
    pub(crate) metrics_server: Option<String>,
    /// `--log-level`.
    pub(crate) log_level: Option<LogLevel>,
    /// `--log-format`.
    pub(crate) log_format: Option<LogFormat>,
    /// `--set PATH=VALUE`, as given, in order. May hold secrets.
    pub(crate) set: Vec<Secret<String>>,
    /// `--target URL`, as given, in order. May hold secrets.
    pub(crate) targets: Vec<Secret<String>>,
    /// A target that flags describe key by key.
    pub(crate) flag_target: Option<FlagTarget>,
}

/// A configuration that holds together, and what was read for it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Files that were read, in order.
    pub(crate) files: Vec<PathBuf>,
    /// What is allowed but hardly meant, each in one line.
    pub(crate) warnings: Vec<String>,
}

/// Reads and judges everything; touches nothing but the files it names.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, Report> {
    load_with(sources, &environment(), |_, loaded| loaded)
}

/// Like [`load`], and the effective configuration as TOML, with the source of each value and
/// without secrets.
pub(crate) fn explain(sources: &Sources) -> Result<(Loaded, String), Report> {
    explain_with(sources, &environment())
}

/// What flags alone say: no file, no environment. For commands that hold one connection.
pub(crate) fn load_flags(target: FlagTarget) -> Result<Loaded, Report> {
    let overrides = Overrides {
        flag_target: Some(target),
        ..Overrides::default()
    };
    let given = Given {
        files: &[],
        variables: &[],
        overrides: &overrides,
    };
    // Secrets may be kept in variables all the same.
    let variable = |name: &str| std::env::var_os(name);
    judge(given, &variable, Vec::new(), |_, loaded| loaded)
}

/// The process's environment; it does not change while we run. That of tests is of whoever runs
/// them, and counts for nothing.
fn environment() -> Vec<(OsString, OsString)> {
    if cfg!(test) {
        return Vec::new();
    }
    std::env::vars_os().collect()
}

pub(super) fn explain_with(
    sources: &Sources,
    variables: &[(OsString, OsString)],
) -> Result<(Loaded, String), Report> {
    load_with(sources, variables, |layers, loaded| {
        let text = print::effective(layers, &loaded.config);
        (loaded, text)
    })
}

/// Loads, and hands the layers to `finish` before they are dropped.
pub(super) fn load_with<T>(
    sources: &Sources,
    variables: &[(OsString, OsString)],
    finish: impl FnOnce(&Layers<'_>, Loaded) -> T,
) -> Result<T, Report> {
    let mut mistakes = Vec::new();
    let files = read_files(sources, &mut mistakes);
    let given = Given {
        files: &files,
        variables,
        overrides: &sources.overrides,
    };
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    judge(given, &variable, mistakes, finish)
}

/// What the layers are made of.
#[derive(Clone, Copy)]
struct Given<'a> {
    files: &'a [(PathBuf, String)],
    variables: &'a [(OsString, OsString)],
    overrides: &'a Overrides,
}

/// Parses, layers and resolves; `mistakes` are those already found.
fn judge<T>(
    given: Given<'_>,
    variable: Variable<'_>,
    mut mistakes: Vec<Mistake>,
    finish: impl FnOnce(&Layers<'_>, Loaded) -> T,
) -> Result<T, Report> {
    let files = given.files;
    let documents: Vec<Document<'_>> = files
        .iter()
        .enumerate()
        .map(|(n, (path, text))| Document::parse(path, text, n > 0, &mut mistakes))
        .collect();
    // Half a file makes no sense as a whole: a table may have lost what others refer to.
    let whole = mistakes.is_empty();
    let layers = Layers::new(documents, given.variables, given.overrides, &mut mistakes);
    let mut warnings = Vec::new();
    let config = whole.then(|| resolve(&layers, variable, &mut mistakes, &mut warnings));
    match config {
        Some(config) if mistakes.is_empty() => {
            let files = files.iter().map(|(path, _)| path.clone()).collect();
            let loaded = Loaded {
                config,
                files,
                warnings,
            };
            Ok(finish(&layers, loaded))
        }
        _ => Err(Report::sorted(
            mistakes,
            files.iter().map(|(path, _)| path.as_path()),
        )),
    }
}

/// The main file, always the first, and those of its `.d` directory in name order. A main file
/// that may be missing and is, is empty.
fn read_files(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut missing = |path: &Path, message: String| {
        mistakes.push(Mistake {
            place: path.display().to_string(),
            key: String::new(),
            message,
        });
    };
    match read_text(sources.path()) {
        Ok(text) => files.push((sources.path().to_owned(), text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !sources.required => {
            if sources.overrides.targets.is_empty() {
                let remedy = sources.remedy.unwrap_or(RUN_REMEDY);
                missing(sources.path(), format!("no such file; {remedy}"));
            }
            return files;
        }
        Err(error) => {
            missing(
                sources.path(),
                format!("cannot be read: {}", os::words(&error)),
            );
            return files;
        }
    }
    let directory = sources.drop_in_dir();
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return files,
        Err(error) => {
            missing(&directory, format!("cannot be read: {}", os::words(&error)));
            return files;
        }
    };
    let mut paths = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => paths.push(entry.path()),
            Err(error) => missing(&directory, format!("cannot be read: {}", os::words(&error))),
        }
    }
    // Hidden files are those an editor or Kubernetes is still writing.
    paths.retain(|path| {
        let hidden = path
            .file_name()
            .is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|ext| ext == "toml") && !path.is_dir()
    });
    paths.sort_unstable();
    for path in paths {
        // Opening a pipe would wait for its writer, and hold every reload meanwhile.
        if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            missing(&path, "cannot be read: not a regular file".into());
            continue;
        }
        match read_text(&path) {
            Ok(text) => files.push((path, text)),
            Err(error) => missing(&path, format!("cannot be read: {}", os::words(&error))),
        }
    }
    files
}

/// Larger files are no configuration: ten times what 15,000 targets take.
const LARGEST_FILE: u64 = 16 << 20;

fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8"))
    })
}
