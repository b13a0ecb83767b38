//! JSON in and out: an inference request beside the published number parsers on the same numbers, and an answer.
//!
//! Besides criterion's numbers it prints, for each way in which clients write floats, the time of the
//! whole request over that of the fastest parser, which reads the bare list of numbers only. Both
//! are the fastest of many rounds taken in turns.

#![expect(clippy::print_stdout, reason = "the table is for people")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use gristmill::codec::json::{InferBody, decode_infer, encode_infer};
use gristmill_benches::model::response;
use gristmill_benches::summary::{Bound, Target};
use gristmill_engine::tensor::{DType, Tensor};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: [usize; 4] = [1, 3, 224, 224];

/// Rounds of which the fastest counts.
const ROUNDS: usize = 60;

/// A way to write the same picture.
struct Text {
    name: &'static str,
    /// The list of numbers.
    numbers: String,
    /// The request around it.
    request: Bytes,
}

/// Reads a list of numbers and gives one back, so that nothing is left out.
type Parser = fn(&str) -> f32;

/// The published parsers, each with the code that its documentation shows for a list of floats, and a
/// bare loop over each of the two libraries that convert single numbers.
const PARSERS: [(&str, Parser); 6] = [
    ("fast-float2", |text| loop_over(text, |rest| fast_float2::parse_partial(rest).ok())),
    ("lexical-core", |text| loop_over(text, |rest| lexical_core::parse_partial(rest).ok())),
    ("serde_json", |text| last(&serde_json::from_str::<Vec<f32>>(text).expect("it is JSON"))),
    ("sonic-rs", |text| last(&sonic_rs::from_str::<Vec<f32>>(text).expect("it is JSON"))),
    ("sonic-rs f64", |text| last(&sonic_rs::from_str::<Vec<f64>>(text).expect("it is JSON"))),
    ("simd-json", |text| {
        // It writes into its input, so that it needs a copy as a server would that keeps the body.
        let mut copy = text.as_bytes().to_vec();
        last(&simd_json::serde::from_slice::<Vec<f32>>(&mut copy).expect("it is JSON"))
    }),
];

fn main() {
    let texts = texts();
    let mut criterion = Criterion::default().configure_from_args();
    decode(&mut criterion, &texts);
    encode(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` only asks whether it runs.
    if std::env::args().any(|argument| argument == "--bench") {
        summarise(&texts);
    }
}

fn decode(criterion: &mut Criterion, texts: &[Text]) {
    for text in texts {
        let mut group = criterion.benchmark_group(format!("json decode, {}", text.name));
        group.throughput(Throughput::Bytes(text.numbers.len() as u64));
        group.bench_function("gristmill", |bencher| bencher.iter(|| request(black_box(text))));
        for (name, parser) in PARSERS {
            group.bench_function(name, |bencher| bencher.iter(|| parser(black_box(&text.numbers))));
        }
    }
}

fn encode(criterion: &mut Criterion) {
    let data: Vec<u8> = picture().iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new(DType::Fp32, SHAPE.as_slice(), data.into()).expect("the picture has this shape");
    let response = response(&tensor);
    let mut group = criterion.benchmark_group("json encode");
    group.throughput(Throughput::Elements(tensor.element_count() as u64));
    for (name, binary_data_output) in [("gristmill json", false), ("gristmill binary", true)] {
        let wanted = InferBody { binary_data_output, ..InferBody::default() };
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| encode_infer(black_box(&wanted), black_box(&response)).expect("FP32 goes in JSON"));
        });
    }
    let values = picture();
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| serde_json::to_vec(black_box(&values)).expect("floats go in JSON"));
    });
}

fn summarise(texts: &[Text]) {
    println!("\na {SHAPE:?} FP32 request, fastest of {ROUNDS} rounds");
    let mut worst = 0f64;
    for text in texts {
        let mut ours = Duration::MAX;
        let mut parsers = PARSERS.map(|(name, _)| (name, Duration::MAX));
        for _ in 0..ROUNDS {
            ours = ours.min(time(|| request(text)));
            for ((_, fastest), (_, parser)) in parsers.iter_mut().zip(PARSERS) {
                *fastest = (*fastest).min(time(|| parser(&text.numbers)));
            }
        }
        let (name, fastest) =
            parsers.into_iter().min_by_key(|(_, duration)| *duration).expect("there are parsers");
        let ratio = ours.as_secs_f64() / fastest.as_secs_f64();
        worst = worst.max(ratio);
        println!("  {:<24} {:>8.3} ms, {ratio:.2} x the fastest", text.name, ours.as_secs_f64() * 1e3);
        for (parser, duration) in parsers {
            let mark = if parser == name { "fastest" } else { "" };
            println!("    {parser:<22} {:>8.3} ms  {mark}", duration.as_secs_f64() * 1e3);
        }
    }
    println!("{}", Target::new("JSON request over the fastest number parser", worst, Bound::AtMost(3.0)));
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

fn request(text: &Text) -> InferBody {
    decode_infer(text.request.clone(), None).expect("the request is sound")
}

/// Walks a flat list; every byte is looked at and nothing is checked that need not be.
fn loop_over(text: &str, number: impl Fn(&[u8]) -> Option<(f32, usize)>) -> f32 {
    let mut values = Vec::new();
    let mut rest = text.as_bytes().strip_prefix(b"[").expect("it is a list");
    loop {
        let (value, length) = number(rest).expect("it is a number");
        values.push(value);
        rest = &rest[length..];
        match rest {
            [b',', b' ', after @ ..] | [b',', after @ ..] => rest = after,
            _ => return last(&values),
        }
    }
}

fn last<T: Copy + Into<f64>>(values: &[T]) -> f32 {
    values.last().map_or(0.0, |&value| value.into() as f32)
}

fn texts() -> Vec<Text> {
    let picture = picture();
    let wide: Vec<f64> = picture.iter().map(|&value| value.into()).collect();
    let bytes: Vec<u8> = picture.iter().map(|&value| ((value + 2.2) * 50.0) as u8).collect();
    let json = |values: Result<String, serde_json::Error>| values.expect("numbers go in JSON");
    let text = |name, numbers: String| {
        let request =
            format!(r#"{{"inputs":[{{"name":"x","shape":{SHAPE:?},"datatype":"FP32","data":{numbers}}}]}}"#);
        Text { name, numbers, request: request.into() }
    };
    vec![
        text("shortest floats", json(serde_json::to_string(&picture))),
        // What json.dumps(array.tolist()) gives: FP64 digits, a space after each comma.
        text("as Python writes them", json(serde_json::to_string(&wide)).replace(',', ", ")),
        text("bytes as integers", json(serde_json::to_string(&bytes))),
    ]
}

/// Pixels as they are after the usual normalisation: 256 levels, scaled and shifted by channel.
fn picture() -> Vec<f32> {
    let channels = [(0.485f32, 0.229f32), (0.456, 0.224), (0.406, 0.225)];
    let pixels = SHAPE[2] * SHAPE[3];
    (0..SHAPE[1] * pixels)
        .map(|index| {
            let (mean, deviation) = channels[index / pixels];
            let level = (index as u32).wrapping_mul(2_654_435_761) >> 24;
            (level as f32 / 255.0 - mean) / deviation
        })
        .collect()
}
