//! Models that change while they are served, by the real program from a real directory: what is good serves at once, what is bad never.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_versions;
mod copies;
mod emptied;
mod files;
mod names;
mod onnx;
mod passed_over;
mod readiness;
mod server;
mod storm;
mod strays;
