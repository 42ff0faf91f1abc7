//! Runs strangers' code in throw-away Docker containers and streams what happens. See docs/design.md.
//!
//! The layers, lowest first; a module imports only from lower layers or from lines above its own
//! (`tests/layering.rs` sees to it).

// 0: the vocabulary, pure.
mod id;
mod limits;
mod protocol;
mod verdict;
mod language;
mod config;
mod metrics;
mod output;

// 1: inside the container; imports only the vocabulary.
pub mod agent;

// 1: who may run, and how containers are started.
mod admission;
mod engine;
mod installation;

// 2: what happens to containers before and after their work.
mod reaper;
mod pool;

// 3: executions.
mod submission;
mod input;
mod execution;
mod store;
mod health;
mod session;
mod runner;
mod service;

// 4: clients.
mod web;

// 5: the whole.
mod server;
pub mod cli;
