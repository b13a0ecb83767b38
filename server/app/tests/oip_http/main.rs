//! The HTTP door over real sockets: what clients send and what they get, to the byte.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod connections;
mod describe;
mod generate;
mod infer;
mod narrow;
mod numbers;
mod openapi;
mod predict;
mod rows;
mod scoring;
mod server;
mod tensorflow;
mod torchserve;
