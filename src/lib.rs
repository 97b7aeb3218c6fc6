//! Bellwether: an observability sidecar for LLM and RAG stacks.
//!
//! The modules stand on levels, and each imports only what stands lower; `ARCHITECTURE.md` has the table, and a test
//! enforces it.

pub mod clock;
pub mod config;
pub mod logs;
pub mod metrics;
pub mod profiles;
pub mod runtime;
pub mod secret;
pub mod series;
pub mod store;
pub mod units;
