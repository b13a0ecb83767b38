//! Compiles the .proto files with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=inference");
    println!("cargo:rerun-if-changed=gristmill");
    println!("cargo:rerun-if-changed=tensorflow");
    println!("cargo:rerun-if-changed=torchserve");
    println!("cargo:rerun-if-changed=google");
    let files = protox::compile(
        [
            "inference/grpc_service.proto",
            "gristmill/admin.proto",
            "gristmill/experiments.proto",
            "gristmill/feedback.proto",
            "gristmill/latency.proto",
            "gristmill/routes.proto",
            "tensorflow/serving.proto",
            "torchserve/inference.proto",
            "torchserve/management.proto",
        ],
        ["."],
    )?;

    // Reflection serves names and types; comments would only make the binary larger.
    let mut descriptors = files.clone();
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join("services.bin");
    std::fs::write(path, descriptors.encode_to_vec())?;

    // Tensors become slices of the buffer that their message came in, not copies.
    tonic_prost_build::configure()
        .bytes(".")
        // Where the crate has it, however deep the package is that names it.
        .extern_path(".google.rpc.Status", "crate::rpc::Status")
        .compile_fds(files)?;
    Ok(())
}
