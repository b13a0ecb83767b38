//! Protobuf in and out: the bytes of a `ModelInferRequest` to a query, and an answer to the bytes of its message.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gristmill::codec::proto::{self, Form};
use gristmill_benches::model::{fp32, response};
use gristmill_engine::tensor::Tensor;
use gristmill_proto::inference::model_infer_request::InferInputTensor;
use gristmill_proto::inference::{InferTensorContents, ModelInferRequest};
use prost::Message;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPES: [&[usize]; 2] = [&[1, 30], &[1, 3, 224, 224]];

fn codec(criterion: &mut Criterion) {
    for shape in SHAPES {
        let x = fp32(shape);
        let mut group = criterion.benchmark_group(format!("protobuf {shape:?}"));
        group.throughput(Throughput::Bytes(x.data().len() as u64));
        for form in [Form::Raw, Form::Typed] {
            let message = Bytes::from(request(&x, form).encode_to_vec());
            group.bench_function(format!("decode {form:?}"), |bencher| {
                bencher.iter(|| {
                    let message =
                        ModelInferRequest::decode(black_box(&message).clone()).expect("it was encoded");
                    proto::decode(message).expect("the request is sound")
                });
            });
            let response = response(&x);
            group.bench_function(format!("encode {form:?}"), |bencher| {
                bencher.iter_batched(
                    || response.clone(),
                    |response| proto::encode(response, String::new(), form).encode_to_vec(),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

fn request(x: &Tensor, form: Form) -> ModelInferRequest {
    let mut input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: x.shape().iter().map(|&size| size as i64).collect(),
        ..InferInputTensor::default()
    };
    let mut message = ModelInferRequest { model_name: "model".into(), ..ModelInferRequest::default() };
    match form {
        Form::Raw => message.raw_input_contents.push(x.data().clone()),
        Form::Typed => {
            let (elements, _) = x.data().as_chunks::<4>();
            let fp32_contents = elements.iter().map(|element| f32::from_le_bytes(*element)).collect();
            input.contents = Some(InferTensorContents { fp32_contents, ..InferTensorContents::default() });
        }
    }
    message.inputs.push(input);
    message
}

criterion_group!(benches, codec);
criterion_main!(benches);
