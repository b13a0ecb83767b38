//! Every option of an ONNX Runtime session, written out, and the trial of the execution providers.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr;
use std::slice;

use gristmill_engine::backend::{Artifact, Device, Placement};
use gristmill_engine::error::LoadError;
use ort::AsPointer;
use ort::ErrorCode;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::small_model;
use super::values::check;
use crate::graph::{ModelFile, model_directory};
use crate::library::one_line;
use crate::providers::{self, Provider, ProviderKind, USE_ARENA};

/// What decides how the sessions of one model are built.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) environment: Environment,
    pub(crate) artifact: Artifact,
    pub(crate) spinning: bool,
    /// Whether an input has dimensions of any size: memory is not planned ahead then.
    pub(crate) dynamic: bool,
    /// Whether a row's inputs and outputs are known to need little.
    pub(crate) has_small_rows: bool,
}

/// The providers that a model got, in order, and what became of the others.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) session: Session,
    pub(crate) accepted: Vec<Provider>,
    pub(crate) notes: Vec<String>,
}

/// Why a session could not be built.
#[derive(Debug)]
struct Refusal {
    reason: String,
    /// The model is at fault, not what it was built with or at what time.
    is_permanent: bool,
}

// === impl Refusal ===

impl Refusal {
    fn of_runtime(error: &ort::Error) -> Refusal {
        let reason = one_line(error);
        let is_permanent = match error.code() {
            ErrorCode::InvalidGraph
            | ErrorCode::InvalidProtobuf
            | ErrorCode::NoModel
            | ErrorCode::NotImplemented => true,
            // The code of everything else too.
            ErrorCode::GenericFailure => {
                reason.contains("Type Error") || reason.contains("is not a registered function/op")
            }
            _ => false,
        };
        Refusal { reason, is_permanent }
    }

    fn of_provider(reason: String) -> Refusal {
        Refusal { reason, is_permanent: false }
    }
}

// === impl Recipe ===

impl Recipe {
    /// Tries `wanted` in order, and keeps each provider with which a session can be built and that takes at least one operator of
    /// the model.
    ///
    /// # Errors
    /// The model does not load; or `wanted` names providers, none can be used, and `cpu` is not among them.
    pub(crate) fn choose(&self, wanted: &[Provider], file: &ModelFile) -> Result<Choice, LoadError> {
        let mut accepted: Vec<Provider> = Vec::new();
        let mut notes = Vec::new();
        let mut best: Option<Session> = None;
        let mut refusals = Vec::new();
        let mut cpu_allowed = wanted.is_empty();
        for provider in wanted {
            if cpu_allowed {
                refusals.push(format!(
                    "{} refused: it comes after cpu, which takes every operator",
                    provider.kind
                ));
                continue;
            }
            let mut trial = accepted.clone();
            trial.push(provider.clone());
            if provider.kind == ProviderKind::Cpu {
                cpu_allowed = true;
                // Its options count even where it only takes what others leave.
                accepted = trial;
                best = None;
                continue;
            }
            match self
                .first(&trial, file)
                .and_then(|session| self.assigned(session, provider).map_err(Refusal::of_provider))
            {
                Ok((session, operators)) => {
                    accepted = trial;
                    best = Some(session);
                    notes.push(operators);
                }
                Err(Refusal { reason, .. }) => refusals.push(format!("{} refused: {reason}", provider.kind)),
            }
        }
        if !cpu_allowed && accepted.is_empty() {
            // A device may have been busy.
            return Err(LoadError::transient(format!(
                "{}: none of the execution providers asked for can be used: {}; add cpu to the list to allow it",
                self.artifact.path.display(),
                refusals.join("; ")
            )));
        }
        let session = match best {
            Some(session) => session,
            None => self.first(&accepted, file).map_err(|refusal| self.unloadable(&refusal))?,
        };
        if is_on_cpu(&accepted) {
            notes.push("CPU execution provider".into());
        }
        for refusal in &refusals {
            tracing::warn!(model = self.artifact.model, version = self.artifact.version, "{refusal}");
        }
        notes.extend(refusals);
        Ok(Choice { session, accepted, notes })
    }

    /// One more session, as [`Recipe::choose`] found it.
    ///
    /// # Errors
    /// The file has changed or gone, or memory is short.
    pub(crate) fn session(
        &self,
        accepted: &[Provider],
        placement: Placement,
        file: &ModelFile,
    ) -> Result<Session, LoadError> {
        self.build(accepted, placement, file).map_err(|refusal| self.unloadable(&refusal))
    }

    /// A session as the first instance is expected to need it.
    fn first(&self, providers: &[Provider], file: &ModelFile) -> Result<Session, Refusal> {
        let device = providers::devices(providers).map_err(Refusal::of_provider)?[0];
        self.build(providers, Placement { device, threads: self.artifact.threads }, file)
    }

    fn unloadable(&self, refusal: &Refusal) -> LoadError {
        let text = format!("ONNX Runtime cannot load {}: {}", self.artifact.path.display(), refusal.reason);
        match refusal.is_permanent {
            true => LoadError::permanent(text),
            false => LoadError::transient(text),
        }
    }

    fn build(
        &self,
        providers: &[Provider],
        placement: Placement,
        file: &ModelFile,
    ) -> Result<Session, Refusal> {
        let builder = |level| self.builder(providers, placement, level, file);
        if is_on_cpu(providers)
            && small_model::is_small(file)
            && let Some(bytes) = small_model::optimized(builder(GraphOptimizationLevel::All)?, file)
        {
            return commit(builder(GraphOptimizationLevel::Disable)?, &bytes);
        }
        commit(builder(GraphOptimizationLevel::All)?, &file.bytes)
    }

    fn builder(
        &self,
        providers: &[Provider],
        placement: Placement,
        level: GraphOptimizationLevel,
        file: &ModelFile,
    ) -> Result<SessionBuilder, Refusal> {
        let needs_no_arena = is_on_cpu(providers) && small_model::is_small(file) && self.has_small_rows;
        // What the runtime falls back to where nothing is asked for.
        let cpu = [Provider::new(ProviderKind::Cpu)];
        let asked_for = if providers.is_empty() { &cpu } else { providers };
        let mut dispatches = Vec::new();
        for provider in asked_for {
            let mut provider = provider.on(placement.device);
            if needs_no_arena {
                provider.options.entry(USE_ARENA.into()).or_insert_with(|| "0".into());
            }
            dispatches.push(provider.dispatch().map_err(Refusal::of_provider)?);
        }
        self.options(!is_on_cpu(providers), placement.threads, level)
            .and_then(|builder| Ok(builder.with_execution_providers(dispatches)?))
            .map_err(|error| Refusal::of_runtime(&error))
    }

    fn options(
        &self,
        is_accelerated: bool,
        threads: usize,
        level: GraphOptimizationLevel,
    ) -> Result<SessionBuilder, ort::Error> {
        let directory = model_directory(&self.artifact.path);
        let mut builder = Session::builder(&self.environment)?
            .with_log_level(LogLevel::Warning)?
            .with_log_id(&self.artifact.model)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(self.spinning)?
            .with_inter_op_spinning(false)?
            .with_optimization_level(level)?
            .with_deterministic_compute(true)?
            // A plan is kept for every combination of input sizes, without bound.
            .with_memory_pattern(!self.dynamic)?
            .with_config_entry(
                "session.model_external_initializers_file_folder_path",
                path_text(&directory),
            )?;
        if is_accelerated {
            builder = builder.with_config_entry("session.record_ep_graph_assignment_info", "1")?;
        }
        Ok(builder)
    }

    /// Checks that `provider` took part of the model, and says how much.
    fn assigned(&self, session: Session, provider: &Provider) -> Result<(Session, String), String> {
        let operators = operators_by_provider(&session).map_err(|error| one_line(&error))?;
        let all: usize = operators.values().sum();
        let name = provider.on(Device::Gpu(0)).dispatch()?.name();
        match operators.get(name) {
            Some(count) => Ok((session, format!("{}: {count} of {all} operators", provider.kind))),
            None => Err("no operator of the model is left that it supports".into()),
        }
    }
}

fn is_on_cpu(providers: &[Provider]) -> bool {
    providers.iter().all(|provider| provider.kind == ProviderKind::Cpu)
}

fn commit(mut builder: SessionBuilder, bytes: &[u8]) -> Result<Session, Refusal> {
    builder.commit_from_memory(bytes).map_err(|error| Refusal::of_runtime(&error))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// How many operators each execution provider took, by the provider's name in ONNX Runtime.
#[expect(unsafe_code, reason = "calls of ONNX Runtime's C interface")]
fn operators_by_provider(session: &Session) -> Result<BTreeMap<String, usize>, ort::Error> {
    let api = ort::api();
    let mut subgraphs = ptr::null();
    let mut count = 0;
    let mut operators = BTreeMap::new();
    // SAFETY: the arrays and names belong to the session, which outlives these reads.
    unsafe {
        check((api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut subgraphs, &mut count))?;
        if count == 0 {
            return Ok(operators);
        }
        for &subgraph in slice::from_raw_parts(subgraphs, count) {
            let mut name: *const c_char = ptr::null();
            let mut nodes = ptr::null();
            let mut nodes_count = 0;
            check((api.EpAssignedSubgraph_GetEpName)(subgraph, &mut name))?;
            check((api.EpAssignedSubgraph_GetNodes)(subgraph, &mut nodes, &mut nodes_count))?;
            let name = CStr::from_ptr(name).to_string_lossy().into_owned();
            *operators.entry(name).or_insert(0) += nodes_count;
        }
    }
    Ok(operators)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{artifact, library};
    use super::*;

    #[test]
    fn a_session_says_which_provider_took_its_operators() {
        let Some(library) = library() else { return };
        let recipe = Recipe {
            environment: library.environment.clone(),
            artifact: artifact("mlp"),
            spinning: false,
            dynamic: true,
            has_small_rows: false,
        };
        let session = recipe
            .options(true, 1, GraphOptimizationLevel::All)
            .unwrap()
            .commit_from_file(&recipe.artifact.path)
            .unwrap();
        let operators = operators_by_provider(&session).unwrap();
        assert_eq!(operators.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
        assert!(operators["CPUExecutionProvider"] >= 2, "{operators:?}");

        let cuda = Provider::new(ProviderKind::Cuda);
        let reason = recipe.assigned(session, &cuda).unwrap_err();
        assert_eq!(reason, "no operator of the model is left that it supports");
    }
}
