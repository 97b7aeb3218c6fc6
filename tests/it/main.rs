//! The integration tests: one binary, real sockets, real servers.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(missing_docs, reason = "nobody imports tests")]

mod alerting;
mod archive;
mod backups;
mod bucket;
mod checks;
mod collect;
mod command;
mod command_line;
mod component;
mod files;
mod files_faults;
mod front;
mod golden;
mod health;
mod health_control;
mod health_faults;
mod health_history;
mod health_network;
mod helm;
mod lease;
mod lint;
mod listener;
mod logs;
mod logs_diagnose;
mod logs_faults;
mod metrics;
mod mongod;
mod namespace;
mod notify_delivery;
mod observability;
mod postgres;
mod proxy;
mod raw_http;
mod redis;
mod refusals;
mod replica_set;
mod retention;
mod retention_bench;
mod retention_faults;
mod retention_leader;
mod retention_members;
mod retention_run;
mod retention_ttl;
mod runs_service;
mod secrets;
mod secrets_service;
mod served;
mod services_live;
mod sidecar;
mod streams;
mod tables;
mod tidy;
mod tls;
