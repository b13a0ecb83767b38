//! A model's optional settings file: `model.toml` as it is written, and what it means once checked.

mod lifecycle;
mod scheduling;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use gristmill_engine::attainment::OBJECTIVE_BY_DEFAULT;
use gristmill_engine::registry::{Lifecycle, ModelSettings, Prepared, VersionPolicy};
use gristmill_engine::tuning::Tuning;
use gristmill_onnx::{BackendChoice, OnnxBackend, OnnxOptions, Provider, ProviderKind, Runtime};
use serde::Deserialize;

use self::lifecycle::{RawBudget, RawVersions, RawWatch};
use self::scheduling::{RawBatching, RawFallback, RawPriorities, RawQueue};
use crate::cli::{BackendArg, ModelArgs};
use crate::triton_config::{self, DeclaredBackend, TritonConfig};
use crate::{golden, manifest};

const FILE_NAME: &str = "model.toml";
/// Read where there is no [`FILE_NAME`].
const TRITON_FILE_NAME: &str = "config.pbtxt";

/// Largest share of the cores that a file may ask for, beside models of weight 1.
const WEIGHT_MAX: usize = 1000;
/// Most instances or threads that a file may ask for: more is a typing error.
const WORKERS_MAX: usize = 1024;
/// What a checked file says; what it leaves out is for the server's flags and for derivation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelToml {
    pub backend: Option<BackendChoice>,
    pub providers: Option<Vec<Provider>>,
    pub spinning: Option<bool>,
    pub tuning: Tuning,
    pub lifecycle: Lifecycle,
    pub slo_objective: Option<f64>,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    backend: Option<RawBackend>,
    providers: Option<Vec<RawProvider>>,
    spinning: Option<bool>,
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
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawBackend {
    Auto,
    Onnxruntime,
    Tract,
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
            return Ok(self.settings(file, notes));
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
        let name = directory.file_name().unwrap_or_default();
        if let Some(declared) = config.name.as_ref().filter(|declared| name != declared.as_str()) {
            return Err(format!(
                "name is '{declared}': expected '{}', the name of its directory, or none",
                name.display()
            ));
        }
        let policy = match &config.version_policy {
            None => VersionPolicy::Latest(1),
            Some(triton_config::VersionPolicy::Latest(count)) => VersionPolicy::Latest(*count),
            Some(triton_config::VersionPolicy::All) => VersionPolicy::All,
            Some(triton_config::VersionPolicy::Specific(list)) => {
                VersionPolicy::Specific(list.iter().copied().collect())
            }
        };
        let file = ModelToml {
            providers: config.providers.clone(),
            tuning: config.tuning(),
            lifecycle: Lifecycle { policy, ..Lifecycle::default() },
            ..ModelToml::default()
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
    Ok(ModelToml { backend, providers, spinning: raw.spinning, tuning, lifecycle, slo_objective })
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

fn provider(name: &str, options: BTreeMap<String, String>) -> Result<Provider, String> {
    let kind = ProviderKind::parse(name).ok_or_else(|| {
        let known: Vec<&str> = ProviderKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("unknown execution provider '{name}': expected one of {}", known.join(", "))
    })?;
    Ok(Provider { kind, options })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use gristmill_engine::budget::Budget;
    use gristmill_engine::conduct::Watch;
    use gristmill_engine::tuning::{Fallback, Priorities, QueuePolicy, TimeoutAction};
    use std::time::Duration;

    fn check(text: &str, expected: Expect) {
        let result = match parse_model_toml(text) {
            Ok(parsed) => format!("{parsed:?}"),
            Err(error) => error,
        };
        expected.assert_eq(&result);
    }

    #[test]
    fn nothing_is_required() {
        assert_eq!(parse_model_toml(""), Ok(ModelToml::default()));
    }

    #[test]
    fn everything_can_be_said() {
        let text = r#"
            backend = "onnxruntime"
            providers = ["tensorrt", { name = "cuda", options = { device_id = "1" } }, "cpu"]
            spinning = true
            instances = 2
            threads = 3
            run_timeout = "2m"
            weight = 4
            slo = "50ms"
            priorities = { levels = 3, default = 1 }
            batching = { rows_max = 16, delay = "2ms", preferred_rows = [8, 4] }
            versions = { latest = 3 }
            labels = { stable = 4 }
            keep_previous = "10s"
            allow_signature_change = true
            budget = { run_p99 = { 1 = "2ms" }, resident_bytes = 1000000 }
            watch = { period = "2m", p99_ratio_max = 3.0 }
            slo_objective = 0.99
            degrade_to = "small"

            [queue]
            order = "arrival"
            rows_max = 100
            bytes_max = 1000
            time_max = "2s"
            requests_max = 50
            timeout = "1s"
            timeout_action = "delay"
            timeout_override = true
            levels.3 = { requests_max = 10 }
        "#;
        let parsed = parse_model_toml(text).unwrap();
        assert_eq!(parsed.backend, Some(BackendChoice::OnnxRuntime));
        assert_eq!(parsed.providers.unwrap()[1].options["device_id"], "1");
        assert_eq!(parsed.spinning, Some(true));
        assert_eq!(parsed.slo_objective, Some(0.99));
        let tuning = Tuning {
            instances: Some(2),
            threads: Some(3),
            batch_rows_max: Some(16),
            batch_delay: Some(Duration::from_millis(2)),
            degrade_to: Some(Fallback::Name("small".into())),
            is_eager: true,
            queue_rows_max: Some(100),
            queue_bytes_max: Some(1000),
            queue_time_max: Some(Duration::from_secs(2)),
            preferred_rows: vec![4, 8],
            run_timeout: Some(Duration::from_secs(120)),
            weight: Some(4),
            slo: Some(Duration::from_millis(50)),
            priorities: Some(Priorities { levels: 3, default_level: 1 }),
            queue_policy: QueuePolicy {
                requests_max: Some(50),
                timeout: Some(Duration::from_secs(1)),
                timeout_action: TimeoutAction::Delay,
                timeout_can_be_shortened: true,
            },
            level_policies: BTreeMap::from([(
                3,
                QueuePolicy { requests_max: Some(10), ..QueuePolicy::default() },
            )]),
            budget: Budget {
                run_p99_max: BTreeMap::from([(1, Duration::from_millis(2))]),
                resident_bytes_max: Some(1_000_000),
            },
        };
        let lifecycle = Lifecycle {
            policy: VersionPolicy::Latest(3),
            labels: BTreeMap::from([("stable".into(), 4)]),
            keep_previous: Duration::from_secs(10),
            allow_signature_change: true,
            watch: Some(Watch {
                period: Duration::from_secs(120),
                p99_ratio_max: Some(3.0),
                ..Watch::default()
            }),
        };
        assert_eq!(parsed.lifecycle, lifecycle);
        assert_eq!(parsed.tuning, tuning);
    }

    #[test]
    fn faults_say_what_was_expected() {
        check(
            "watch = \"on\"",
            expect![[r#"
            TOML parse error at line 1, column 9
              |
            1 | watch = "on"
              |         ^^^^
            expected "off" or a table with period, requests_min, error_rate_increase_max and p99_ratio_max"#]],
        );
        check("watch = { p99_ratio_max = 0.5 }", expect!["watch.p99_ratio_max is 0.5: expected at least 1"]);
        check(
            "watch = { error_rate_increase_max = 5.0 }",
            expect!["watch.error_rate_increase_max is 5: expected 0 to 1"],
        );
        assert_eq!(parse_model_toml("watch = \"off\"").unwrap().lifecycle.watch, None);
        check("versions = []", expect!["versions is an empty list: expected one version at least"]);
        check("versions = { latest = 0 }", expect!["versions.latest is 0: expected 1 to 1000"]);
        check(
            "versions = \"newest\"",
            expect![[r#"
            TOML parse error at line 1, column 12
              |
            1 | versions = "newest"
              |            ^^^^^^^^
            expected "all", a list such as [1, 3], or { latest = 2 }"#]],
        );
        check(
            "labels = { 3 = 1 }",
            expect!["labels: '3' is not a label: expected a name that is not a number, without '/'"],
        );
        check(
            "keep_previous = \"long\"",
            expect![[r#"keep_previous is "long": expected a duration such as "5m" (expected number at 0)"#]],
        );
        check(
            "budget = { run_p99 = { x = \"2ms\" } }",
            expect![[r#"budget.run_p99: 'x' is not a number of rows: expected for example { 1 = "2ms" }"#]],
        );
        check(
            "slo_objective = 1.0",
            expect!["slo_objective is 1: expected a share between 0 and 1, such as 0.999"],
        );
        check(
            "run_timeout = \"0s\"",
            expect![[r#"run_timeout is "0s": expected more than nothing, such as "50ms""#]],
        );
        check("instances = 0", expect!["instances is 0: expected 1 to 1024"]);
        check(
            "batching = { rows_max = 9999999 }",
            expect!["batching.rows_max is 9999999: expected 1 to 1048576"],
        );
        check(
            "batching = { delay = \"fast\" }",
            expect![[
                r#"batching.delay is "fast": expected a duration such as "2ms" (expected number at 0)"#
            ]],
        );
        check(
            "batching = { rows_max = 64 }\nqueue = { rows_max = 10 }",
            expect![
                "queue.rows_max is 10 and batching.rows_max is 64: a batch would never fill; expected a queue of at least one batch"
            ],
        );
        check(
            "providers = [\"gpu\"]",
            expect![
                "unknown execution provider 'gpu': expected one of cpu, cuda, tensorrt, openvino, rocm, migraphx"
            ],
        );
        check(
            "providers = [3]",
            expect![[r#"
            TOML parse error at line 1, column 13
              |
            1 | providers = [3]
              |             ^^^
            expected a provider's name or a table with a name and options"#]],
        );
        check("slo = \"0s\"", expect![[r#"slo is "0s": expected more than nothing, such as "50ms""#]]);
        check(
            "slo = \"soon\"",
            expect![[r#"slo is "soon": expected a duration such as "50ms" (expected number at 0)"#]],
        );
        check("priorities = { levels = 0 }", expect!["priorities.levels is 0: expected 1 to 256"]);
        check(
            "priorities = { levels = 2, default = 3 }",
            expect!["priorities.default is 3: expected 1, the most urgent, to priorities.levels, 2"],
        );
        check(
            "queue = { levels = { 1 = {} } }",
            expect!["queue.levels: '1' is no level: expected 1 to priorities.levels, which is 0"],
        );
        check(
            "queue = { timeout = \"0s\" }",
            expect![[r#"queue.timeout is "0s": expected more than nothing, such as "50ms""#]],
        );
        check("queue = { requests_max = 0 }", expect!["queue.requests_max is 0: expected at least 1"]);
        check(
            "batching = { rows_max = 4, preferred_rows = [2, 8] }",
            expect!["batching.preferred_rows has 8: expected 1 to batching.rows_max, 4"],
        );
        check(
            "instance = 2",
            expect![[r#"
                TOML parse error at line 1, column 1
                  |
                1 | instance = 2
                  | ^^^^^^^^
                unknown field `instance`, expected one of `backend`, `providers`, `spinning`, `instances`, `threads`, `run_timeout`, `weight`, `slo`, `priorities`, `batching`, `queue`, `versions`, `labels`, `keep_previous`, `allow_signature_change`, `budget`, `watch`, `slo_objective`, `degrade_to`"#]],
        );
        check(
            "backend = \"torch\"",
            expect![[r#"
            TOML parse error at line 1, column 11
              |
            1 | backend = "torch"
              |           ^^^^^^^
            unknown variant `torch`, expected one of `auto`, `onnxruntime`, `tract`"#]],
        );
    }
}
