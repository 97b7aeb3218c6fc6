//! Bellwether: an observability sidecar for LLM and RAG stacks.
//!
//! The modules stand on levels, and each imports only what stands lower; `ARCHITECTURE.md` has the table, and a test
//! enforces it.

#![cfg_attr(
    test,
    allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "tests know their numbers")
)]

pub mod admin;
pub mod app;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod event;
pub mod front;
pub mod health;
pub mod kubernetes;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod profiles;
pub mod promql;
pub mod retention;
pub mod runtime;
pub mod secret;
pub mod series;
pub mod services;
pub mod shipped;
pub mod store;
pub mod units;
