//! A model's optional settings file: `model.toml` as it is written, and what it means once checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gristmill_engine::registry::{ModelSettings, ReadSettings};
use gristmill_engine::workers::Tuning;
use gristmill_onnx::{BackendChoice, OnnxBackend, OnnxOptions, Provider, ProviderKind, Runtime};
use serde::Deserialize;

use crate::cli::{BackendArg, ModelArgs};

const FILE_NAME: &str = "model.toml";

/// Most instances or threads that a file may ask for: more is a typing error.
const WORKERS_MAX: usize = 1024;
/// Most rows of a batch that a file may ask for.
const BATCH_ROWS_MAX: usize = 1 << 20;
/// Longest delay that a file may ask for.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// What a checked file says; what it leaves out is for the server's flags and for derivation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelToml {
    pub backend: Option<BackendChoice>,
    pub providers: Option<Vec<Provider>>,
    pub spinning: Option<bool>,
    pub tuning: Tuning,
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
    #[serde(default)]
    batching: RawBatching,
    #[serde(default)]
    queue: RawQueue,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBatching {
    rows_max: Option<usize>,
    delay: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQueue {
    rows_max: Option<usize>,
    bytes_max: Option<usize>,
}

/// Reads the settings of a model's directory: its `model.toml` over the command line's defaults.
///
/// # Errors
/// A provider on the command line is unknown; the text lists those that are.
pub fn settings_reader(runtime: &Runtime, args: &ModelArgs) -> Result<ReadSettings, String> {
    let runtime = runtime.clone();
    let backend = match args.backend {
        BackendArg::Auto => BackendChoice::Auto,
        BackendArg::Onnxruntime => BackendChoice::OnnxRuntime,
        BackendArg::Tract => BackendChoice::Tract,
    };
    let providers: Vec<Provider> = args
        .providers
        .iter()
        .map(|name| provider(name.trim(), BTreeMap::new()).map_err(|why| format!("--providers: {why}")))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(move |directory: &Path| {
        let file = read_model_toml(&directory.join(FILE_NAME))?;
        let options = OnnxOptions {
            backend: file.backend.unwrap_or(backend),
            providers: file.providers.unwrap_or_else(|| providers.clone()),
            spinning: file.spinning.unwrap_or(false),
        };
        Ok(ModelSettings { backend: OnnxBackend::new(&runtime, options), tuning: file.tuning })
    }))
}

fn read_model_toml(path: &Path) -> Result<ModelToml, String> {
    match fs::read_to_string(path) {
        Ok(text) => parse_model_toml(&text).map_err(|why| format!("{}: {why}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(ModelToml::default()),
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
    let tuning = Tuning {
        instances: between("instances", raw.instances, WORKERS_MAX)?,
        threads: between("threads", raw.threads, WORKERS_MAX)?,
        batch_rows_max: between("batching.rows_max", raw.batching.rows_max, BATCH_ROWS_MAX)?,
        batch_delay: raw.batching.delay.as_deref().map(delay).transpose()?,
        queue_rows_max: between("queue.rows_max", raw.queue.rows_max, usize::MAX)?,
        queue_bytes_max: between("queue.bytes_max", raw.queue.bytes_max, usize::MAX)?,
    };
    if let (Some(batch), Some(queue)) = (tuning.batch_rows_max, tuning.queue_rows_max)
        && queue < batch
    {
        return Err(format!(
            "queue.rows_max is {queue} and batching.rows_max is {batch}: a batch would never fill; expected \
             a queue of at least one batch"
        ));
    }
    let backend = raw.backend.map(|raw| match raw {
        RawBackend::Auto => BackendChoice::Auto,
        RawBackend::Onnxruntime => BackendChoice::OnnxRuntime,
        RawBackend::Tract => BackendChoice::Tract,
    });
    Ok(ModelToml { backend, providers: providers.transpose()?, spinning: raw.spinning, tuning })
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

fn delay(text: &str) -> Result<Duration, String> {
    let delay = humantime::parse_duration(text).map_err(|why| {
        format!("batching.delay is \"{text}\": expected a duration such as \"2ms\" ({why})")
    })?;
    if delay > DELAY_MAX {
        return Err(format!("batching.delay is \"{text}\": expected at most 60s"));
    }
    Ok(delay)
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
            batching = { rows_max = 16, delay = "2ms" }
            queue = { rows_max = 100, bytes_max = 1000 }
        "#;
        let parsed = parse_model_toml(text).unwrap();
        assert_eq!(parsed.backend, Some(BackendChoice::OnnxRuntime));
        assert_eq!(parsed.providers.unwrap()[1].options["device_id"], "1");
        assert_eq!(parsed.spinning, Some(true));
        let tuning = Tuning {
            instances: Some(2),
            threads: Some(3),
            batch_rows_max: Some(16),
            batch_delay: Some(Duration::from_millis(2)),
            queue_rows_max: Some(100),
            queue_bytes_max: Some(1000),
        };
        assert_eq!(parsed.tuning, tuning);
    }

    #[test]
    fn faults_say_what_was_expected() {
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
        check(
            "instance = 2",
            expect![[r#"
            TOML parse error at line 1, column 1
              |
            1 | instance = 2
              | ^^^^^^^^
            unknown field `instance`, expected one of `backend`, `providers`, `spinning`, `instances`, `threads`, `batching`, `queue`"#]],
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
