//! JSON as the HTTP dialects speak it: numbers go straight between text and little-endian tensor bytes.

pub(crate) mod element;
mod infer;
pub(crate) mod scan;
pub(crate) mod write;

pub use infer::{Encoded, InferBody, WantedOutput, decode_infer, decode_raw, encode_infer};

#[cfg(test)]
mod tests;
