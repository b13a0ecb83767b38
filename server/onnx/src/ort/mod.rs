//! Models on ONNX Runtime: sessions that instances share where the provider allows it, inputs lent and outputs borrowed.

mod arena;
mod binding;
mod session;
mod small_model;
mod stop;
mod values;

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use gristmill_engine::backend::{
    Artifact, Device, InputView, Instance, Model, Placement, RowIndependence, Stopper,
};
use gristmill_engine::error::{LoadError, RunError};
use gristmill_engine::tensor::{Dim, Signature, Tensor};
use ort::AsPointer;
use ort::ErrorCode;
use ort::memory::MemoryInfo;
use ort::session::Session;
use ort::sys::OrtValue;
use ort::value::ValueType;
use smallvec::SmallVec;

use self::arena::Arena;
use self::binding::Binding;
use self::session::Recipe;
use self::stop::RunStop;
use self::values::{Input, Value, check};
use crate::OnnxOptions;
use crate::graph::{Dimension, DimensionValue, ModelFile, TensorShape, TypeKind};
use crate::library::{Library, one_line};
use crate::providers::{self, Provider, ProviderKind};
use crate::signature;

/// Pointers for one call; few models have more tensors than this.
pub(crate) type Pointers<T> = SmallVec<[T; 8]>;

pub(crate) struct OrtModel {
    recipe: Recipe,
    providers: Vec<Provider>,
    signature: Arc<Signature>,
    independence: RowIndependence,
    notes: Vec<String>,
    devices: Vec<Device>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    /// The session that loading built, for the first instance if that is to be as loading expected.
    first: Option<Session>,
    /// The one that instances of one thread on the CPU run side by side, so that its weights are in memory once.
    shared: Weak<Session>,
}

/// What one worker runs: a session, and what belongs to this worker's runs alone. The tensors' names are kept as C wants
/// them, in signature order.
struct OrtInstance {
    /// For providers whose memory is not the host's. Before the session, so that it is dropped first.
    binding: Option<Binding>,
    /// Before the session, too.
    arena: Arena,
    /// The next run gives memory back when it ends.
    shrinks: bool,
    session: Arc<Session>,
    signature: Arc<Signature>,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    memory: MemoryInfo<'static>,
    stop: Arc<RunStop>,
}

// === impl OrtModel ===

impl OrtModel {
    /// Reads the artifact's signature and builds a first session, to learn which providers can be used.
    ///
    /// # Errors
    /// See [`gristmill_engine::backend::Backend::load`].
    pub(crate) fn load(
        library: &Library,
        options: &OnnxOptions,
        artifact: &Artifact,
    ) -> Result<OrtModel, LoadError> {
        let mut file = ModelFile::read(&artifact.path)?;
        // Refuses what cannot be served before the runtime's own, less clear, words about it.
        let derived = signature::derive(&artifact.path, &file, true, options.is_unbatched)?;
        let dims = derived.signature.inputs.iter().flat_map(|input| input.shape.iter().flatten());
        let unranked = derived.signature.inputs.iter().any(|input| input.shape.is_none());
        let recipe = Recipe {
            environment: library.environment.clone(),
            artifact: artifact.clone(),
            spinning: options.spinning,
            has_small_rows: small_model::has_small_rows(&derived.signature),
            dynamic: unranked || dims.into_iter().any(|dim| matches!(dim, Dim::Dynamic(_))),
        };
        let choice = recipe.choose(&options.providers, &file)?;

        add_inferred_shapes(&mut file, &choice.session);
        let derived = signature::derive(&artifact.path, &file, true, options.is_unbatched)?;
        let mut notes = vec![format!("ONNX Runtime {}", library.version)];
        notes.extend(choice.notes);
        notes.extend(derived.notes);
        let devices = providers::devices(&choice.accepted).map_err(LoadError::transient)?;
        Ok(OrtModel {
            recipe,
            providers: choice.accepted,
            devices,
            signature: Arc::new(derived.signature),
            independence: derived.independence,
            notes,
            sessions: Mutex::new(Sessions { first: Some(choice.session), shared: Weak::new() }),
        })
    }

    fn session(&self, placement: Placement) -> Result<Arc<Session>, LoadError> {
        // ONNX Runtime's sessions may be run by several threads at once ("InferenceSession::Run is stateless and can be
        // called concurrently", microsoft/onnxruntime#21946), its CPU provider among them. Others may serialise such
        // runs or keep state of the last one. A session of several threads has one pool of them, for which its
        // runs would compete.
        let is_shared = placement.threads == 1
            && self.providers.iter().all(|provider| provider.kind == ProviderKind::Cpu);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = Placement { device: self.devices[0], threads: self.recipe.artifact.threads };
        let first = sessions.first.take().filter(|_| placement == expected);
        if is_shared && let Some(session) = sessions.shared.upgrade() {
            return Ok(session);
        }
        let session = match first {
            Some(session) => session,
            None => {
                let file = ModelFile::read(&self.recipe.artifact.path)?;
                self.recipe.session(&self.providers, placement, &file)?
            }
        };
        let session = Arc::new(session);
        if is_shared {
            sessions.shared = Arc::downgrade(&session);
        }
        Ok(session)
    }
}

/// Gives outputs whose shape the file leaves out the one that the runtime inferred.
fn add_inferred_shapes(file: &mut ModelFile, session: &Session) {
    for output in &mut file.graph.outputs {
        let kind = output.kind.as_mut().and_then(|kind| kind.value.as_mut());
        let Some(TypeKind::Tensor(tensor)) = kind else { continue };
        if tensor.shape.is_some() {
            continue;
        }
        let Some(inferred) = session.outputs().iter().find(|inferred| inferred.name() == output.name) else {
            continue;
        };
        let ValueType::Tensor { shape, dimension_symbols, .. } = inferred.dtype() else { continue };
        // The interface reports an unknown rank and a scalar in the same way.
        if shape.is_empty() {
            continue;
        }
        let dims = shape.iter().zip(dimension_symbols.iter()).map(|(&size, symbol)| Dimension {
            value: Some(match size {
                0.. => DimensionValue::Size(size),
                _ => DimensionValue::Symbol(symbol.clone()),
            }),
        });
        tensor.shape = Some(TensorShape { dims: dims.collect() });
    }
}

impl Model for OrtModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &str {
        "onnxruntime_onnx"
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    fn row_independence(&self) -> RowIndependence {
        self.independence.clone()
    }

    fn instance(&self, placement: Placement) -> Result<Box<dyn Instance>, LoadError> {
        let session = self.session(placement)?;
        let instance =
            OrtInstance::new(session, Arc::clone(&self.signature), &self.providers).map_err(|error| {
                LoadError::transient(format!("ONNX Runtime cannot prepare a run: {}", one_line(&error)))
            })?;
        Ok(Box::new(instance))
    }
}

// === impl OrtInstance ===

impl OrtInstance {
    fn new(
        session: Arc<Session>,
        signature: Arc<Signature>,
        providers: &[Provider],
    ) -> Result<OrtInstance, ort::Error> {
        let c_names = |specs: &[gristmill_engine::tensor::TensorSpec]| {
            specs
                .iter()
                .map(|spec| Ok(CString::new(spec.name.as_str())?))
                .collect::<Result<Vec<_>, ort::Error>>()
        };
        let binding = match providers.iter().any(|provider| provider.kind.has_device_memory()) {
            true => Some(Binding::new(&session)?),
            false => None,
        };
        Ok(OrtInstance {
            input_names: c_names(&signature.inputs)?,
            output_names: c_names(&signature.outputs)?,
            memory: MemoryInfo::default(),
            stop: Arc::new(RunStop::new()?),
            arena: Arena::new(&session)?,
            shrinks: false,
            binding,
            session,
            signature,
        })
    }

    fn run_session(&mut self, inputs: &[(usize, Input<'_>)]) -> Result<Vec<Option<Value>>, ort::Error> {
        let options = self.stop.options(std::mem::take(&mut self.shrinks));
        if let Some(binding) = &mut self.binding {
            let inputs = inputs.iter().map(|(index, input)| (self.input_names[*index].as_c_str(), input));
            return binding.run(&self.session, options, inputs, &self.output_names);
        }
        let input_names: Pointers<*const c_char> =
            inputs.iter().map(|(index, _)| self.input_names[*index].as_ptr()).collect();
        let input_values: Pointers<*const OrtValue> =
            inputs.iter().map(|(_, input)| input.pointer()).collect();
        let output_names: Pointers<*const c_char> =
            self.output_names.iter().map(|name| name.as_ptr()).collect();
        let mut outputs: Pointers<*mut OrtValue> = SmallVec::from_elem(ptr::null_mut(), output_names.len());
        #[expect(unsafe_code, reason = "a call of ONNX Runtime's C interface")]
        // SAFETY: names, values and options are alive for the call and as many as stated. Others may run the session
        // meanwhile only where its provider allows that (`OrtModel::session`), each with options and values of
        // its own. Another thread may set the options' flag, which the runtime reads as it goes.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                input_names.as_ptr(),
                input_values.as_ptr(),
                input_values.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        // Owned before the status is looked at, so that a run that failed half way leaks nothing.
        let outputs = outputs.into_iter().map(Value::own).collect();
        check(status)?;
        Ok(outputs)
    }
}

impl Instance for OrtInstance {
    fn run(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError> {
        let mut lent = Vec::with_capacity(inputs.len());
        for (index, view) in inputs.iter().enumerate() {
            let Some(view) = view else { continue };
            let input = Input::lend(view, &self.memory).map_err(|error| {
                RunError::Failed(format!(
                    "input '{}': {}",
                    self.signature.inputs[index].name,
                    one_line(&error)
                ))
            })?;
            lent.push((index, input));
        }
        let bytes = inputs.iter().flatten().map(|view| view.data.len()).sum();
        self.shrinks |= self.arena.begin(bytes);
        let outputs = self.run_session(&lent).map_err(|error| match self.stop.is_set() {
            true => RunError::Stopped,
            false => run_error(error),
        })?;
        if outputs.len() != self.signature.outputs.len() {
            return Err(RunError::Failed(format!(
                "ONNX Runtime gave {} outputs where the model file promises {}",
                outputs.len(),
                self.signature.outputs.len()
            )));
        }
        let mut tensors = Vec::with_capacity(outputs.len());
        for (spec, output) in self.signature.outputs.iter().zip(outputs) {
            let output = output.ok_or_else(|| {
                RunError::Failed(format!("the model gave no value for output '{}'", spec.name))
            })?;
            tensors.push(output.into_tensor(spec, inputs)?);
        }
        Ok(tensors)
    }

    fn give_back_memory(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<(), RunError> {
        if !self.arena.is_worth_it() {
            return Ok(());
        }
        self.shrinks = true;
        self.run(inputs).map(drop)
    }

    fn stopper(&self) -> Stopper {
        Stopper::new(Arc::<RunStop>::clone(&self.stop))
    }
}

fn run_error(error: ort::Error) -> RunError {
    let message = readable(&one_line(&error));
    match error.code() {
        ErrorCode::InvalidArgument => RunError::Input(message),
        _ => RunError::Failed(message),
    }
}

/// Names the operator first, and leaves out the places in ONNX Runtime's own source.
fn readable(message: &str) -> String {
    let words = message.split(' ').filter(|word| !word.starts_with("/onnxruntime_src/"));
    let message = words.collect::<Vec<_>>().join(" ");
    let operator = message.strip_prefix("Non-zero status code returned while running ").and_then(|rest| {
        let (operator, rest) = rest.split_once(" node. Name:'")?;
        let (node, reason) = rest.split_once("' Status Message: ")?;
        Some(format!("operator {operator} (node '{node}'): {reason}"))
    });
    operator.unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gristmill_engine::tensor::DType;

    use super::*;
    use crate::library::Runtime;

    pub(super) fn artifact(name: &str) -> Artifact {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Artifact {
            model: "fixture".into(),
            version: 1,
            path: fixtures.join(format!("{name}.onnx")),
            threads: 1,
        }
    }

    /// ONNX Runtime, or `None` (said aloud) where it is not installed and nobody requires it.
    pub(super) fn library() -> Option<Arc<Library>> {
        let runtime = Runtime::find(None).unwrap();
        if runtime.library.is_err() {
            assert!(std::env::var_os("GRISTMILL_REQUIRE_ONNXRUNTIME").is_none(), "{}", runtime.describe());
            eprintln!("not tested: {}", runtime.describe());
        }
        runtime.library.ok()
    }

    #[test]
    fn runs_through_a_binding_give_the_same_and_leave_earlier_outputs_alone() {
        let Some(library) = library() else { return };
        let model = OrtModel::load(&library, &OnnxOptions::default(), &artifact("two_outputs")).unwrap();
        let session = model.session(Placement::default()).unwrap();
        let mut instance = OrtInstance::new(session, Arc::clone(&model.signature), &[]).unwrap();
        instance.binding = Some(Binding::new(&instance.session).unwrap());
        let runs: Vec<_> = [1.0f32, 3.0, 5.0]
            .into_iter()
            .map(|value| {
                let data = [value; 8].map(f32::to_le_bytes).concat();
                let view = InputView { dtype: DType::Fp32, shape: &[2, 4], data: &data };
                (value, instance.run(&[Some(view)]).unwrap())
            })
            .collect();
        for (value, outputs) in runs {
            assert_eq!(outputs[0].shape(), [2, 4]);
            assert_eq!(outputs[0].data()[..], [value * 2.0; 8].map(f32::to_le_bytes).concat());
            assert_eq!(outputs[1].data()[..], [value * 0.5; 8].map(f32::to_le_bytes).concat());
        }
        let data = [0u8; 12];
        let wrong = InputView { dtype: DType::Fp32, shape: &[1, 3], data: &data };
        assert!(matches!(instance.run(&[Some(wrong)]), Err(RunError::Input(_))));
        let right = InputView { dtype: DType::Fp32, shape: &[0, 4], data: &[] };
        assert_eq!(instance.run(&[Some(right)]).unwrap()[0].shape(), [0, 4]);
        instance.stopper().stop();
        assert!(matches!(instance.run(&[Some(right)]), Err(RunError::Stopped)));
    }

    #[test]
    fn memory_of_an_outsized_run_is_given_back_by_the_next_and_when_idle() {
        let Some(library) = library() else { return };
        let default = OnnxOptions::default();
        // So small a model has no arena unless it is asked for.
        let mut cpu = Provider::new(ProviderKind::Cpu);
        cpu.options.insert("use_arena".into(), "1".into());
        let with_arena = OnnxOptions { providers: vec![cpu], ..OnnxOptions::default() };
        let instance = |options| {
            let model = OrtModel::load(&library, options, &artifact("mlp")).unwrap();
            let session = model.session(Placement::default()).unwrap();
            OrtInstance::new(session, Arc::clone(&model.signature), &[]).unwrap()
        };
        assert_eq!(instance(&default).arena.total_bytes(), None);
        let mut instance = instance(&with_arena);
        let data = vec![0u8; 500_000 * 16 * 4];
        let rows = |count: usize| -> (Vec<usize>, &[u8]) { (vec![count, 16], &data[..count * 16 * 4]) };
        let run = |instance: &mut OrtInstance, count| {
            let (shape, data) = rows(count);
            instance.run(&[Some(InputView { dtype: DType::Fp32, shape: &shape, data })]).unwrap();
            instance.arena.total_bytes().unwrap()
        };
        let usual = run(&mut instance, 8);
        let large = run(&mut instance, 500_000);
        assert!(large > usual + arena::WORTH_BYTES, "{usual} and {large} bytes");
        assert!(run(&mut instance, 8) < large / 4, "the run after it gives it back");

        let large = run(&mut instance, 500_000);
        let (shape, data) = rows(1);
        let view = InputView { dtype: DType::Fp32, shape: &shape, data };
        instance.give_back_memory(&[Some(view)]).unwrap();
        assert!(instance.arena.total_bytes().unwrap() < large / 4, "it is idle");
    }

    #[test]
    fn instances_of_one_thread_share_a_session_while_one_of_them_lives() {
        let Some(library) = library() else { return };
        let model = OrtModel::load(&library, &OnnxOptions::default(), &artifact("mlp")).unwrap();
        let with = |threads| model.session(Placement { threads, ..Placement::default() }).unwrap();
        let (one, other, wide, wider) = (with(1), with(1), with(2), with(2));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &wide) && !Arc::ptr_eq(&wide, &wider));
        let shared = Arc::downgrade(&one);
        drop((one, other));
        assert!(shared.upgrade().is_none(), "the model keeps no session that nobody runs");
        assert_eq!(Arc::strong_count(&with(1)), 1);
    }

    #[test]
    fn messages_name_the_operator_in_one_line() {
        let check = |message: &str, expected: &str| assert_eq!(readable(&one_line(&message)), expected);
        check(
            "Non-zero status code returned while running Add node. Name:'a' Status Message: \
             /onnxruntime_src/core/a.h:12 bad\n\tsize",
            "operator Add (node 'a'): bad size",
        );
        check("Got: 3\nExpected: 16", "Got: 3 Expected: 16");
    }
}
