//! Receivers on loopback that speak the real wire formats and answer as they are told to.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
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

/// A mail server.
pub struct Mail {
    pub port: u16,
    /// What clients said, line by line; what came over TLS with a lock before it.
    said: Arc<Mutex<Vec<String>>>,
}

/// How a mail server secures its connections.
#[derive(Clone)]
pub enum Secured {
    Never,
    FromTheStart(Arc<ServerConfig>),
    WhenAsked(Arc<ServerConfig>),
}

trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

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
    pub fn start(secured: Secured) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&said);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that refuses the certificate ends the connection, and that is what is tested.
                let _ = converse(stream.unwrap(), &secured, &lines);
            }
        });
        Self { port, said }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }
}

/// RFC 5321, as far as a client that sends mails needs it, with AUTH PLAIN and STARTTLS.
fn converse(stream: TcpStream, secured: &Secured, said: &Mutex<Vec<String>>) -> io::Result<()> {
    let over_tls = |config: &Arc<ServerConfig>, stream: TcpStream| -> Box<dyn Wire> {
        Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream))
    };
    let plain = stream.try_clone()?;
    let (mut wire, mut is_secure): (Box<dyn Wire>, bool) = match secured {
        Secured::FromTheStart(config) => (over_tls(config, stream), true),
        Secured::Never | Secured::WhenAsked(_) => (Box::new(stream), false),
    };
    let mut is_data = false;
    wire.write_all(b"220 double\r\n")?;
    loop {
        let line = line(&mut wire)?;
        said.lock().unwrap().push(format!("{}{line}", if is_secure { "\u{1f512}" } else { "" }));
        let verb = line.split(' ').next().unwrap().to_ascii_uppercase();
        let answer = match (is_data, verb.as_str(), secured) {
            (true, ".", _) => "250 taken",
            (true, _, _) => continue,
            (_, "EHLO", Secured::WhenAsked(_)) if !is_secure => "250-double\r\n250 STARTTLS",
            (_, "EHLO", _) => "250-double\r\n250 AUTH PLAIN",
            (_, "STARTTLS", _) => "220 go on",
            (_, "AUTH", _) => "235 welcome",
            (_, "DATA", _) => "354 go on",
            (_, "QUIT", _) => "221 bye",
            _ => "250 ok",
        };
        is_data = verb == "DATA";
        wire.write_all(format!("{answer}\r\n").as_bytes())?;
        if let (Secured::WhenAsked(config), "STARTTLS") = (secured, verb.as_str()) {
            (wire, is_secure) = (over_tls(config, plain.try_clone()?), true);
        }
    }
}

/// Byte by byte: what follows STARTTLS is not this reader's.
fn line(wire: &mut dyn Wire) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        wire.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
