//! From a validated request to its answer: what is served, batching, workers. Knows no protocol and no model runtime.
//!
//! Modules are declared in dependency order: each uses only those above it.

pub mod tensor;
pub mod error;
pub mod request;
pub mod backend;
pub mod statistics;
mod answer;
mod gather;
mod former;
mod job;
pub mod metrics;
mod queue;
pub mod cores;
mod proof;
mod sweep;
mod deployment;
mod worker;
pub mod workers;
mod catalog;
pub mod registry;
pub mod reconcile;
pub mod engine;
#[cfg(feature = "testing")]
pub mod testing;
