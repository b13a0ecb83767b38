//! From a validated request to its answer: what is served, batching, workers. Knows no protocol and no model runtime.
//!
//! Modules are declared in dependency order: each uses only those above it.

pub mod tensor;
pub mod error;
pub mod request;
pub mod backend;
pub mod statistics;
pub mod engine;
