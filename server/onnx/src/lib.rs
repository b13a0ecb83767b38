//! The engine's model runtimes: decides for each model whether ONNX Runtime or tract runs it.

mod containers;
mod element_type;
mod elements;
mod end;
mod external;
mod file_bytes;
mod graph;
mod initializer;
mod library;
mod memory;
mod ort;
mod providers;
mod rewriting;
mod row_independence;
mod signature;
mod tract;
mod zipmap;

use std::sync::Arc;

use gristmill_engine::backend::{Artifact, Backend, Model};
use gristmill_engine::error::LoadError;

pub use crate::end::end_process;
pub use crate::external::external_data_files;
pub use crate::library::{Runtime, RuntimeError, disable_telemetry};
pub use crate::memory::release_free_memory;
pub use crate::providers::{Provider, ProviderKind};

use crate::ort::OrtModel;
use crate::tract::TractModel;

/// Which runtime serves a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// ONNX Runtime where it was found, tract otherwise.
    #[default]
    Auto,
    OnnxRuntime,
    Tract,
}

/// How to run one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    pub backend: BackendChoice,
    /// Execution providers of ONNX Runtime, the preferred one first; empty means the CPU. Without
    /// `cpu` in the list a model for which none of the others can be used is not served.
    pub providers: Vec<Provider>,
    /// Whether a session's threads wait for work by spinning. Right only where one session has the
    /// cores to itself.
    pub spinning: bool,
    /// Requests run one at a time: the first axes of the model do not count rows, whatever its file says of them.
    pub is_unbatched: bool,
}

/// Reads ONNX files, and makes models of them on the runtime that the options choose.
pub struct OnnxBackend {
    runtime: Runtime,
    options: OnnxOptions,
}

// === impl BackendChoice ===

impl BackendChoice {
    pub const ALL: [BackendChoice; 3] =
        [BackendChoice::Auto, BackendChoice::OnnxRuntime, BackendChoice::Tract];

    /// The name in configuration, for example `onnxruntime`.
    pub fn name(self) -> &'static str {
        match self {
            BackendChoice::Auto => "auto",
            BackendChoice::OnnxRuntime => "onnxruntime",
            BackendChoice::Tract => "tract",
        }
    }

    /// The choice with that name, compared exactly.
    pub fn parse(name: &str) -> Option<BackendChoice> {
        BackendChoice::ALL.into_iter().find(|choice| choice.name() == name)
    }
}

// === impl OnnxBackend ===

impl OnnxBackend {
    #[expect(clippy::new_ret_no_self, reason = "callers need the engine's handle and never this type")]
    pub fn new(runtime: &Runtime, options: OnnxOptions) -> Arc<dyn Backend> {
        Arc::new(OnnxBackend { runtime: runtime.clone(), options })
    }

    /// tract runs on the CPU alone: refuses lists that do not allow that, and notes what it passed over.
    fn load_with_tract(&self, artifact: &Artifact) -> Result<TractModel, LoadError> {
        let providers = &self.options.providers;
        let cpu_allowed =
            providers.is_empty() || providers.iter().any(|provider| provider.kind == ProviderKind::Cpu);
        let refused: Vec<String> = providers
            .iter()
            .filter(|provider| provider.kind != ProviderKind::Cpu)
            .map(|provider| format!("{} refused: tract runs on the CPU", provider.kind))
            .collect();
        if !cpu_allowed {
            return Err(LoadError::permanent(format!(
                "{}: none of the execution providers asked for can be used: {}; add cpu to the list to allow it",
                artifact.path.display(),
                refused.join("; ")
            )));
        }
        for refusal in &refused {
            tracing::warn!(model = artifact.model, version = artifact.version, "{refusal}");
        }
        let mut model = TractModel::load(artifact, self.options.is_unbatched)?;
        model.add_notes(refused);
        Ok(model)
    }
}

impl Backend for OnnxBackend {
    fn load(&self, artifact: &Artifact) -> Result<Box<dyn Model>, LoadError> {
        let library = match (self.options.backend, &self.runtime.library) {
            (BackendChoice::Tract, _) | (BackendChoice::Auto, Err(_)) => {
                return Ok(Box::new(self.load_with_tract(artifact)?));
            }
            (BackendChoice::OnnxRuntime, Err(why)) => {
                return Err(LoadError::transient(format!(
                    "model '{}' asks for ONNX Runtime, which is not there: {why}",
                    artifact.model
                )));
            }
            (_, Ok(library)) => library,
        };
        let model = OrtModel::load(library, &self.options, artifact)?;
        Ok(Box::new(model))
    }
}
