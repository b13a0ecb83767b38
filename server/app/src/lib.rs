//! The front doors of the server, its configuration and its wiring.

mod admin;
pub mod check;
pub mod cli;
pub mod codec;
pub mod config;
pub(crate) mod features;
pub mod gateway;
mod golden;
pub mod health;
mod import;
mod latency;
pub mod limits;
mod manifest;
pub mod models_command;
pub mod oip_grpc;
pub mod oip_http;
pub(crate) mod predict_http;
mod repository_orders;
pub mod serve;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod tensorflow_http;
mod trace_context;
pub mod traces;
mod triton_config;
mod watch;
