//! What the measuring programs share: pinned processes, a server under test, a client that costs little.

pub mod affinity;
pub mod cpu_time;
pub mod memory;
pub mod stolen;
pub mod summary;
pub mod bars;
pub mod curve;
pub mod lines;
pub mod arms;
pub mod model;
pub mod example;
mod onnx;
pub mod large;
pub mod deep;
pub mod mixing;
pub mod transformer;
pub mod alone;
pub mod echo;
pub mod frames;
pub mod connection;
pub mod load;
pub mod paced;
pub mod http;
pub mod server;
