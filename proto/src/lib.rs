//! The messages and services of the protocols that the server speaks, generated from the .proto files beside.

/// The Open Inference Protocol v2 with Triton's extensions: package `inference`.
#[expect(
    clippy::all,
    clippy::allow_attributes,
    reason = "generated code: its generator answers for its style"
)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// What operators ask of a running server, and what it tells them: package `gristmill.v1`.
#[expect(clippy::allow_attributes, reason = "generated code: its generator answers for its style")]
pub mod admin {
    tonic::include_proto!("gristmill.v1");
}

/// TensorFlow's tensors and TensorFlow Serving's services: packages `tensorflow` and those below it.
#[expect(
    clippy::all,
    clippy::allow_attributes,
    reason = "generated code: its generator answers for its style"
)]
pub mod tensorflow {
    tonic::include_proto!("tensorflow");

    /// Package `tensorflow.error`.
    pub mod error {
        tonic::include_proto!("tensorflow.error");
    }

    /// Package `tensorflow.serving`.
    pub mod serving {
        tonic::include_proto!("tensorflow.serving");
    }
}

/// TorchServe's services: packages below `org.pytorch.serve.grpc`.
pub mod torchserve {
    /// Package `org.pytorch.serve.grpc.inference`.
    #[expect(clippy::allow_attributes, reason = "generated code: its generator answers for its style")]
    pub mod inference {
        tonic::include_proto!("org.pytorch.serve.grpc.inference");
    }

    /// Package `org.pytorch.serve.grpc.management`.
    #[expect(clippy::allow_attributes, reason = "generated code: its generator answers for its style")]
    pub mod management {
        tonic::include_proto!("org.pytorch.serve.grpc.management");
    }
}

/// What errors carry: package `google.rpc`.
pub mod rpc {
    /// `google.rpc.Status`, in `grpc-status-details-bin` and in messages of streams.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        /// A code of gRPC.
        #[prost(int32, tag = "1")]
        pub code: i32,
        #[prost(string, tag = "2")]
        pub message: String,
        #[prost(message, repeated, tag = "3")]
        pub details: Vec<prost_types::Any>,
    }
}

/// The encoded `FileDescriptorSet` of every service in this crate, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("services");
