//! The databases of the application, with the limits that a sidecar needs.

pub mod mongodb;
