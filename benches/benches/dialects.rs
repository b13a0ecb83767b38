//! What each HTTP dialect costs beside the Open Inference Protocol's JSON: the same tensors decoded and encoded.
//!
//! For each shape and dialect it prints the time to read a request and to write its answer, over that of the native
//! path. Both are the fastest of many rounds, taken in turns. What is timed is what the server runs between a body and
//! the engine: no socket and no model.

#![expect(clippy::print_stdout, reason = "the table is for people")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use gristmill::codec::json::{decode_infer, encode_infer};
use gristmill::predict_http::{decode_features, encode_features};
use gristmill::scoring_http::{MediaType, decode_scoring, encode_scoring};
use gristmill::tensorflow_http::{Format, decode_predict, encode_predictions};
use gristmill::torchserve_http::decode_prediction;
use gristmill_benches::model::{fp32, response};
use gristmill_benches::summary::{Bound, Target};
use gristmill_engine::request::{ModelInfo, Response};
use gristmill_engine::tensor::Tensor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Rounds of which the fastest counts
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Show in a second that it works; the numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A row of a table, a batch of such rows, and a picture.
const SHAPES: [&[usize]; 3] = [&[1, 30], &[64, 30], &[1, 3, 224, 224]];

/// Elements that are read in one measurement, so that the clock is fine enough.
const ELEMENTS_TIMED: usize = 20_000;

/// Reads a body for a model and writes the answer.
type Codec = fn(&ModelInfo, &Bytes, &Response);

struct Dialect {
    name: &'static str,
    body: Bytes,
    codec: Codec,
}

fn main() {
    let args = Args::parse();
    // `cargo test --benches` only asks whether it runs.
    let rounds = if args.quick || !args.bench { 1 } else { args.rounds };
    let worst = SHAPES.map(|shape| compare(shape, rounds)).into_iter().fold(0f64, f64::max);
    println!("{}", Target::new("the dearest dialect over the native JSON path", worst, Bound::AtMost(1.3)));
}

/// Prints a table for tensors of `shape` and gives the highest ratio.
fn compare(shape: &[usize], rounds: usize) -> f64 {
    let x = fp32(shape);
    let response = response(&x);
    let model = Arc::clone(&response.model);
    let native = native(&x);
    let dialects = dialects(&x);
    let repeats = (ELEMENTS_TIMED / x.element_count()).max(1);
    let time = |dialect: &Dialect| {
        let start = Instant::now();
        for _ in 0..repeats {
            (dialect.codec)(&model, black_box(&dialect.body), black_box(&response));
        }
        start.elapsed()
    };
    let mut fastest = Duration::MAX;
    let mut times = vec![Duration::MAX; dialects.len()];
    for _ in 0..rounds {
        fastest = fastest.min(time(&native));
        for (known, dialect) in times.iter_mut().zip(&dialects) {
            *known = (*known).min(time(dialect));
        }
    }
    let each = |duration: Duration| duration.as_secs_f64() * 1e6 / repeats as f64;
    println!("FP32 {shape:?}, decode and encode, fastest of {rounds} rounds");
    println!("  {:<34} {:>10.2} us", native.name, each(fastest));
    let mut worst = 0f64;
    for (time, dialect) in times.into_iter().zip(&dialects) {
        let ratio = time.as_secs_f64() / fastest.as_secs_f64();
        println!("  {:<34} {:>10.2} us {ratio:>6.2} x", dialect.name, each(time));
        worst = worst.max(ratio);
    }
    worst
}

fn native(x: &Tensor) -> Dialect {
    let (shape, data) = (x.shape(), nested(x));
    let body = format!(r#"{{"inputs":[{{"name":"x","shape":{shape:?},"datatype":"FP32","data":{data}}}]}}"#);
    let codec: Codec = |_, body, response| {
        let wanted = decode_infer(body.clone(), None).expect("the request is sound");
        black_box(encode_infer(&wanted, response).expect("FP32 goes in JSON"));
    };
    Dialect { name: "Open Inference Protocol", body: body.into(), codec }
}

fn dialects(x: &Tensor) -> Vec<Dialect> {
    let data = nested(x);
    let dialect = |name, body: String, codec: Codec| Dialect { name, body: body.into(), codec };
    let mut dialects = vec![
        dialect("TensorFlow Serving, KServe: rows", format!(r#"{{"instances":{data}}}"#), tensorflow),
        dialect("TensorFlow Serving: columns", format!(r#"{{"inputs":{data}}}"#), tensorflow),
        dialect("TorchServe: rows", data.clone(), torchserve),
        dialect("MLflow: inputs", format!(r#"{{"inputs":{{"x":{data}}}}}"#), mlflow),
        dialect("MLflow: instances", format!(r#"{{"instances":{data}}}"#), mlflow),
        dialect("plain: features", format!(r#"{{"features":{data}}}"#), plain),
    ];
    if let &[_, columns] = x.shape() {
        let names: Vec<String> = (0..columns).map(|column| format!("feature {column}")).collect();
        let split = format!(r#"{{"dataframe_split":{{"columns":{names:?},"data":{data}}}}}"#);
        dialects.push(dialect("MLflow: dataframe_split", split, mlflow));
        dialects.push(dialect("MLflow: dataframe_records", records(x, &names), mlflow));
        dialects.push(dialect("MLflow: CSV", csv(x, &names), mlflow_csv));
    }
    dialects
}

fn tensorflow(model: &ModelInfo, body: &Bytes, response: &Response) {
    let (inputs, format) = decode_predict(model, body).expect("the request is sound");
    black_box(inputs);
    black_box(encode_predictions(format, response).expect("FP32 goes in JSON"));
}

/// Lists of rows are written by the code that writes TensorFlow Serving's.
fn torchserve(model: &ModelInfo, body: &Bytes, response: &Response) {
    let read = decode_prediction(model, None, Some("application/json"), body.clone());
    black_box(read.expect("the request is sound"));
    black_box(encode_predictions(Format::Rows, response).expect("FP32 goes in JSON"));
}

fn mlflow(model: &ModelInfo, body: &Bytes, response: &Response) {
    black_box(decode_scoring(model, MediaType::Json, body).expect("the request is sound"));
    black_box(encode_scoring(response).expect("FP32 goes in JSON"));
}

fn mlflow_csv(model: &ModelInfo, body: &Bytes, response: &Response) {
    let media_type = MediaType::Csv { has_header: true };
    black_box(decode_scoring(model, media_type, body).expect("the request is sound"));
    black_box(encode_scoring(response).expect("FP32 goes in JSON"));
}

fn plain(model: &ModelInfo, body: &Bytes, response: &Response) {
    let (inputs, listed) = decode_features(model, body).expect("the request is sound");
    black_box(inputs);
    black_box(encode_features(response, listed, Duration::from_micros(412)).expect("FP32 goes in JSON"));
}

/// The elements as lists nested like the shape, as JSON.
fn nested(x: &Tensor) -> String {
    fn write(shape: &[usize], values: &mut std::slice::Iter<'_, f32>, text: &mut String) {
        let [size, inner @ ..] = shape else {
            let value = values.next().expect("a tensor has the elements of its shape");
            return write!(text, "{value}").expect("writing to a string does not fail");
        };
        text.push('[');
        for index in 0..*size {
            if index > 0 {
                text.push(',');
            }
            write(inner, values, text);
        }
        text.push(']');
    }
    let mut text = String::new();
    write(x.shape(), &mut values(x).iter(), &mut text);
    text
}

fn records(x: &Tensor, names: &[String]) -> String {
    let record = |row: &[f32]| {
        let cells = names.iter().zip(row).map(|(name, value)| format!("{name:?}:{value}"));
        format!("{{{}}}", cells.collect::<Vec<_>>().join(","))
    };
    let records: Vec<String> = values(x).chunks(names.len()).map(record).collect();
    format!(r#"{{"dataframe_records":[{}]}}"#, records.join(","))
}

fn csv(x: &Tensor, names: &[String]) -> String {
    let line = |row: &[f32]| row.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let lines: Vec<String> = values(x).chunks(names.len()).map(line).collect();
    format!("{}\n{}", names.join(","), lines.join("\n"))
}

fn values(x: &Tensor) -> Vec<f32> {
    x.data().as_chunks::<4>().0.iter().map(|element| f32::from_le_bytes(*element)).collect()
}
