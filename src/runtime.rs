//! The spine of the process: tasks that are named, supervised and joined, and a shutdown in an order.
//!
//! Knows nothing of health, logs or stores.

pub mod caller;
pub mod certificate;
pub mod child;
pub mod heartbeat;
pub mod keys;
pub mod latch;
pub mod listen;
pub mod pages;
pub mod shutdown;
pub mod stderr;
pub mod supervise;
pub mod token;
pub mod undumpable;
