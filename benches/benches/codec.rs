//! Protobuf in and out: the bytes of a `ModelInferRequest` to a query, and an answer to the bytes of its message. And
//! binary data in JSON, which is base64.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gristmill::codec::proto::{self, Form};
use gristmill::tensorflow_http::decode_predict;
use gristmill_benches::model::{fp32, response};
use gristmill_engine::tensor::{DType, Tensor};
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

/// A picture's bytes as TensorFlow Serving's clients send them.
fn base64(criterion: &mut Criterion) {
    let picture: Vec<u8> =
        (0..3 * 224 * 224).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut data = (picture.len() as u32).to_le_bytes().to_vec();
    data.extend_from_slice(&picture);
    let element = Tensor::new(DType::Bytes, [1, 1].as_slice(), data.into()).expect("it is one string");
    let response = response(&element);
    let text = STANDARD.encode(&picture);
    let body = Bytes::from(format!(r#"{{"instances":[{{"b64":"{text}"}}]}}"#));
    let mut group = criterion.benchmark_group("base64 in JSON");
    group.throughput(Throughput::Bytes(picture.len() as u64));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode_predict(&response.model, black_box(&body)).expect("the request is sound"));
    });
    group.bench_function("the same by the crate base64, without JSON", |bencher| {
        bencher.iter(|| STANDARD.decode(black_box(&text)).expect("it was encoded"));
    });
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

criterion_group!(benches, codec, base64);
criterion_main!(benches);
