//! Receivers on loopback that speak the real wire formats and answer as they are told to.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A status, and a header beside it.
pub type Answer = (u16, Option<(&'static str, String)>);

/// A web server that writes down what it gets.
#[derive(Clone)]
pub struct Web {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The next answers; 200 when there is none.
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

/// A mail server without TLS.
pub struct Mail {
    pub port: u16,
    /// What clients said, line by line.
    said: Arc<Mutex<Vec<String>>>,
}

// === impl Seen ===

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

// === impl Web ===

impl Web {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let web = Self { address: listener.local_addr().unwrap().to_string(), seen: Arc::default(), answers: Arc::default() };
        let clone = web.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let take = async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| clone.take(method, &uri, headers, body);
            let router = Router::new().fallback(take);
            runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap() });
        });
        web
    }

    fn take(&self, method: Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, HeaderMap) {
        self.seen.lock().unwrap().push(Seen { method, path: uri.path().to_owned(), headers, body });
        let (status, header) = self.answers.lock().unwrap().pop_front().unwrap_or((200, None));
        let headers = header.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        (StatusCode::from_u16(status).unwrap(), headers.into_iter().collect())
    }

    /// Says how the next requests are answered.
    pub fn answer(&self, answers: &[Answer]) {
        self.answers.lock().unwrap().extend(answers.iter().cloned());
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What arrived at a path.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).cloned().collect()
    }
}

// === impl Mail ===

impl Mail {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&said);
        std::thread::spawn(move || listener.incoming().for_each(|stream| converse(&stream.unwrap(), &lines)));
        Self { port, said }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }
}

/// RFC 5321, as far as a client that sends mails needs it, with AUTH PLAIN.
fn converse(mut stream: &TcpStream, said: &Mutex<Vec<String>>) {
    let mut is_data = false;
    stream.write_all(b"220 double\r\n").unwrap();
    for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
        said.lock().unwrap().push(line.clone());
        let verb = line.split(' ').next().unwrap().to_ascii_uppercase();
        let answer = match (is_data, verb.as_str()) {
            (true, ".") => "250 taken",
            (true, _) => continue,
            (_, "EHLO") => "250-double\r\n250 AUTH PLAIN",
            (_, "AUTH") => "235 welcome",
            (_, "DATA") => "354 go on",
            (_, "QUIT") => "221 bye",
            _ => "250 ok",
        };
        is_data = verb == "DATA";
        let mut stream = stream;
        if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
            return;
        }
    }
}
