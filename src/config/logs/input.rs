//! One input: files, the standard input, or a socket that others write lines to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Place, Problem, Problems};
use crate::config::spanned::Spanned;
use crate::config::values::HumanDuration;

/// Enough for the processes of a pod; each connection can hold one unfinished line.
const MAX_CONNECTIONS: u16 = 64;
/// More descriptors than this are not to be had in most containers.
const MOST_CONNECTIONS: u16 = 1024;
/// A writer that is silent for so long makes room where there is no other.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// The owner and the group: a sidecar and its application often share no more than a group.
const MODE: u32 = 0o660;
/// The kernel's limit for the path of a socket, without the zero at its end.
const MAX_SOCKET_PATH: usize = 107;
/// Names that `run -- command` gives to the streams of the command.
const RESERVED: [&str; 2] = [ChildStream::Stdout.name(), ChildStream::Stderr.name()];

/// An input as it is written. It has exactly one of `files`, `stdin`, `unix` and `tcp`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LogInput")]
pub(super) struct RawInput {
    /// The value of the label `input`.
    pub(super) name: String,
    /// Globs; `**` crosses folders.
    #[serde(default)]
    files: Vec<Spanned<String>>,
    /// Globs of files that are left out.
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
    /// Reads the standard input.
    #[serde(default)]
    stdin: bool,
    /// Listens on a Unix socket for streams of lines: the path of the socket.
    unix: Option<Spanned<String>>,
    /// Who may write to the Unix socket, as file permissions in octal: `"0660"` unless set.
    mode: Option<Spanned<String>>,
    /// Listens on TCP for streams of lines: `127.0.0.1:9602`, or a port alone, which is on 127.0.0.1.
    tcp: Option<Spanned<RawAddress>>,
    /// How many may write to the socket at once: 64 unless set.
    max_connections: Option<Spanned<u16>>,
    /// A connection that is silent for so long is closed when there is no room for a new one: `10m` unless set.
    idle_timeout: Option<HumanDuration>,
    /// Where a file begins that is there at the very first start; later files are read from their begin.
    #[serde(default)]
    start: Start,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "LogTcpAddress")]
enum RawAddress {
    Port(u16),
    Text(String),
}

/// Where a file begins that is there at the very first start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the next line that is written: what was before has been seen by somebody else, or by nobody.
    #[default]
    End,
    /// With its first line.
    Beginning,
}

/// A stream or a set of files.
#[derive(Clone, Debug)]
pub struct LogInput {
    /// The value of the label `input`.
    pub name: String,
    /// What is read.
    pub kind: InputKind,
    /// Where a file begins that is there at the very first start.
    pub start: Start,
}

/// What an input reads.
#[derive(Clone, Debug)]
pub enum InputKind {
    /// The files that match one of these.
    Files(Vec<FileGlob>),
    /// The standard input of the process.
    Stdin,
    /// A stream of the command that we run.
    Child(ChildStream),
    /// Whoever connects.
    Listen(Listen),
}

/// A stream of the command that we run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChildStream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// A socket that others write lines to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// How many may be connected at once.
    pub max_connections: usize,
    /// A connection that is silent for so long makes room for a new one.
    pub idle_timeout: Duration,
}

/// Where a socket listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// At a path.
    Unix {
        /// The path.
        path: PathBuf,
        /// Who may connect: file permissions.
        mode: u32,
    },
    /// At a port.
    Tcp(SocketAddr),
}

/// A pattern of file paths.
#[derive(Clone, Debug)]
pub struct FileGlob {
    /// The longest folder without a wildcard: where looking begins.
    pub root: PathBuf,
    /// How many levels below `root` a match can lie; `None` where `**` allows any.
    pub depth: Option<usize>,
    /// `*` stays within a folder, `**` crosses them.
    matcher: GlobMatcher,
    exclude: Vec<GlobMatcher>,
}

// === impl RawInput ===

impl RawInput {
    /// The input, if it is one; what is wrong with it is said in any case.
    pub(super) fn validate(input: Spanned<Self>, problems: &mut Problems) -> Option<LogInput> {
        let Spanned { place, value: input } = input;
        let path = format!("logs.inputs.{}", input.name);
        let mut wrong = |place: Option<Place>, message: String| problems.error(Problem { place, path: path.clone(), message });
        let sources = [!input.files.is_empty(), input.stdin, input.unix.is_some(), input.tcp.is_some()];
        if sources.iter().filter(|is_there| **is_there).count() != 1 {
            wrong(place, "an input has exactly one of `files`, `stdin: true`, `unix` and `tcp`".to_owned());
            return None;
        }
        if RESERVED.contains(&input.name.as_str()) {
            wrong(place.clone(), format!("`{}` names a stream of the command in `run -- command`; choose another name", input.name));
        }
        if input.files.is_empty() && !input.exclude.is_empty() {
            wrong(place.clone(), "`exclude` leaves out some of `files`, and there are none".to_owned());
        }
        let is_socket = input.unix.is_some() || input.tcp.is_some();
        if !is_socket && (input.max_connections.is_some() || input.idle_timeout.is_some()) {
            wrong(place.clone(), "`max_connections` and `idle_timeout` are for `unix` and `tcp`".to_owned());
        }
        if input.unix.is_none()
            && let Some(mode) = &input.mode
        {
            wrong(mode.place.clone(), "`mode` is for `unix`".to_owned());
        }
        let kind = if input.stdin {
            InputKind::Stdin
        } else if let Some(address) = input.address(&mut wrong) {
            let limit = input.max_connections.as_ref().map_or(MAX_CONNECTIONS, |limit| limit.value);
            if !(1..=MOST_CONNECTIONS).contains(&limit) {
                let place = input.max_connections.and_then(|limit| limit.place);
                wrong(place, format!("from 1 to {MOST_CONNECTIONS} connections"));
            }
            let idle_timeout = input.idle_timeout.map_or(IDLE_TIMEOUT, |timeout| timeout.0);
            InputKind::Listen(Listen { address, max_connections: usize::from(limit), idle_timeout })
        } else if is_socket {
            return None;
        } else {
            InputKind::Files(globs(&input.files, &input.exclude, &mut wrong))
        };
        if let InputKind::Listen(Listen { address: Address::Tcp(address), .. }) = &kind
            && !address.ip().is_loopback()
        {
            let place = input.tcp.and_then(|tcp| tcp.place);
            let message = format!("whoever reaches {address} can write lines: there is neither a password nor encryption");
            problems.warn(Problem { place, path, message });
        }
        Some(LogInput { name: input.name, kind, start: input.start })
    }

    /// Where a socket listens.
    fn address(&self, wrong: &mut impl FnMut(Option<Place>, String)) -> Option<Address> {
        if let Some(path) = &self.unix {
            if !Path::new(&path.value).is_absolute() || path.value.len() > MAX_SOCKET_PATH {
                wrong(path.place.clone(), format!("the path of a socket is absolute and has at most {MAX_SOCKET_PATH} bytes"));
                return None;
            }
            let mode = self.mode.as_ref().map_or(Some(MODE), |mode| {
                let parsed = u32::from_str_radix(&mode.value, 8).ok().filter(|mode| *mode <= 0o777);
                if parsed.is_none() {
                    wrong(mode.place.clone(), "permissions are octal digits in quotes, such as \"0660\"".to_owned());
                }
                parsed
            })?;
            return Some(Address::Unix { path: PathBuf::from(&path.value), mode });
        }
        let tcp = self.tcp.as_ref()?;
        match &tcp.value {
            RawAddress::Port(port) => Some(Address::Tcp((Ipv4Addr::LOCALHOST, *port).into())),
            RawAddress::Text(text) => {
                let parsed = text.parse().ok();
                let parsed = parsed.or_else(|| text.parse::<u16>().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()));
                if parsed.is_none() {
                    wrong(tcp.place.clone(), format!("`{text}` is no address: write 127.0.0.1:9602, or a port alone"));
                }
                parsed.map(Address::Tcp)
            }
        }
    }
}

/// Patterns, each without what is left out.
fn globs(files: &[Spanned<String>], exclude: &[Spanned<String>], wrong: &mut impl FnMut(Option<Place>, String)) -> Vec<FileGlob> {
    let mut excluded = Vec::new();
    for pattern in exclude {
        match compile(&pattern.value) {
            Ok(matcher) => excluded.push(matcher),
            Err(message) => wrong(pattern.place.clone(), message),
        }
    }
    let mut globs = Vec::new();
    for pattern in files {
        match FileGlob::parse(&pattern.value) {
            Ok(glob) => globs.push(FileGlob { exclude: excluded.clone(), ..glob }),
            Err(message) => wrong(pattern.place.clone(), message),
        }
    }
    globs
}

fn compile(pattern: &str) -> Result<GlobMatcher, String> {
    if pattern.is_empty() {
        return Err("a pattern is missing; write for example /var/log/app/*.log".to_owned());
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("`{pattern}` is not a glob: {}", error.kind()))
}

// === impl ChildStream ===

impl ChildStream {
    /// The name of the input.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

// === impl FileGlob ===

impl FileGlob {
    /// Reads a pattern; it must be an absolute path, or one below the working folder.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let matcher = compile(pattern)?;
        let is_wild = |part: &&str| part.contains(['*', '?', '[', '{']);
        let parts: Vec<&str> = pattern.split('/').collect();
        // The last part is a file's name, even without a wildcard.
        let fixed = parts.iter().take(parts.len() - 1).take_while(|part| !is_wild(part)).count();
        let root = match parts[..fixed].join("/") {
            _ if fixed == 0 => PathBuf::from("."),
            root if root.is_empty() => PathBuf::from("/"),
            root => PathBuf::from(root),
        };
        let depth = (!pattern.contains("**")).then_some(parts.len() - fixed);
        Ok(Self { root, depth, matcher, exclude: Vec::new() })
    }

    /// Whether a path matches and is not left out.
    #[must_use]
    pub fn is_match(&self, path: &Path) -> bool {
        self.matcher.is_match(path) && !self.exclude.iter().any(|exclude| exclude.is_match(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, root: &str, depth: Option<usize>, hits: &[&str], misses: &[&str]) {
        let glob = FileGlob::parse(pattern).expect("a glob");
        assert_eq!((glob.root.to_str(), glob.depth), (Some(root), depth), "{pattern}");
        hits.iter().for_each(|path| assert!(glob.is_match(Path::new(path)), "{pattern} {path}"));
        misses.iter().for_each(|path| assert!(!glob.is_match(Path::new(path)), "{pattern} {path}"));
    }

    #[test]
    fn globs_know_where_to_begin_and_how_deep_to_go() {
        check(
            "/var/log/pods/*/agent/*.log",
            "/var/log/pods",
            Some(3),
            &["/var/log/pods/a/agent/0.log"],
            &["/var/log/pods/a/b/agent/0.log"],
        );
        check("/var/log/**/*.log", "/var/log", None, &["/var/log/a/b.log", "/var/log/b.log"], &["/var/log/a/b.txt"]);
        check("/tmp/agent.log", "/tmp", Some(1), &["/tmp/agent.log"], &["/tmp/agent.log.1"]);
        check("*.log", ".", Some(1), &["a.log"], &[]);
        check("/*.log", "/", Some(1), &["/a.log"], &[]);
    }

    fn spanned(text: &str) -> Spanned<String> {
        Spanned { place: None, value: text.to_owned() }
    }

    #[test]
    fn what_is_left_out_matches_no_pattern() {
        let exclude = [spanned("/var/log/pods/kube-system_*/**"), spanned("**/*.gz")];
        let globs = globs(&[spanned("/var/log/pods/**/*")], &exclude, &mut |_, message| panic!("{message}"));
        for (path, hit) in [
            ("/var/log/pods/app_1/agent/0.log", true),
            ("/var/log/pods/app_1/agent/0.log.gz", false),
            ("/var/log/pods/kube-system_dns/x/0.log", false),
        ] {
            assert_eq!(globs[0].is_match(Path::new(path)), hit, "{path}");
        }
    }
}
