//! A model's optional settings file: `model.toml` as it is written, and what it means once checked.

mod lifecycle;
mod scheduling;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::attainment::OBJECTIVE_BY_DEFAULT;
use gristmill_engine::registry::{Lifecycle, ModelSettings, Prepared, VersionPolicy};
use gristmill_engine::tuning::Tuning;
use gristmill_onnx::{BackendChoice, OnnxBackend, OnnxOptions, Provider, ProviderKind, Runtime};
use serde::Deserialize;

use self::lifecycle::{RawBudget, RawVersions, RawWatch};
use self::scheduling::{RawBatching, RawFallback, RawPriorities, RawQueue};
use crate::cli::{BackendArg, ModelArgs};
use crate::handler::{HandledBackend, RawInput, RawOutput, Sections};
use crate::triton_config::{self, DeclaredBackend, TritonConfig};
use crate::{golden, manifest};

pub(crate) const FILE_NAME: &str = "model.toml";
/// Read where there is no [`FILE_NAME`].
const TRITON_FILE_NAME: &str = "config.pbtxt";

/// Largest share of the cores that a file may ask for, beside models of weight 1.
const WEIGHT_MAX: usize = 1000;
/// Most instances or threads that a file may ask for: more is a typing error.
const WORKERS_MAX: usize = 1024;
/// Longest time that a file may give, in whole years: more is a typing error, and some more than clocks can add.
const DURATION_YEARS_MAX: u32 = 100;

/// What a checked file says; what it leaves out is for the server's flags and for derivation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelToml {
    pub backend: Option<BackendChoice>,
    pub providers: Option<Vec<Provider>>,
    pub spinning: Option<bool>,
    /// Requests run one at a time, whatever the model file says of its first axes.
    pub is_unbatched: bool,
    pub tuning: Tuning,
    pub lifecycle: Lifecycle,
    pub slo_objective: Option<f64>,
    pub sections: Sections,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    backend: Option<RawBackend>,
    providers: Option<Vec<RawProvider>>,
    spinning: Option<bool>,
    batch_axis: Option<RawBatchAxis>,
    instances: Option<usize>,
    threads: Option<usize>,
    run_timeout: Option<String>,
    weight: Option<usize>,
    slo: Option<String>,
    priorities: Option<RawPriorities>,
    #[serde(default)]
    batching: RawBatching,
    #[serde(default)]
    queue: RawQueue,
    versions: Option<RawVersions>,
    #[serde(default)]
    labels: BTreeMap<String, u64>,
    keep_previous: Option<String>,
    allow_signature_change: Option<bool>,
    #[serde(default)]
    budget: RawBudget,
    watch: Option<RawWatch>,
    slo_objective: Option<f64>,
    degrade_to: Option<RawFallback>,
    input: Option<RawInput>,
    output: Option<RawOutput>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawBackend {
    Auto,
    Onnxruntime,
    Tract,
}

/// A model's batch axis is derived from its file; only that there is none can be said.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawBatchAxis {
    None,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a provider's name or a table with a name and options")]
enum RawProvider {
    Name(String),
    Table {
        name: String,
        #[serde(default)]
        options: BTreeMap<String, String>,
    },
}

/// Reads the settings of models: their files over the command line's defaults.
#[derive(Clone)]
pub struct SettingsReader {
    runtime: Runtime,
    backend: BackendChoice,
    providers: Vec<Provider>,
}

impl SettingsReader {
    /// # Errors
    /// A provider on the command line is unknown; the text lists those that are.
    pub fn new(runtime: &Runtime, args: &ModelArgs) -> Result<SettingsReader, String> {
        let backend = match args.backend {
            BackendArg::Auto => BackendChoice::Auto,
            BackendArg::Onnxruntime => BackendChoice::OnnxRuntime,
            BackendArg::Tract => BackendChoice::Tract,
        };
        let read = |name: &String| {
            provider(name.trim(), BTreeMap::new()).map_err(|why| format!("--providers: {why}"))
        };
        let providers = args.providers.iter().map(read).collect::<Result<_, _>>()?;
        Ok(SettingsReader { runtime: runtime.clone(), backend, providers })
    }

    /// The settings in a model's directory: its `model.toml`, or else its `config.pbtxt`.
    ///
    /// # Errors
    /// The text names the file and the field.
    pub fn read(&self, directory: &Path) -> Result<ModelSettings, String> {
        let path = directory.join(FILE_NAME);
        let triton_path = directory.join(TRITON_FILE_NAME);
        if let Some(text) = read_if_there(&path)? {
            let file = parse_model_toml(&text).map_err(|why| format!("{}: {why}", path.display()))?;
            let notes = match triton_path.exists() {
                true => vec![format!("{TRITON_FILE_NAME} is not read: {FILE_NAME} is there")],
                false => Vec::new(),
            };
            let sections = file.sections.clone();
            return Ok(handled(self.settings(file, notes), sections, directory));
        }
        match read_if_there(&triton_path)? {
            Some(text) => triton_config::parse_pbtxt(&text)
                .and_then(|config| self.triton_settings(config, directory))
                .map_err(|why| format!("{}: {why}", triton_path.display())),
            None => Ok(self.settings(ModelToml::default(), Vec::new())),
        }
    }

    fn settings(&self, file: ModelToml, notes: Vec<String>) -> ModelSettings {
        let options = OnnxOptions {
            backend: file.backend.unwrap_or(self.backend),
            providers: file.providers.unwrap_or_else(|| self.providers.clone()),
            spinning: file.spinning.unwrap_or(false),
            is_unbatched: file.is_unbatched,
        };
        ModelSettings {
            tuning: file.tuning,
            lifecycle: file.lifecycle,
            slo_objective: file.slo_objective.unwrap_or(OBJECTIVE_BY_DEFAULT),
            prepare: Arc::new(move |version_directory| prepare(version_directory, &notes)),
            ..ModelSettings::new(OnnxBackend::new(&self.runtime, options))
        }
    }

    /// What Triton's configuration of the model in `directory` means here.
    ///
    /// # Errors
    /// It is the configuration of another model.
    pub(crate) fn triton_settings(
        &self,
        config: TritonConfig,
        directory: &Path,
    ) -> Result<ModelSettings, String> {
        let lifecycle = Lifecycle { policy: VersionPolicy::Latest(1), ..Lifecycle::default() };
        self.settings_under(ModelToml { lifecycle, ..ModelToml::default() }, config, directory)
    }

    /// What `text`, a `model.toml`, and Triton's configuration of the model in `directory` mean together: the
    /// configuration's word counts where both say something.
    ///
    /// # Errors
    /// The file is malformed, or the configuration is another model's.
    pub(crate) fn settings_of_both(
        &self,
        text: &str,
        config: TritonConfig,
        directory: &Path,
    ) -> Result<ModelSettings, String> {
        let file = parse_model_toml(text).map_err(|why| format!("{FILE_NAME}: {why}"))?;
        let sections = file.sections.clone();
        let settings = self.settings_under(file, config, directory)?;
        Ok(handled(settings, sections, directory))
    }

    fn settings_under(
        &self,
        file: ModelToml,
        config: TritonConfig,
        directory: &Path,
    ) -> Result<ModelSettings, String> {
        let name = directory.file_name().unwrap_or_default();
        if let Some(declared) = config.name.as_ref().filter(|declared| name != declared.as_str()) {
            return Err(format!(
                "name is '{declared}': expected '{}', the name of its directory, or none",
                name.display()
            ));
        }
        let policy = match &config.version_policy {
            None => file.lifecycle.policy,
            Some(triton_config::VersionPolicy::Latest(count)) => VersionPolicy::Latest(*count),
            Some(triton_config::VersionPolicy::All) => VersionPolicy::All,
            Some(triton_config::VersionPolicy::Specific(list)) => {
                VersionPolicy::Specific(list.iter().copied().collect())
            }
        };
        let file = ModelToml {
            providers: config.providers.clone().or(file.providers),
            tuning: config.tuning_over(file.tuning),
            lifecycle: Lifecycle { policy, ..file.lifecycle },
            ..file
        };
        let file_name = config.model_file.clone();
        let mut settings = self.settings(file, Vec::new());
        if let Some(file_name) = file_name {
            settings.file_name = file_name;
        }
        settings.backend = Arc::new(DeclaredBackend::new(settings.backend, config, directory.to_owned()));
        Ok(settings)
    }
}

/// With what the sections of a `model.toml` say of bodies and answers.
fn handled(mut settings: ModelSettings, sections: Sections, directory: &Path) -> ModelSettings {
    if !sections.is_empty() {
        settings.backend = Arc::new(HandledBackend::new(settings.backend, sections, directory.to_owned()));
    }
    settings
}

/// Verifies a version's checksums and reads its golden inputs.
fn prepare(version_directory: &Path, notes: &[String]) -> Result<Prepared, String> {
    let mut notes = notes.to_vec();
    notes.extend(manifest::verify(version_directory)?);
    let golden = golden::read(version_directory)?;
    Ok(Prepared { golden, notes })
}

fn read_if_there(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Parses and checks a `model.toml`.
///
/// # Errors
/// The text says where the fault is, what was expected and what came.
pub fn parse_model_toml(text: &str) -> Result<ModelToml, String> {
    let raw: Raw = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    let providers = raw.providers.map(|providers| {
        let checked = providers.into_iter().map(|raw| match raw {
            RawProvider::Name(name) => provider(&name, BTreeMap::new()),
            RawProvider::Table { name, options } => provider(&name, options),
        });
        checked.collect::<Result<Vec<_>, _>>()
    });
    let lifecycle = lifecycle::lifecycle(
        raw.versions,
        raw.labels,
        raw.keep_previous.as_deref(),
        raw.allow_signature_change,
        raw.watch,
    )?;
    let tuning = Tuning {
        instances: between("instances", raw.instances, WORKERS_MAX)?,
        threads: between("threads", raw.threads, WORKERS_MAX)?,
        run_timeout: scheduling::run_timeout(raw.run_timeout.as_deref())?,
        weight: between("weight", raw.weight, WEIGHT_MAX)?,
        degrade_to: scheduling::fallback(raw.degrade_to, &lifecycle.policy)?,
        budget: lifecycle::budget(raw.budget)?,
        ..scheduling::tuning(raw.batching, raw.queue, raw.priorities, raw.slo.as_deref())?
    };
    let backend = raw.backend.map(|raw| match raw {
        RawBackend::Auto => BackendChoice::Auto,
        RawBackend::Onnxruntime => BackendChoice::OnnxRuntime,
        RawBackend::Tract => BackendChoice::Tract,
    });
    if let Some(objective) = raw.slo_objective.filter(|objective| !(0.0 < *objective && *objective < 1.0)) {
        return Err(format!("slo_objective is {objective}: expected a share between 0 and 1, such as 0.999"));
    }
    let slo_objective = raw.slo_objective;
    let providers = providers.transpose()?;
    let sections = Sections { input: raw.input, output: raw.output };
    Ok(ModelToml {
        backend,
        providers,
        spinning: raw.spinning,
        is_unbatched: matches!(raw.batch_axis, Some(RawBatchAxis::None)),
        tuning,
        lifecycle,
        slo_objective,
        sections,
    })
}

fn between(field: &str, value: Option<usize>, max: usize) -> Result<Option<usize>, String> {
    match value {
        Some(value) if value == 0 || value > max => Err(if max == usize::MAX {
            format!("{field} is {value}: expected at least 1")
        } else {
            format!("{field} is {value}: expected 1 to {max}")
        }),
        value => Ok(value),
    }
}

/// A duration that a file gives, such as `example`.
fn duration(field: &str, example: &str, text: &str) -> Result<Duration, String> {
    let year = Duration::from_secs(366 * 24 * 3600);
    let duration = humantime::parse_duration(text)
        .map_err(|why| format!("{field} is \"{text}\": expected a duration such as \"{example}\" ({why})"))?;
    if duration > year * DURATION_YEARS_MAX {
        return Err(format!("{field} is \"{text}\": expected at most {DURATION_YEARS_MAX} years"));
    }
    Ok(duration)
}

fn provider(name: &str, options: BTreeMap<String, String>) -> Result<Provider, String> {
    let kind = ProviderKind::parse(name).ok_or_else(|| {
        let known: Vec<&str> = ProviderKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("unknown execution provider '{name}': expected one of {}", known.join(", "))
    })?;
    Ok(Provider { kind, options })
}
