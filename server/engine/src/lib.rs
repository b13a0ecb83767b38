//! From a validated request to its answer: what is served, batching, workers. Knows no protocol and no model runtime.
//!
//! Modules are declared in dependency order: each uses only those above it.

pub mod tensor;
pub mod error;
pub mod companions;
pub mod prediction;
pub mod trace;
pub mod request;
pub mod backend;
pub mod statistics;
pub mod conduct;
pub mod attainment;
mod answer;
mod gather;
pub mod cost;
pub mod capacity;
mod backlog;
mod waiting;
mod arrivals;
mod sizing;
mod admission;
mod former;
mod job;
mod stopping;
pub mod metrics;
pub mod routing;
mod service_level;
mod slots;
mod queue;
pub mod cores;
mod background;
mod proof;
pub mod golden;
mod sweep;
mod layout;
pub mod budget;
pub mod tuning;
mod terms;
pub mod registry;
mod compatibility;
mod deployment;
mod outbox;
mod runs;
mod worker;
mod crew;
mod workers;
pub mod simulation;
mod catalog;
mod plan;
pub mod managed;
mod route_table;
mod retire;
pub mod reconcile;
pub mod control;
pub mod engine;
#[cfg(feature = "testing")]
pub mod testing;
