//! A router of the services, served over loopback for a test, and a client that asks it.

use axum::Router;
use axum::extract::Request;
use bellwether::runtime::caller::Caller;
use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpListener;

/// A service that answers.
pub struct Served {
    /// Where: `http://host:port`.
    pub url: String,
    client: reqwest::Client,
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: String,
}

/// Serves a router as the front door does: the caller's name stands in the request.
pub async fn serve(router: Router) -> Served {
    let router = router.layer(axum::middleware::map_request(|mut request: Request| async {
        request.extensions_mut().insert(Caller("alice".to_owned()));
        request
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Served::at(url)
}

// === impl Served ===

impl Served {
    /// One of another process.
    pub fn at(url: String) -> Self {
        Self { url, client: reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap() }
    }

    pub async fn ask(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let response = self.client.request(method, format!("{}{path}", self.url)).body(body).send().await.unwrap();
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        Reply { status: response.status().as_u16(), retry_after, body: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, "").await
    }
}

// === impl Reply ===

impl Reply {
    /// The body, which is JSON whatever the status.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its status and the text of `error`.
    #[track_caller]
    pub fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned())
    }
}
