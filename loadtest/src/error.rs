//! What can stop a load test before or after the load itself; what fails inside it is an `Outcome`.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to {address}: {why}; is the server running, and is this its {protocol} port?")]
    Connect { address: String, protocol: &'static str, why: String },
    #[error("cannot read the metadata of model `{model}` from {address}: {why}")]
    Metadata { model: String, address: String, why: String },
    #[error("model `{model}`, input `{input}`: {why}")]
    Input { model: String, input: String, why: String },
    #[error("model `{model}`: the first request was refused, so no load was sent: {why}")]
    Probe { model: String, why: String },
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{0}")]
    Settings(String),
    #[error("the server `{command}`: {why}")]
    Server { command: String, why: String },
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
