//! What ought to be served, and from where.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::attainment::OBJECTIVE_BY_DEFAULT;
use crate::backend::Backend;
use crate::conduct::Watch;
use crate::error::ControlError;
use crate::golden::Golden;
use crate::routing::Route;
use crate::tuning::Tuning;

/// States what ought to be served. Stateless: asked twice about the same repository it answers the same.
pub trait Registry: Send {
    /// # Errors
    /// The repository as a whole cannot be read. A fault of one model is part of the answer.
    fn desired(&mut self) -> Result<Desired, RegistryError>;

    /// From now on the model is to be served from what an operator hands over.
    ///
    /// # Errors
    /// The contents are at fault, or this registry takes none.
    fn hand_over(&mut self, _model: &str, _contents: HandedOver) -> Result<(), ControlError> {
        let text =
            "this server takes no configuration or files with a load: put them into the model repository";
        Err(ControlError::Refused(text.into()))
    }

    /// Says whether what was handed over serves. If not, what was handed over before it is desired again, or
    /// else the repository's.
    fn conclude(&mut self, _model: &str, _serves: bool) {}

    /// Drops what was handed over.
    fn take_back(&mut self, _model: &str) {}

    /// Drops what was handed over if the repository has the model.
    fn prefer_own(&mut self, _model: &str) {}

    /// Writes the routes down in place of those that [`Registry::desired`] says: all of them or, where that fails,
    /// none.
    ///
    /// # Errors
    /// They cannot be written, or this registry keeps none.
    fn keep_routes(&mut self, _routes: &[Route]) -> Result<(), ControlError> {
        Err(ControlError::Refused("this server's repository keeps no routes".into()))
    }
}

/// What an operator hands over to be served in place of what the repository has.
#[derive(Clone, Debug, Default)]
pub struct HandedOver {
    /// The model's configuration, in the registry's own language.
    pub config: String,
    /// By `<version>/<name>`; none where only the configuration is another.
    pub files: BTreeMap<String, Bytes>,
}

/// The repository cannot be read; the text says which and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegistryError(pub String);

/// Models by name, and the routes to them.
#[derive(Clone, Default)]
pub struct Desired {
    pub models: BTreeMap<String, DesiredModel>,
    pub routes: DesiredRoutes,
}

/// What the repository says about routes.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredRoutes {
    Read(Vec<Route>),
    /// They were written to a moment ago: they may be half written.
    Changing,
    Faulty {
        reason: String,
    },
}

/// A model in the repository: either its versions with its settings, or what is wrong with it.
#[derive(Clone)]
pub enum DesiredModel {
    Sound { versions: BTreeMap<u64, VersionSource>, settings: Arc<ModelSettings> },
    Faulty { reason: String },
}

/// One version in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionSource {
    /// The model file.
    pub path: PathBuf,
    pub stamp: Stamp,
    pub state: SourceState,
}

/// Whether a version may be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceState {
    Complete,
    /// Its files were written to a moment ago: it may be half copied.
    Changing,
    /// It must not be loaded, for this reason.
    Refused(String),
}

/// Identifies the contents of a version by the names, sizes, times and inodes of its files and of the
/// model's settings. Other contents have another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// How to run a model.
#[derive(Clone)]
pub struct ModelSettings {
    pub backend: Arc<dyn Backend>,
    pub tuning: Tuning,
    pub lifecycle: Lifecycle,
    /// The share of requests that ought to be answered in time.
    pub slo_objective: f64,
    /// The model file's name inside a version's directory.
    pub file_name: String,
    /// Run before a version is loaded, with the version's directory.
    pub prepare: Prepare,
}

/// Which versions serve, and under which names.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifecycle {
    pub policy: VersionPolicy,
    /// Names that may be used wherever a version may. `stable` is what a request without a version gets.
    pub labels: BTreeMap<String, u64>,
    /// How long a version stays loaded after its successor serves, so that the way back is one swap.
    pub keep_previous: Duration,
    /// A version may change the signature of the one that serves.
    pub allow_signature_change: bool,
    /// How a version is watched after it has become the default; not at all if `None`.
    pub watch: Option<Watch>,
}

/// Which of the versions in the repository serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many that can be loaded.
    Latest(usize),
    All,
    Specific(BTreeSet<u64>),
}

/// What is known of a version beside its model file.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    pub golden: Option<Golden>,
    /// For people, such as a checksum manifest that matches.
    pub notes: Vec<String>,
}

/// Checks and reads what lies beside a version's model file; an error says what is wrong with it.
pub type Prepare = Arc<dyn Fn(&Path) -> Result<Prepared, String> + Send + Sync>;

/// Reads a model's optional settings file; the text of an error names the file and the field.
pub type ReadSettings = Box<dyn Fn(&Path) -> Result<ModelSettings, String> + Send>;

/// A directory of `<model>/<version>/model.onnx`.
pub struct DirRegistry {
    root: PathBuf,
    read_settings: ReadSettings,
    settle: Duration,
}

/// The model file's name where the settings do not say.
pub const MODEL_FILE: &str = "model.onnx";
/// A version with this file is complete, whatever its times say.
pub const COMPLETE_MARKER: &str = ".complete";
/// Versions that serve where the settings do not say: the newest and the one to go back to.
pub const VERSIONS_BY_DEFAULT: usize = 2;
/// How long a previous version stays loaded where the settings do not say.
pub const KEEP_PREVIOUS_BY_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Directories below a version's that are looked into: external data may lie in a few.
const DEPTH_MAX: usize = 4;

// === impl DesiredRoutes ===

impl Default for DesiredRoutes {
    fn default() -> DesiredRoutes {
        DesiredRoutes::Read(Vec::new())
    }
}

// === impl Lifecycle ===

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle {
            policy: VersionPolicy::Latest(VERSIONS_BY_DEFAULT),
            labels: BTreeMap::new(),
            keep_previous: KEEP_PREVIOUS_BY_DEFAULT,
            allow_signature_change: false,
            watch: Some(Watch::default()),
        }
    }
}

// === impl VersionPolicy ===

impl fmt::Display for VersionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionPolicy::Latest(1) => f.write_str("the latest"),
            VersionPolicy::Latest(count) => write!(f, "the latest {count}"),
            VersionPolicy::All => f.write_str("all"),
            VersionPolicy::Specific(versions) => {
                let versions: Vec<String> = versions.iter().map(u64::to_string).collect();
                write!(f, "only {}", versions.join(", "))
            }
        }
    }
}

// === impl ModelSettings ===

impl ModelSettings {
    /// Settings that leave everything to derivation.
    pub fn new(backend: Arc<dyn Backend>) -> ModelSettings {
        ModelSettings {
            backend,
            tuning: Tuning::default(),
            lifecycle: Lifecycle::default(),
            slo_objective: OBJECTIVE_BY_DEFAULT,
            file_name: MODEL_FILE.into(),
            prepare: Arc::new(|_| Ok(Prepared::default())),
        }
    }
}

// === impl DirRegistry ===

impl DirRegistry {
    /// `read_settings` is given a model's directory. A version is complete when none of its files was
    /// written to for `settle`.
    pub fn new(root: PathBuf, read_settings: ReadSettings, settle: Duration) -> DirRegistry {
        DirRegistry { root, read_settings, settle }
    }

    fn model(&self, root: &Path, directory: &Path) -> DesiredModel {
        let faulty = |reason| DesiredModel::Faulty { reason };
        match inside(root, directory) {
            Ok(true) => {}
            Ok(false) => return faulty(leads_out(directory)),
            Err(error) => return faulty(format!("cannot read {}: {error}", directory.display())),
        }
        let settings = match (self.read_settings)(directory) {
            Ok(settings) => settings,
            Err(reason) => return faulty(reason),
        };
        let versions = match self.versions(root, directory, &settings.file_name) {
            Ok(versions) => versions,
            Err(error) => return faulty(format!("cannot read {}: {error}", directory.display())),
        };
        if versions.is_empty() {
            return faulty(format!(
                "{} has no version: expected <number>/{file} in it, for example 1/{file}",
                directory.display(),
                file = settings.file_name
            ));
        }
        DesiredModel::Sound { versions, settings: Arc::new(settings) }
    }

    /// Version directories are positive whole numbers without leading zeros; others are not versions.
    fn versions(
        &self,
        root: &Path,
        directory: &Path,
        file_name: &str,
    ) -> io::Result<BTreeMap<u64, VersionSource>> {
        let mut versions = BTreeMap::new();
        let mut settings = DefaultHasher::new();
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for path in entries.iter().map(fs::DirEntry::path) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if let Ok(metadata) = fs::metadata(&path)
                && metadata.is_file()
            {
                hash_file(&mut settings, Path::new(name), &metadata);
            }
        }
        for path in entries.iter().map(fs::DirEntry::path) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(version) = name.parse::<u64>() else { continue };
            if version == 0 || version.to_string() != name || !path.is_dir() {
                continue;
            }
            versions.insert(version, self.version(root, &path, file_name, settings.clone()));
        }
        Ok(versions)
    }

    fn version(
        &self,
        root: &Path,
        directory: &Path,
        file_name: &str,
        mut hasher: DefaultHasher,
    ) -> VersionSource {
        let mut files = Files::default();
        let state = match files.read(root, directory, Path::new(""), 0) {
            Ok(()) if files.has_marker || !self.may_change(files.changed) => SourceState::Complete,
            Ok(()) => SourceState::Changing,
            Err(reason) => SourceState::Refused(reason),
        };
        for (path, metadata) in &files.found {
            hash_file(&mut hasher, path, metadata);
        }
        VersionSource { path: directory.join(file_name), stamp: Stamp(hasher.finish()), state }
    }

    /// Whether files that last changed at this time may still be written to. A time in the future comes from
    /// another machine's clock, and tells nothing.
    fn may_change(&self, changed: SystemTime) -> bool {
        SystemTime::now().duration_since(changed).is_ok_and(|age| age < self.settle)
    }
}

impl Registry for DirRegistry {
    fn desired(&mut self) -> Result<Desired, RegistryError> {
        let unreadable = |error: io::Error| {
            RegistryError(format!("cannot read the model repository {}: {error}", self.root.display()))
        };
        let root = self.root.canonicalize().map_err(unreadable)?;
        let mut models = BTreeMap::new();
        for entry in fs::read_dir(&self.root).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if !path.is_dir() {
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                tracing::warn!(path = %path.display(), "skipped a directory whose name is not UTF-8");
                continue;
            };
            if name.starts_with(['.', '_']) {
                continue;
            }
            let model = match check_name(name) {
                Ok(()) => self.model(&root, &path),
                Err(reason) => DesiredModel::Faulty { reason },
            };
            models.insert(name.to_owned(), model);
        }
        Ok(Desired { models, ..Desired::default() })
    }
}

/// The files of a version.
struct Files {
    found: Vec<(PathBuf, fs::Metadata)>,
    /// When the last of them was written to, renamed or created.
    changed: SystemTime,
    has_marker: bool,
}

impl Default for Files {
    fn default() -> Files {
        Files { found: Vec::new(), changed: UNIX_EPOCH, has_marker: false }
    }
}

impl Files {
    fn read(&mut self, root: &Path, directory: &Path, below: &Path, depth: usize) -> Result<(), String> {
        let unreadable = |path: &Path, error: io::Error| format!("cannot read {}: {error}", path.display());
        if !inside(root, directory).map_err(|error| unreadable(directory, error))? {
            return Err(leads_out(directory));
        }
        let entries = fs::read_dir(directory)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|error| unreadable(directory, error))?;
        let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default();
            let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
            if metadata.is_dir() {
                if depth < DEPTH_MAX {
                    self.read(root, &path, &below.join(name), depth + 1)?;
                }
                continue;
            }
            if !inside(root, &path).map_err(|error| unreadable(&path, error))? {
                return Err(leads_out(&path));
            }
            if depth == 0 && name == COMPLETE_MARKER {
                self.has_marker = true;
                continue;
            }
            self.changed = self.changed.max(changed_at(&metadata));
            self.found.push((below.join(name), metadata));
        }
        if depth == 0 && self.found.is_empty() {
            // The first file may be about to come.
            let metadata = fs::metadata(directory).map_err(|error| unreadable(directory, error))?;
            self.changed = changed_at(&metadata);
        }
        Ok(())
    }
}

/// The time of the last change of the inode: unlike that of the contents no copying tool sets it.
fn changed_at(metadata: &fs::Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, u32::try_from(metadata.ctime_nsec()).unwrap_or(0))
}

fn hash_file(hasher: &mut DefaultHasher, path: &Path, metadata: &fs::Metadata) {
    path.hash(hasher);
    (metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()).hash(hasher);
}

/// Whether `path` lies in `root` once every link is followed: a link must not make the server read what
/// the owner of the repository has not put there.
fn inside(root: &Path, path: &Path) -> io::Result<bool> {
    Ok(path.canonicalize()?.starts_with(root))
}

fn leads_out(path: &Path) -> String {
    format!(
        "{} leads out of the model repository: expected files inside it; copy them there, or serve the \
         directory that holds both",
        path.display()
    )
}

/// Model names go into paths, URLs and metric labels.
///
/// # Errors
/// The text says which character is not allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    let bad = |&character: &char| matches!(character, '/' | '\\') || character.is_control();
    if name.is_empty() || name == "." || name == ".." {
        return Err(format!("'{name}' is not a model's name: expected letters, digits, '-', '_' or '.'"));
    }
    match name.chars().find(bad) {
        Some(character) => Err(format!(
            "model name {name:?} has the character {character:?}: expected no path separators and no control \
             characters"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
