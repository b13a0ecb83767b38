//! The front doors of the server, its configuration and its wiring.

pub mod status;
