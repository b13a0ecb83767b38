//! `parameters`: what the ONNX Runtime backend of Triton takes from there. Triton passes over keys that
//! it does not know; here they are noted.

use std::collections::{BTreeMap, HashMap};

use gristmill_onnx::{Provider, ProviderKind};
use gristmill_proto::inference as pb;

use super::accelerators::{flag, whole};
use super::document::Fault;
use super::note;

/// Most threads of one instance that a configuration may ask for, as in model.toml.
const THREADS_MAX: i64 = 1024;

/// What the parameters ask for.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// Threads of one instance inside an operator.
    pub(super) threads: Option<usize>,
    /// Options of the CUDA provider, given in the way from before it was an accelerator.
    cuda: BTreeMap<&'static str, String>,
    /// Whether the CPU provider keeps freed memory for later runs.
    cpu_arena: Option<bool>,
}

/// Checks the parameters.
pub(super) fn parameters(
    written: &HashMap<String, pb::ModelParameter>,
    notes: &mut Vec<String>,
) -> Result<Parameters, Fault> {
    let mut parameters = Parameters::default();
    for (key, pb::ModelParameter { string_value: text }) in written.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("parameters[{key}]");
        match key.as_str() {
            "intra_op_thread_count" => {
                // Triton takes 0 and less as the default.
                let threads = whole(&field, text)?;
                if threads > THREADS_MAX {
                    let reason = format!("expected 1 to {THREADS_MAX}, or 0 for the default, got {threads}");
                    return Err(Fault::new(field, reason));
                }
                parameters.threads = usize::try_from(threads).ok().filter(|threads| *threads > 0);
            }
            "inter_op_thread_count" => {
                if whole(&field, text)? > 1 {
                    note(notes, field, "operators of a model run one after the other");
                }
            }
            "execution_mode" => match whole(&field, text)? {
                0 => {}
                1 => note(notes, field, "operators of a model run one after the other"),
                mode => return Err(Fault::new(field, format!("expected 0 or 1, got {mode}"))),
            },
            "enable_mem_arena" => parameters.cpu_arena = Some(flag(&field, text)?),
            "enable_mem_pattern" => {
                flag(&field, text)?;
                note(notes, field, "memory is planned ahead where every dimension of the inputs is fixed");
            }
            "memory.enable_memory_arena_shrinkage" => {
                note(
                    notes,
                    field,
                    "memory is given back after runs that were much larger than others, and when nobody asks",
                );
            }
            "session.use_device_allocator_for_initializers" => {
                note(notes, field, "ONNX Runtime's default holds");
            }
            "cudnn_conv_algo_search" => {
                let name = named(&field, text, &["EXHAUSTIVE", "HEURISTIC", "DEFAULT"])?;
                parameters.cuda.insert("cudnn_conv_algo_search", name);
            }
            "arena_extend_strategy" => {
                let name = named(&field, text, &["kNextPowerOfTwo", "kSameAsRequested"])?;
                parameters.cuda.insert("arena_extend_strategy", name);
            }
            "gpu_mem_limit" => {
                let limit: u64 = text
                    .parse()
                    .map_err(|_| Fault::new(&field, format!("expected a number of bytes, got {text:?}")))?;
                parameters.cuda.insert("gpu_mem_limit", limit.to_string());
            }
            "do_copy_in_default_stream" => {
                let value = if flag(&field, text)? { "1" } else { "0" };
                parameters.cuda.insert("do_copy_in_default_stream", value.to_owned());
            }
            _ => note(notes, field, "the ONNX Runtime backend has no such parameter"),
        }
    }
    Ok(parameters)
}

/// The name that stands at the place that `text` says.
fn named(field: &str, text: &str, names: &[&str]) -> Result<String, Fault> {
    let index = whole(field, text)?;
    usize::try_from(index).ok().and_then(|index| names.get(index)).map(|name| (*name).to_owned()).ok_or_else(
        || {
            Fault::new(
                field,
                format!("expected 0 to {}, for {}, got {index}", names.len() - 1, names.join(", ")),
            )
        },
    )
}

// === impl Parameters ===

impl Parameters {
    /// Gives the providers the options that belong to them, and notes those for which there is none.
    pub(super) fn apply(&self, providers: &mut Option<Vec<Provider>>, notes: &mut Vec<String>) {
        let providers = providers.as_deref_mut().unwrap_or_default();
        match providers.iter_mut().find(|provider| provider.kind == ProviderKind::Cuda) {
            Some(cuda) => {
                // Triton lets these win over the accelerator's own.
                let options = self.cuda.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
                cuda.options.extend(options);
            }
            None => {
                for key in self.cuda.keys() {
                    let instead = "nothing here places the model on a GPU; add an instance_group of KIND_GPU";
                    note(notes, format!("parameters[{key}]"), instead);
                }
            }
        }
        // Keeping it is the provider's default.
        if self.cpu_arena == Some(false) {
            match providers.iter_mut().find(|provider| provider.kind == ProviderKind::Cpu) {
                Some(cpu) => {
                    cpu.options.insert("use_arena".to_owned(), "0".to_owned());
                }
                None => {
                    let instead = "nothing here names the CPU; add an instance_group of KIND_CPU";
                    note(notes, "parameters[enable_mem_arena]", instead);
                }
            }
        }
    }
}
