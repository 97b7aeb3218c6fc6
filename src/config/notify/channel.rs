//! The ways to a receiver: how each is written, and what must be right about it before anything runs.
//!
//! Every address is a secret, as those of Slack and Discord open the channel to whoever has them: no message quotes one.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::notify::SecretText;
use crate::config::values::{HumanDuration, Texts};
use crate::secret::Secret;

/// How often the heartbeat is sent at most.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);

/// An address that is a secret.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SecretUrl")]
pub(super) struct RawUrl {
    /// The address itself.
    url: Option<String>,
    /// A file that holds it, and that is read again for each message.
    url_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Webhook")]
pub(super) struct RawWebhook {
    /// The address itself.
    url: Option<String>,
    /// A file that holds it.
    url_file: Option<PathBuf>,
    /// A file with the key that each body is signed with.
    hmac_secret_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Heartbeat")]
pub(super) struct RawHeartbeat {
    /// The address itself.
    url: Option<String>,
    /// A file that holds it.
    url_file: Option<PathBuf>,
    /// How often at most: 1m.
    every: Option<HumanDuration>,
    /// GET, as most services expect, or POST.
    #[serde(default)]
    method: HeartbeatMethod,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sentry")]
pub(super) struct RawSentry {
    /// A file that holds the DSN of the project.
    dsn_file: PathBuf,
    /// Whether each fatal line of the logs is an event, too: false. Its message and fields are sent as they are.
    #[serde(default)]
    fatal_lines: bool,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Email")]
pub(super) struct RawEmail {
    /// The host of the SMTP server.
    server: String,
    /// 587 with `starttls`, 465 with `tls`, 25 with `none`.
    port: Option<u16>,
    /// How the connection is secured.
    #[serde(default)]
    tls: MailTls,
    /// The sender, such as `Bellwether <bellwether@example.org>`.
    from: String,
    /// Who gets it.
    to: Texts,
    /// The user, where the server asks for one.
    username: Option<String>,
    /// A file with the password of that user.
    password_file: Option<PathBuf>,
}

/// How a heartbeat is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum HeartbeatMethod {
    /// Without a body.
    #[default]
    Get,
    /// Without a body, too.
    Post,
}

/// How the connection to a mail server is secured.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Begun in plain text; nothing is sent where the server does not secure it.
    #[default]
    Starttls,
    /// Secured from the first byte.
    Tls,
    /// Not at all.
    None,
}

/// The way to a receiver.
#[derive(Clone, Debug)]
pub enum Channel {
    /// All peers of an Alertmanager: the address of each.
    Alertmanager(Vec<Secret>),
    /// An incoming webhook of Slack, or of what takes the same.
    Slack(SecretText),
    /// A webhook of Discord.
    Discord(SecretText),
    /// Whatever takes what Alertmanager sends.
    Webhook {
        /// Its address.
        url: SecretText,
        /// The key that bodies are signed with.
        hmac: Option<SecretText>,
    },
    /// A mail server.
    Email(Email),
    /// What raises the alarm when nothing comes.
    Heartbeat {
        /// Its address.
        url: SecretText,
        /// How often at most.
        every: Duration,
        /// How.
        method: HeartbeatMethod,
    },
    /// A project of Sentry, by its DSN.
    Sentry {
        /// Where to, and by which key.
        dsn: SecretText,
        /// Whether it gets each fatal line of the logs, too.
        fatal_lines: bool,
    },
}

/// A mail server, and who writes to whom.
#[derive(Clone, Debug)]
pub struct Email {
    /// The host.
    pub server: String,
    /// The port.
    pub port: u16,
    /// How it is secured.
    pub tls: MailTls,
    /// The sender.
    pub from: Mailbox,
    /// Who gets it.
    pub to: Vec<Mailbox>,
    /// The user and where the password is.
    pub login: Option<(String, SecretText)>,
}

/// What validation has to say: what makes it unusable, and what should be known.
pub(super) trait Say {
    fn error(&mut self, message: String);
    fn warn(&mut self, message: String);
}

/// What is wrong with an address, in words that do not quote it.
const NO_ADDRESS: &str = "is no address: it begins with https:// (or http://) and names a host";

// === impl RawUrl ===

impl RawUrl {
    pub(super) fn validate(self, say: &mut impl Say) -> Option<SecretText> {
        one_of(self.url, self.url_file, say)
    }
}

// === impl RawWebhook ===

impl RawWebhook {
    pub(super) fn validate(self, say: &mut impl Say) -> Option<Channel> {
        let hmac = self.hmac_secret_file.map(|path| readable(path, "hmac_secret_file", say));
        Some(Channel::Webhook { url: one_of(self.url, self.url_file, say)?, hmac })
    }
}

// === impl RawHeartbeat ===

impl RawHeartbeat {
    pub(super) fn validate(self, say: &mut impl Say) -> Option<Channel> {
        let every = self.every.map_or(HEARTBEAT_EVERY, |every| every.0);
        if every < Duration::from_secs(1) {
            say.error("`every` is at least 1s".to_owned());
        }
        Some(Channel::Heartbeat { url: one_of(self.url, self.url_file, say)?, every, method: self.method })
    }
}

// === impl RawSentry ===

impl RawSentry {
    pub(super) fn validate(self, say: &mut impl Say) -> Option<Channel> {
        let dsn = readable(self.dsn_file, "dsn_file", say);
        let text = dsn.read().ok()?;
        let url = Url::parse(text.expose()).ok().filter(|url| !url.username().is_empty());
        match url.as_ref().and_then(|url| url.path_segments()?.rfind(|part| !part.is_empty())) {
            Some(_) => check_address(&text, "`dsn_file`", say),
            None => say.error("`dsn_file` holds no DSN such as https://KEY@o1.ingest.sentry.io/2".to_owned()),
        }
        Some(Channel::Sentry { dsn, fatal_lines: self.fatal_lines })
    }
}

// === impl RawEmail ===

impl RawEmail {
    pub(super) fn validate(self, say: &mut impl Say) -> Option<Channel> {
        let mut mailbox = |key: &str, text: &str| {
            let read = text.parse::<Mailbox>();
            if read.is_err() {
                say.error(format!("`{key}` has no address such as alerts@example.org or `Alerts <alerts@example.org>`"));
            }
            read.ok()
        };
        let from = mailbox("from", &self.from);
        let to: Vec<Mailbox> = self.to.0.iter().filter_map(|text| mailbox("to", text)).collect();
        if self.to.0.is_empty() {
            say.error("`to` names at least one address".to_owned());
        }
        if self.server.is_empty() || self.server.contains([':', '/', ' ']) {
            say.error("`server` is a host without a port, such as smtp.example.org".to_owned());
        }
        let login = match (self.username, self.password_file) {
            (Some(user), Some(path)) => Some((user, readable(path, "password_file", say))),
            (None, None) => None,
            _ => {
                say.error("`username` and `password_file` belong together".to_owned());
                None
            }
        };
        if self.tls == MailTls::None && !is_loopback(&self.server) {
            let what = if login.is_some() { "the password and the mails" } else { "the mails" };
            say.warn(format!("with `tls: none`, {what} cross the network as plain text"));
        }
        let port = self.port.unwrap_or(match self.tls {
            MailTls::Starttls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        });
        Some(Channel::Email(Email { server: self.server, port, tls: self.tls, from: from?, to, login }))
    }
}

/// The peers of an Alertmanager. An address without credentials is no secret, and plain HTTP is usual within a cluster.
pub(super) fn peers(urls: Vec<String>, say: &mut impl Say) -> Channel {
    if urls.is_empty() {
        say.error("`alertmanager` names each peer, such as [http://alertmanager:9093]".to_owned());
    }
    for url in &urls {
        match address(url) {
            Some(url) if is_plain(&url) && !(url.username().is_empty() && url.password().is_none()) => {
                say.warn("`alertmanager` has a password in an http:// address: it crosses the network as plain text".to_owned());
            }
            Some(_) => {}
            None => say.error(format!("`alertmanager` {NO_ADDRESS}")),
        }
    }
    Channel::Alertmanager(urls.into_iter().map(Secret::new).collect())
}

/// The address that a text holds.
#[must_use]
pub fn address(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn one_of(url: Option<String>, file: Option<PathBuf>, say: &mut impl Say) -> Option<SecretText> {
    let (text, key) = match (url, file) {
        (Some(url), None) => (SecretText::Given(Secret::new(url)), "`url`"),
        (None, Some(path)) => (readable(path, "url_file", say), "`url_file`"),
        _ => {
            say.error("it needs either `url` or `url_file`".to_owned());
            return None;
        }
    };
    if let Ok(url) = text.read() {
        check_address(&url, key, say);
    }
    Some(text)
}

/// Reads the file once, so that what cannot be read is known before anything runs.
fn readable(path: PathBuf, key: &str, say: &mut impl Say) -> SecretText {
    let text = SecretText::File(path.clone());
    if let Err(error) = text.read() {
        say.error(format!("cannot read the secret that `{key}` names, {}: {error}", path.display()));
    }
    text
}

fn check_address(text: &Secret, key: &str, say: &mut impl Say) {
    match address(text.expose()) {
        Some(url) if is_plain(&url) => {
            say.warn(format!("{key} is an http:// address: it and the messages cross the network as plain text; use https://"));
        }
        Some(_) => {}
        None => say.error(format!("{key} {NO_ADDRESS}")),
    }
}

fn is_plain(url: &Url) -> bool {
    url.scheme() == "http" && !url.host_str().is_some_and(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
