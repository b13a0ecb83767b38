//! The front doors of the server, its configuration and its wiring.

pub mod check;
pub mod cli;
pub mod codec;
pub mod config;
pub mod health;
pub mod oip_grpc;
pub mod oip_http;
pub(crate) mod predict_http;
pub mod serve;
pub mod shutdown;
pub mod status;
pub mod telemetry;
