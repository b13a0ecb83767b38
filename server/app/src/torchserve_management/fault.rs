//! How TorchServe says that an order is refused: its exceptions, with their codes in both dialects.

use axum::http::StatusCode;
use gristmill_engine::error::InferError;
use tonic::{Code, Status};

use crate::status::{bounded_status, http_status, visible};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ModelNotFound,
    VersionNotFound,
    BadRequest,
    /// It is registered already.
    Conflict,
    /// One version cannot go without the others.
    OneOfSeveral,
    /// No model may be had from there.
    UrlNotAllowed,
    /// A model could not be had from where it may be.
    DownloadFailed,
    /// There is no such thing as what is asked for.
    NoSuchResource,
    MethodNotAllowed,
    Unavailable,
    Internal,
}

/// Why an order is refused.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) message: String,
}

// === impl Fault ===

impl Fault {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Fault {
        Fault { kind, message: visible(message.into()) }
    }

    pub(super) fn status_code(&self) -> StatusCode {
        match self.kind {
            Kind::ModelNotFound | Kind::VersionNotFound | Kind::NoSuchResource => StatusCode::NOT_FOUND,
            Kind::BadRequest | Kind::UrlNotAllowed | Kind::DownloadFailed => StatusCode::BAD_REQUEST,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::OneOfSeveral => StatusCode::FORBIDDEN,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The class of its exception, by which programs know it, and the package of that.
    pub(super) fn class(&self) -> (&'static str, &'static str) {
        const MODEL: &str = "org.pytorch.serve.archive.model";
        const ARCHIVE: &str = "org.pytorch.serve.archive";
        const ARCHIVE_UTILS: &str = "org.pytorch.serve.archive.utils";
        const HTTP: &str = "org.pytorch.serve.http";
        match self.kind {
            Kind::ModelNotFound => (MODEL, "ModelNotFoundException"),
            Kind::VersionNotFound => (MODEL, "ModelVersionNotFoundException"),
            Kind::BadRequest => (HTTP, "BadRequestException"),
            Kind::Conflict => (HTTP, "ConflictStatusException"),
            Kind::OneOfSeveral => (HTTP, "InvalidModelVersionException"),
            Kind::UrlNotAllowed => (ARCHIVE_UTILS, "InvalidArchiveURLException"),
            Kind::DownloadFailed => (ARCHIVE, "DownloadArchiveException"),
            Kind::NoSuchResource => (HTTP, "ResourceNotFoundException"),
            Kind::MethodNotAllowed => (HTTP, "MethodNotAllowedException"),
            Kind::Unavailable => (HTTP, "ServiceUnavailableException"),
            Kind::Internal => (HTTP, "InternalServerException"),
        }
    }

    /// With the class in the last line, as TorchServe has it.
    pub(super) fn status(&self) -> Status {
        let code = match self.kind {
            Kind::ModelNotFound | Kind::VersionNotFound | Kind::NoSuchResource => Code::NotFound,
            Kind::BadRequest
            | Kind::Conflict
            | Kind::OneOfSeveral
            | Kind::UrlNotAllowed
            | Kind::DownloadFailed
            | Kind::MethodNotAllowed => Code::InvalidArgument,
            Kind::Unavailable => Code::Unavailable,
            Kind::Internal => Code::Internal,
        };
        let (package, class) = self.class();
        bounded_status(code, format!("{}\n{package}.{class}", self.message))
    }
}

impl From<InferError> for Fault {
    fn from(error: InferError) -> Fault {
        let kind = match http_status(&error) {
            StatusCode::NOT_FOUND => Kind::ModelNotFound,
            StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
            status if status.is_client_error() => Kind::BadRequest,
            _ => Kind::Internal,
        };
        Fault::new(kind, error.to_string())
    }
}
