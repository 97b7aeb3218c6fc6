//! Stand-ins for the application's API and dashboard: only their health, but that answers as the real ones do, which
//! means with a real ping, with their limits, and with the content type that a 503 of theirs really has.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use mongodb::Database;
use mongodb::bson::doc;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::http;

const PING_LIMIT: Duration = Duration::from_secs(5);
const FETCH_LIMIT: Duration = Duration::from_secs(3);
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves until it is stopped.
pub struct StandIn {
    pub url: String,
    task: JoinHandle<std::io::Result<()>>,
}

impl StandIn {
    async fn serve(router: Router) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port on loopback")?;
        let url = format!("http://{}", listener.local_addr()?);
        Ok(Self { url, task: tokio::spawn(axum::serve(listener, router).into_future()) })
    }

    pub async fn api(database: Database, server: String, log: &Path) -> Result<Self> {
        let log = tokio::fs::OpenOptions::new().create(true).append(true).open(log).await;
        let log = tokio::sync::Mutex::new(log.context("cannot open the log of the API")?);
        let router = Router::new()
            .route("/health", get(api_alive))
            .route("/health/ready", get(api_ready))
            .route("/api/v1/health", get(api_ready))
            .with_state(Arc::new(Api { database, server, log }));
        Self::serve(router).await
    }

    pub async fn dashboard(api_url: &str) -> Result<Self> {
        let dashboard =
            Dashboard { api_health: format!("{api_url}/api/v1/health"), http: http::client(FETCH_LIMIT)?, started: Instant::now() };
        Self::serve(Router::new().route("/health", get(dashboard_health)).with_state(Arc::new(dashboard))).await
    }

    pub fn stop(&self) {
        self.task.abort();
    }
}

struct Api {
    database: Database,
    /// What the driver of the real API calls the server in its errors.
    server: String,
    log: tokio::sync::Mutex<tokio::fs::File>,
}

async fn api_alive() -> Response {
    answer(StatusCode::OK, JSON, &json!({"status": "ok"}))
}

async fn api_ready(State(api): State<Arc<Api>>, uri: axum::http::Uri) -> Response {
    if api.ping().await {
        return answer(StatusCode::OK, JSON, &json!({"status": "ok", "services": {"mongodb": {"status": "ok"}}}));
    }
    let error = format!(
        "server selection error: context deadline exceeded, current topology: {{ Type: Unknown, Servers: \
         [{{ Addr: {}, Type: Unknown }}, ] }}",
        api.server
    );
    api.log_failure(uri.path()).await;
    // The real API sets the status before the content type, so that the body is called text although it is JSON.
    let body = json!({"status": "degraded", "services": {"mongodb": {"status": "error", "error": error}}});
    answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, &body)
}

impl Api {
    /// On a task of its own: an operation of the driver must not be dropped half way.
    async fn ping(&self) -> bool {
        let database = self.database.clone();
        let ping = tokio::spawn(async move { database.run_command(doc! {"ping": 1}).await });
        matches!(tokio::time::timeout(PING_LIMIT, ping).await, Ok(Ok(Ok(_))))
    }

    async fn log_failure(&self, path: &str) {
        let line = json!({
            "severity": "ERROR",
            "timestamp": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            "caller": "log/log.go:48",
            "message": "Request failed",
            "service": "decisionbox-api",
            "method": "GET",
            "path": path,
            "status": 503,
            "duration": "5.000812345s",
            "stacktrace": "main.main\n\t/workspace/services/api/main.go:36",
        });
        let mut log = self.log.lock().await;
        // Nothing of the demo depends on this line: a full disk shows elsewhere.
        let _ = log.write_all(format!("{line}\n").as_bytes()).await;
        let _ = log.flush().await;
    }
}

struct Dashboard {
    api_health: String,
    http: reqwest::Client,
    started: Instant,
}

async fn dashboard_health(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let api = match http::get(&dashboard.http, &dashboard.api_health, JSON).await {
        Ok(reply) if reply.status == 200 => "ok".to_owned(),
        Ok(reply) => format!("error ({})", reply.status),
        Err(error) if error.is_timeout() => "unreachable (The operation was aborted due to timeout)".to_owned(),
        Err(_) => "unreachable (fetch failed)".to_owned(),
    };
    let (code, status) = match api.as_str() {
        "ok" => (StatusCode::OK, "ok"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let uptime = dashboard.started.elapsed().as_secs();
    answer(code, JSON, &json!({"status": status, "uptime_seconds": uptime, "services": {"api": {"status": api}}}))
}

fn answer(status: StatusCode, content_type: &str, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, content_type.to_owned())], format!("{body}\n")).into_response()
}
