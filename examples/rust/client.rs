//! Predictions over gRPC from Rust, with tonic and the messages of the Open Inference Protocol.
//!
//! usage: `cargo run -p gristmill-proto --example client -- [HOST:PORT]` (the gRPC port, 127.0.0.1:8001 if not given)

#![expect(clippy::print_stdout, reason = "what it prints is the example")]

use std::error::Error;
use std::time::Duration;

use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use gristmill_proto::inference::model_infer_request::InferInputTensor;
use gristmill_proto::inference::{ModelInferRequest, ModelMetadataRequest};
use tonic::Request;

const ROWS: [[f32; 10]; 2] = [
    [59.0, 2.0, 32.1, 101.0, 157.0, 93.2, 38.0, 4.0, 4.8598, 87.0],
    [48.0, 1.0, 21.6, 87.0, 183.0, 103.2, 70.0, 3.0, 3.8918, 69.0],
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8001".into());
    // A client is cheap to clone, and its clones share the connection.
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await?;

    let about = ModelMetadataRequest { name: "diabetes".into(), ..ModelMetadataRequest::default() };
    for input in client.model_metadata(about).await?.into_inner().inputs {
        println!("takes {} {} {:?}", input.name, input.datatype, input.shape);
    }

    // The deadline goes with the call: what cannot be in time is refused at once.
    let mut request = Request::new(question("diabetes"));
    request.set_timeout(Duration::from_secs(30));
    let answer = client.model_infer(request).await?.into_inner();
    let (elements, _) = answer.raw_output_contents[0].as_chunks::<4>();
    let progression: Vec<f32> = elements.iter().map(|element| f32::from_le_bytes(*element)).collect();
    println!("progression: {progression:?}");

    // Errors have a code and a text that says what was expected.
    if let Err(status) = client.model_infer(question("nothing")).await {
        println!("refused: {:?} {}", status.code(), status.message());
    }
    Ok(())
}

/// A request with all rows; tensors travel as they lie in memory.
fn question(model: &str) -> ModelInferRequest {
    let data: Vec<u8> = ROWS.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "measurements".into(),
            datatype: "FP32".into(),
            shape: vec![ROWS.len() as i64, ROWS[0].len() as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![data.into()],
        ..ModelInferRequest::default()
    }
}
