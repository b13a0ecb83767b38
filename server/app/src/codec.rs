//! Between the messages of each dialect and the engine's tensors.

pub mod binary;
pub(crate) mod byte_order_mark;
pub mod classification;
pub mod json;
pub mod multipart;
pub mod proto;
pub(crate) mod rows;
