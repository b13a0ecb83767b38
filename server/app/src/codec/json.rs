//! JSON as the HTTP dialects speak it: numbers go straight between text and little-endian tensor bytes.

mod answer;
mod data;
pub(crate) mod element;
mod infer;
mod integer;
pub(crate) mod nested;
mod number;
pub(crate) mod outputs;
pub(crate) mod scan;
pub(crate) mod values;
pub(crate) mod write;

pub use answer::{Encoded, encode_infer};
pub use infer::{InferBody, WantedOutput, decode_infer, decode_raw};
pub(crate) use infer::{decode_infer_within, read_id, read_parameter};

#[cfg(test)]
mod tests;
