//! Models that come, change, fail and go while they are served, as operators and the repository say.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod canary;
mod loads;
mod orders;
mod routes;
mod versions;
mod world;
