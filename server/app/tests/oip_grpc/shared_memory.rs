//! Regions of shared memory that change while a request is under way.

use std::fs;
use std::sync::Arc;

use gristmill::gateway::Gateway;
use gristmill::oip_grpc::GrpcOptions;
use gristmill::shared_memory::SharedMemory;
use gristmill_engine::testing::Gate;
use gristmill_engine::tuning::Tuning;
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::model_infer_request::InferRequestedOutputTensor;
use gristmill_proto::inference::{
    InferParameter, ModelInferRequest, SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryUnregisterRequest,
};
use tempfile::NamedTempFile;

use super::server::{Server, gated, raw};

/// Two rows of the region `r`, and an answer that goes behind them.
fn request() -> ModelInferRequest {
    let place = |offset| {
        let number = ParameterChoice::Int64Param;
        let parameters = [
            ("shared_memory_region", ParameterChoice::StringParam("r".into())),
            ("shared_memory_byte_size", number(16)),
            ("shared_memory_offset", number(offset)),
        ];
        let parameter = |(name, choice): (&str, ParameterChoice)| {
            (name.to_owned(), InferParameter { parameter_choice: Some(choice) })
        };
        parameters.into_iter().map(parameter).collect()
    };
    let mut request = raw("slow", &[[0.0; 2]; 2]);
    request.raw_input_contents.clear();
    request.inputs[0].parameters = place(0);
    request.outputs = vec![InferRequestedOutputTensor { name: "y".into(), parameters: place(16) }];
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_its_region() {
    let gate = Arc::new(Gate::default());
    let share = |gateway: Gateway| gateway.with_shared_memory(SharedMemory::new(true, None));
    let tuning =
        Tuning { instances: Some(1), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() };
    let models = [("slow", 1, gated(&gate), tuning)];
    let server = Server::start_as(models, GrpcOptions::default(), share).await;
    let mut client = server.client().await;
    let file = NamedTempFile::new_in("/dev/shm").unwrap();
    let rows: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(file.path(), [&rows[..], &[0; 16]].concat()).unwrap();
    let region = SystemSharedMemoryRegisterRequest {
        name: "r".into(),
        key: file.path().file_name().unwrap().to_str().unwrap().into(),
        byte_size: 32,
        ..Default::default()
    };
    client.system_shared_memory_register(region).await.unwrap();

    gate.close();
    let mut asking = server.client().await;
    let answer = tokio::spawn(async move { asking.model_infer(request()).await });
    let waiting = Arc::clone(&gate);
    let thread = std::thread::spawn(move || waiting.wait_for(1));
    tokio::task::block_in_place(|| thread.join().unwrap());
    // The inputs were read when the request came: what is there now is no part of it.
    fs::write(file.path(), [0xff; 32]).unwrap();
    client.system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest::default()).await.unwrap();
    let status =
        client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap();
    assert!(status.into_inner().regions.is_empty());
    gate.open();

    let answer = answer.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, [bytes::Bytes::new()], "an entry without bytes");
    assert_eq!(answer.outputs[0].shape, [2, 2]);
    assert_eq!(fs::read(file.path()).unwrap(), [&[0xff; 16][..], &rows].concat());
    let status = client.model_infer(request()).await.unwrap_err();
    assert!(status.message().contains("no shared memory region 'r' is registered"), "{status}");
}
