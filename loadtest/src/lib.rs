//! A load generator for Open Inference Protocol servers. Modules come in dependency order: each may use
//! only those above it.

mod error;

mod datatype;
mod tensor;

mod model;

mod schedule;

mod record;

mod mix;
mod pace;

mod body;

mod transmit;

mod drive;
mod grpc;
mod http1;

mod settings;

mod progress;
mod usage;

mod run;

mod report;

mod table;

mod trace;

mod compare;
mod goal;
mod scenario;

mod server;

pub mod cli;

pub mod command;
