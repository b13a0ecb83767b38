//! What ought to be served, and from where.

mod directory;
mod stray;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::directory::DirRegistry;
pub use self::stray::is_stray;
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
    /// What lies there and is neither a model nor a version, in order.
    pub passed_over: Vec<PassedOver>,
    /// Models of these that an operator has handed over: the repository itself does not have them.
    pub handed_over: BTreeSet<String>,
}

/// A directory that is no model, or one in a model that is no version, though it looks like one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassedOver {
    /// Below the repository.
    pub directory: String,
    /// Below that; `None` for the directory itself.
    pub version: Option<String>,
    /// For people: what was expected.
    pub reason: String,
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
    Sound {
        versions: BTreeMap<u64, VersionSource>,
        settings: Arc<ModelSettings>,
    },
    Faulty {
        reason: String,
    },
    /// There is no version, so it is no model; what has served under its name goes on.
    Vacant {
        reason: String,
    },
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

/// The model file's name where the settings do not say.
pub const MODEL_FILE: &str = "model.onnx";
/// A version with this file is complete, whatever its times say.
pub const COMPLETE_MARKER: &str = ".complete";
/// Versions that serve where the settings do not say: the newest and the one to go back to.
pub const VERSIONS_BY_DEFAULT: usize = 2;
/// How long a previous version stays loaded where the settings do not say.
pub const KEEP_PREVIOUS_BY_DEFAULT: Duration = Duration::from_secs(5 * 60);

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

// === impl PassedOver ===

impl PassedOver {
    pub(crate) fn directory(directory: &str, reason: String) -> PassedOver {
        PassedOver { directory: directory.to_owned(), version: None, reason }
    }

    pub(crate) fn version(directory: &str, version: &str, reason: String) -> PassedOver {
        PassedOver { directory: directory.to_owned(), version: Some(version.to_owned()), reason }
    }

    /// Below the repository.
    pub(crate) fn path(&self) -> String {
        match &self.version {
            Some(version) => format!("{}/{version}", self.directory),
            None => self.directory.clone(),
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path(), self.reason)
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
