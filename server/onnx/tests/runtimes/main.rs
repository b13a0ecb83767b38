//! Real models through both runtimes: what they derive, what they compute, and what they say when they cannot.

#![expect(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod agreement;
mod bench;
mod concurrency;
mod containers;
mod loading;
mod memory;
mod narrow;
mod recurrence;
mod running;
mod signatures;
mod sizes;
