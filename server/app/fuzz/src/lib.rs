//! What must hold of everything that a decoder lets through, whichever protocol it came by.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::companions::Companions;
use gristmill_engine::request::{ModelInfo, NamedTensor, Query, Request, Response, Timing};
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, Tensor, TensorSpec};
use serde::de::IgnoredAny;

/// Data agrees with dtype and shape, and a model with just these inputs takes them.
///
/// # Panics
/// When it does not hold.
pub fn check_inputs(inputs: &[NamedTensor]) {
    let mut bytes = 0;
    for NamedTensor { name, tensor } in inputs {
        let again = Tensor::new(tensor.dtype(), tensor.shape(), tensor.data().clone());
        assert_eq!(again.as_ref(), Ok(tensor), "'{name}' is whole");
        match tensor.dtype().size_of(tensor.element_count()) {
            Some(length) => assert_eq!(tensor.data().len(), length, "'{name}'"),
            None => assert_eq!(tensor.bytes_elements().count(), tensor.element_count(), "'{name}'"),
        }
        bytes += tensor.data().len();
    }
    let names: HashSet<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let signature = Signature {
        inputs: inputs.iter().map(spec).collect(),
        outputs: Vec::new(),
        batch: BatchAxis::None { reason: "fuzzed".into() },
    };
    let request = Request::new(&signature, Query { inputs: inputs.to_vec(), ..Query::default() });
    if names.len() == inputs.len() {
        let request = request.expect("a request agrees with its own signature");
        assert_eq!((request.rows(), request.bytes()), (1, bytes));
    } else {
        request.expect_err("a name that is given twice is refused");
    }
}

/// The answer of a model that gives back what it was given.
pub fn echo(inputs: &[NamedTensor]) -> Response {
    answer(inputs, BatchAxis::None { reason: "fuzzed".into() })
}

/// The same of a model with rows, of which all `inputs` have as many.
pub fn echo_rows(inputs: &[NamedTensor]) -> Response {
    answer(inputs, BatchAxis::Rows)
}

fn answer(inputs: &[NamedTensor], batch: BatchAxis) -> Response {
    let outputs = inputs.iter().map(spec).collect();
    let model = Arc::new(model(Signature { inputs: Vec::new(), outputs, batch }));
    let outputs = inputs.iter().map(|input| input.tensor.clone()).enumerate().collect();
    Response {
        model,
        degraded_from: None,
        routed: None,
        rows: inputs.first().and_then(|input| input.tensor.shape().first().copied()).unwrap_or(1),
        outputs,
        timing: Timing::default(),
        batches: Vec::new(),
        answer_limit: None,
    }
}

/// The same names, dtypes, shapes and bytes in the same order.
///
/// # Panics
/// When they are not.
pub fn assert_same(left: &[NamedTensor], right: &[NamedTensor]) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left.name, right.name);
        assert_eq!(left.tensor, right.tensor, "'{}'", left.name);
    }
}

/// `inputs` with every true BOOL stored as 1: typed contents and JSON know no other.
pub fn with_plain_bools(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    let plain = |tensor: &Tensor| {
        if tensor.dtype() != DType::Bool {
            return tensor.clone();
        }
        let data: Vec<u8> = tensor.data().iter().map(|&byte| u8::from(byte != 0)).collect();
        Tensor::new(DType::Bool, tensor.shape(), data.into()).expect("as many bytes as before")
    };
    inputs
        .iter()
        .map(|input| NamedTensor { name: input.name.clone(), tensor: plain(&input.tensor) })
        .collect()
}

/// A v2 answer as a request for the same tensors. `"outputs":[` cannot occur before the list that it
/// opens: in a string its quotes would be escaped.
pub fn answer_as_request(answer: &[u8]) -> Vec<u8> {
    let (from, to) = (b"\"outputs\":[".as_slice(), b"\"inputs\":[".as_slice());
    let start = answer.windows(from.len()).position(|window| window == from).expect("an answer has outputs");
    [&answer[..start], to, &answer[start + from.len()..]].concat()
}

/// Whether serde_json takes `text`, or it has one of the tokens for floats that are not finite, which
/// we take besides.
pub fn is_json(text: &[u8]) -> bool {
    let has = |token: &[u8]| text.windows(token.len()).any(|window| window == token);
    has(b"NaN") || has(b"Infinity") || serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// One input of any dtype with rows of rank 0 to 2, some of any size; or, for the highest numbers, three inputs.
pub fn model_of_rows(pick: usize) -> ModelInfo {
    let row = |rank: usize| [Dim::Fixed(2), Dim::Dynamic(None)].into_iter().take(rank);
    let shape = |rank| [Dim::Dynamic(None)].into_iter().chain(row(rank)).collect();
    let input = |name: &str, dtype, rank| tensor_spec(name, dtype, shape(rank));
    let dtype = DType::ALL[pick % DType::ALL.len()];
    let inputs = match pick / DType::ALL.len() {
        rank @ 0..=2 => vec![input("x", dtype, rank)],
        _ => vec![input("a", dtype, 0), input("b", DType::Fp32, 1), input("c", DType::Bytes, 0)],
    };
    model(Signature { inputs, outputs: Vec::new(), batch: BatchAxis::Rows })
}

/// A loaded model with this signature.
pub fn model(signature: Signature) -> ModelInfo {
    ModelInfo {
        name: "m".into(),
        version: 1,
        signature,
        platform: "fuzzed".into(),
        batch_rows_max: 1,
        batch_delay: Duration::ZERO,
        instances: 1,
        threads: 1,
        companions: Companions::default(),
        notes: Vec::new(),
    }
}

pub fn tensor_spec(name: &str, dtype: DType, shape: Vec<Dim>) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: Some(shape), optional: false, labels: Vec::new() }
}

fn spec(input: &NamedTensor) -> TensorSpec {
    let shape = input.tensor.shape().iter().copied().map(Dim::Fixed).collect();
    tensor_spec(&input.name, input.tensor.dtype(), shape)
}
