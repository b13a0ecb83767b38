//! Triton's model configuration, as `config.pbtxt` or as JSON: what it means for the model that it lies
//! beside.
//!
//! Every field is used, noted or refused by its name. Refused is what would change answers or which
//! file is served; noted, in [`TritonConfig::notes`], is what only changes how fast.

mod accelerators;
mod batching;
mod binding;
mod declared;
mod document;
mod meaning;
mod parameters;
mod placement;
mod sample;
mod signature;
mod tensors;
#[cfg(test)]
mod tests;
mod text_format;
mod warm_up;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use gristmill_engine::merging::Word;
use gristmill_engine::tuning::{QUEUE_ROWS_MAX_BY_DEFAULT, QueuePolicy, Tuning};
use gristmill_onnx::Provider;

pub(crate) use self::batching::{Batching, DynamicBatching};
pub(crate) use self::declared::DeclaredBackend;
use self::signature::check_signature;
pub(crate) use self::tensors::DeclaredTensor;
pub(crate) use self::warm_up::{WarmUpData, WarmUpInput, WarmUpSample};

use self::binding::{Bound, Syntax};
use self::document::{Entry, Fault};

/// A checked configuration. `None` and empty are what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TritonConfig {
    /// Must be that of the model's directory.
    pub(crate) name: Option<String>,
    /// The model file, relative to the directory of a version.
    pub(crate) model_file: Option<String>,
    /// Triton's default is the latest version alone.
    pub(crate) version_policy: Option<VersionPolicy>,
    pub(crate) batching: Batching,
    pub(crate) dynamic_batching: Option<DynamicBatching>,
    pub(crate) instances: Option<usize>,
    /// Threads of one instance inside an operator.
    pub(crate) threads: Option<usize>,
    /// Of its runs, beside those of other models.
    pub(crate) weight: Option<usize>,
    /// Without `cpu` at their end the model must not run on the CPU alone.
    pub(crate) providers: Option<Vec<Provider>>,
    pub(crate) inputs: Vec<DeclaredTensor>,
    pub(crate) outputs: Vec<DeclaredTensor>,
    pub(crate) warm_up: Vec<WarmUpSample>,
    /// One for each field that has no effect, or another one than in Triton: the field and what happens
    /// instead.
    pub(crate) notes: Vec<String>,
}

/// Which versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionPolicy {
    /// So many with the highest numbers, at least 1.
    Latest(usize),
    All,
    /// Ascending, each once, at least one.
    Specific(Vec<u64>),
}

/// Reads the text of a `config.pbtxt`.
///
/// # Errors
/// The text says on which line, in which field, what was expected and what came.
pub fn parse_pbtxt(text: &str) -> Result<TritonConfig, String> {
    text_format::parse(text)
        .and_then(|entries| read(&entries, Syntax::Text))
        .map_err(|fault| fault.to_string())
}

/// Reads the JSON form, in which Triton shows a configuration and takes one with a load request. Field
/// names are in snake_case or camelCase, and integers may be strings.
///
/// # Errors
/// As [`parse_pbtxt`], without lines where the JSON is well-formed.
pub fn parse_json(text: &str) -> Result<TritonConfig, String> {
    document::parse_json(text)
        .and_then(|entries| read(&entries, Syntax::Json))
        .map_err(|fault| fault.to_string())
}

fn read(entries: &[Entry], syntax: Syntax) -> Result<TritonConfig, Fault> {
    let bound = Bound::new(entries, syntax)?;
    meaning::read(&bound.config).map_err(|fault| bound.located(fault))
}

/// Notes a field that has no effect here, and what happens instead.
fn note(notes: &mut Vec<String>, field: impl AsRef<str>, instead: impl AsRef<str>) {
    notes.push(format!("{} has no effect: {}", field.as_ref(), instead.as_ref()));
}

/// A path that stays inside the directory that it is relative to, or `None` where it is empty.
fn relative_path(field: &str, path: &str) -> Result<Option<String>, Fault> {
    let stays = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !stays || path.contains(['\\', '\0']) {
        let reason = format!("expected a relative path without '..', got {path:?}");
        return Err(Fault::new(field, reason));
    }
    Ok((!path.is_empty()).then(|| path.to_owned()))
}

// === impl TritonConfig ===

impl TritonConfig {
    /// What of it the engine's tuning can say. It cannot say [`Batching::Never`].
    pub fn tuning(&self) -> Tuning {
        let batch_rows_max = match self.batching {
            Batching::UpTo(rows) => Some(rows),
            Batching::Derived | Batching::Never => None,
        };
        let batching = self.dynamic_batching.as_ref();
        Tuning {
            instances: self.instances,
            threads: self.threads,
            weight: self.weight,
            batch_rows_max,
            word: if batch_rows_max.is_some() { Word::Declared } else { Word::None },
            // 0 is how a file without a delay reads: then the cost model decides.
            batch_delay: batching.map(|batching| batching.delay).filter(|delay| !delay.is_zero()),
            preferred_rows: batching.map_or(Vec::new(), |batching| batching.preferred_rows.clone()),
            queue_rows_max: self.queue_rows_max(),
            priorities: batching.and_then(|batching| batching.priorities),
            queue_policy: batching.map_or(QueuePolicy::default(), |batching| batching.queue),
            level_policies: batching.map_or(BTreeMap::new(), |batching| batching.level_policies.clone()),
            ..Tuning::default()
        }
    }

    /// The same over what another file says: of what both say, this one's counts.
    pub(crate) fn tuning_over(&self, base: Tuning) -> Tuning {
        let said = self.tuning();
        let has_policy = said.queue_policy != QueuePolicy::default();
        Tuning {
            instances: said.instances.or(base.instances),
            threads: said.threads.or(base.threads),
            weight: said.weight.or(base.weight),
            batch_rows_max: said.batch_rows_max.or(base.batch_rows_max),
            word: said.word.max(base.word),
            audits_per_million: said.audits_per_million.or(base.audits_per_million),
            batch_delay: said.batch_delay.or(base.batch_delay),
            preferred_rows: if said.preferred_rows.is_empty() {
                base.preferred_rows
            } else {
                said.preferred_rows
            },
            queue_rows_max: said.queue_rows_max.or(base.queue_rows_max),
            priorities: said.priorities.or(base.priorities),
            queue_policy: if has_policy { said.queue_policy } else { base.queue_policy },
            level_policies: if said.level_policies.is_empty() {
                base.level_policies
            } else {
                said.level_policies
            },
            ..base
        }
    }

    /// Where the file bounds the requests, the bound of the rows must not be the tighter one.
    fn queue_rows_max(&self) -> Option<usize> {
        let batching = self.dynamic_batching.as_ref()?;
        let policies = [&batching.queue].into_iter().chain(batching.level_policies.values());
        let requests: usize = policies.filter_map(|policy| policy.requests_max).sum();
        (requests > QUEUE_ROWS_MAX_BY_DEFAULT).then_some(requests)
    }
}
