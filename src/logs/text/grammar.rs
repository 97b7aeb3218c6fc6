//! The forms of lines that are text: structlog's console, Python's logging, uvicorn, gunicorn, nginx, arq, alembic,
//! logfmt. Pure.
//!
//! A form is recognised strictly, so that prose is not taken for a record: better unstructured than wrong. What a line
//! does not say is not added to it: what a level is, stands in the line.

use crate::logs::level::level_name;
use crate::logs::text::pairs::{Pairs, key, next_pair};
use crate::logs::text::{Fields, Text};

/// Keys of which a logfmt line has at least one: `a=b` alone is prose.
const LOGFMT: [&[u8]; 9] = [b"level", b"lvl", b"severity", b"msg", b"message", b"event", b"ts", b"time", b"timestamp"];
/// What arq puts before a job: begun, ended, failed, tried again.
const ARQ: [&str; 4] = ["→", "←", "!", "↻"];

/// Takes a line apart; `None` where it has none of the forms.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Text<'_>> {
    match line.first()? {
        b'0'..=b'9' => dated(line).or_else(|| arq(line)).or_else(|| access(line)),
        b'[' => gunicorn(line),
        b':' | b'-' => access(line),
        b'A'..=b'Z' => levelled(line).or_else(|| logfmt(line)),
        b'a'..=b'z' | b'_' => logfmt(line).or_else(|| access(line)),
        _ => None,
    }
}

/// What begins with a date and a time.
fn dated(line: &[u8]) -> Option<Text<'_>> {
    let separator = *line.get(4)?;
    if line.len() < 20 || line[7] != separator || !line[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let end = match line[10] {
        b'T' => token(line),
        b' ' => 11 + token(&line[11..]),
        _ => return None,
    };
    let (time, rest) = (&line[..end], line[end..].trim_ascii_start());
    match separator {
        b'-' => structlog(time, rest).or_else(|| python(time, rest)).or_else(|| plain(time, rest)),
        b'/' => nginx_error(time, rest),
        _ => None,
    }
}

/// `2026-11-21 02:38:15 [info     ] message      key=value with spaces key=value`
fn structlog<'a>(time: &'a [u8], rest: &'a [u8]) -> Option<Text<'a>> {
    let (level, rest) = bracketed(rest)?;
    let level = level_of(level)?;
    let rest = rest.trim_ascii_start();
    let end = if key(rest) > 0 && rest.get(key(rest)) == Some(&b'=') { Some(0) } else { next_pair(rest) };
    let (message, fields) = rest.split_at(end.unwrap_or(rest.len()));
    let fields = if fields.is_empty() { Fields::None } else { Fields::Structlog(fields) };
    let message = message.trim_ascii_end();
    // A logger's name stands in brackets behind the padded message.
    let named = message.strip_suffix(b"]").and_then(|head| {
        let open = memchr::memrchr(b'[', head)?;
        let (before, name) = (&head[..open], &head[open + 1..]);
        (before.ends_with(b" ") && !name.is_empty() && !name.contains(&b' ')).then_some((before.trim_ascii_end(), name))
    });
    let (message, logger) = named.unwrap_or((message, &[]));
    Some(Text { form: "structlog", time, level, message, fields, ..Text::default() }.with("logger", logger))
}

/// `2026-11-21 02:38:15,284 - logger - LEVEL - message`
fn python<'a>(time: &'a [u8], rest: &'a [u8]) -> Option<Text<'a>> {
    let rest = rest.strip_prefix(b"- ")?;
    let (first, behind) = split(rest, b" - ")?;
    if let Some(level) = level_of(first) {
        return Some(Text { form: "Python logging", time, level, message: behind, ..Text::default() });
    }
    let (second, message) = split(behind, b" - ")?;
    Some(Text { form: "Python logging", time, level: level_of(second)?, message, ..Text::default() }.with("logger", first))
}

/// `2026-11-21T02:38:15Z  INFO message`
fn plain<'a>(time: &'a [u8], rest: &'a [u8]) -> Option<Text<'a>> {
    let end = token(rest);
    let level = rest[..end].strip_suffix(b":").unwrap_or(&rest[..end]);
    let level = upper_level(level)?;
    Some(Text { form: "text", time, level, message: rest[end..].trim_ascii_start(), ..Text::default() })
}

/// `2026/11/21 02:38:15 [error] 29#29: *1 message, client: 10.0.0.1, server: _, request: "GET / HTTP/1.1", host: "x"`
fn nginx_error<'a>(time: &'a [u8], rest: &'a [u8]) -> Option<Text<'a>> {
    let (level, rest) = bracketed(rest)?;
    // A level of its own, between info and warning.
    let level = level_of(level).or_else(|| (level == b"notice").then_some(level))?;
    let (process, rest) = split(rest.trim_ascii_start(), b": ")?;
    if !process.contains(&b'#') || !process.iter().all(|byte| byte.is_ascii_digit() || *byte == b'#') {
        return None;
    }
    let rest = match rest.strip_prefix(b"*") {
        Some(numbered) => split(numbered, b" ")?.1,
        None => rest,
    };
    let Some((message, context)) = split(rest, b", client: ") else {
        return Some(Text { form: "nginx error", time, level, message: rest, ..Text::default() });
    };
    let (client, _) = split(context, b", ").unwrap_or((context, &[]));
    let quoted = |name: &[u8]| split(context, name).and_then(|(_, value)| split(value, b"\"")).map_or(&[][..], |(value, _)| value);
    let (method, path, protocol) = request(quoted(b", request: \""));
    let text = Text { form: "nginx error", time, level, message, ..Text::default() }
        .with("client", client)
        .with("method", method)
        .with("path", path);
    Some(text.with("protocol", protocol).with("upstream", quoted(b", upstream: \"")).with("host", quoted(b", host: \"")))
}

/// `10.0.0.1 - - [21/Nov/2026:02:38:15 +0000] "GET /x HTTP/1.1" 200 612 "-" "curl/8"`, of nginx, gunicorn and others.
fn access(line: &[u8]) -> Option<Text<'_>> {
    let (client, rest) = split(line, b" ")?;
    let (_, rest) = split(rest, b" ")?;
    let (_, rest) = split(rest, b" [")?;
    let (time, rest) = split(rest, b"] \"")?;
    let (message, rest) = split(rest, b"\" ")?;
    if time.len() < 20 || time.get(2) != Some(&b'/') {
        return None;
    }
    let (status, rest) = split(rest, b" ").unwrap_or((rest, &[]));
    if status.len() != 3 || !status.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (bytes, rest) = split(rest, b" ").unwrap_or((rest, &[]));
    let mut quotes = rest.split(|byte| *byte == b'"').skip(1).step_by(2);
    let dash = |value: &'_ [u8]| value == b"-";
    let (referer, agent) = (quotes.next().filter(|value| !dash(value)), quotes.next().filter(|value| !dash(value)));
    let (method, path, protocol) = request(message);
    let text = Text { form: "access", time, message, ..Text::default() }.with("client", client).with("status", status);
    let text = text.with("method", method).with("path", path).with("protocol", protocol);
    let text = if dash(bytes) { text } else { text.with("bytes", bytes) };
    Some(text.with("referer", referer.unwrap_or_default()).with("user_agent", agent.unwrap_or_default()))
}

/// `[2026-11-21 02:35:45 +0000] [3097] [INFO] message`
fn gunicorn(line: &[u8]) -> Option<Text<'_>> {
    let (time, rest) = bracketed(line)?;
    let (process, rest) = bracketed(rest.strip_prefix(b" ")?)?;
    let (level, rest) = bracketed(rest.strip_prefix(b" ")?)?;
    if time.len() < 19 || time[4] != b'-' || process.is_empty() || !process.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Text { form: "gunicorn", time, level: level_of(level)?, message: rest.trim_ascii_start(), ..Text::default() }.with("pid", process))
}

/// `INFO:     message` of uvicorn, `INFO:logger:message` of Python's logging, `INFO  [logger] message` of alembic.
fn levelled(line: &[u8]) -> Option<Text<'_>> {
    let end = line.iter().position(|byte| !byte.is_ascii_uppercase())?;
    let (level, rest) = (upper_level(&line[..end])?, &line[end..]);
    if let Some(rest) = rest.strip_prefix(b":") {
        let padded = rest.trim_ascii_start();
        if padded.len() < rest.len() {
            return Some(uvicorn(Text { form: "uvicorn", level, message: padded, ..Text::default() }));
        }
        let (logger, message) = split(rest, b":")?;
        let is_name = !logger.is_empty() && !logger.contains(&b' ');
        return is_name.then(|| Text { form: "Python logging", level, message, ..Text::default() }.with("logger", logger));
    }
    let (logger, message) = bracketed(rest.trim_ascii_start())?;
    let is_name = rest.starts_with(b" ") && !logger.is_empty() && !logger.contains(&b' ');
    is_name.then(|| Text { form: "Python logging", level, message: message.trim_ascii_start(), ..Text::default() }.with("logger", logger))
}

/// `127.0.0.1:52144 - "GET /health HTTP/1.1" 200 OK`
fn uvicorn(text: Text<'_>) -> Text<'_> {
    let parts = split(text.message, b" - \"").and_then(|(client, rest)| Some((client, split(rest, b"\" ")?)));
    let Some((client, (line, status))) = parts else { return text };
    let status = &status[..token(status)];
    if client.contains(&b' ') || status.len() != 3 || !status.iter().all(u8::is_ascii_digit) {
        return text;
    }
    let (method, path, protocol) = request(line);
    text.with("client", client).with("method", method).with("path", path).with("protocol", protocol).with("status", status)
}

/// `02:38:15:   4.32s ← a1b2c3:index_document_job ●`
fn arq(line: &[u8]) -> Option<Text<'_>> {
    let (time, message) = (line.get(..8)?, line.get(8..)?.strip_prefix(b": ")?);
    let is_time = time.iter().enumerate().all(|(at, byte)| if at % 3 == 2 { *byte == b':' } else { byte.is_ascii_digit() });
    if !is_time {
        return None;
    }
    let text = Text { form: "arq", message, ..Text::default() };
    let job = message.trim_ascii_start();
    let (duration, rest) = split(job, b"s ").map_or((&[][..], job), |(seconds, rest)| (&job[..seconds.len() + 1], rest));
    let number = duration.strip_suffix(b"s").unwrap_or_default();
    if number.is_empty() || !number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return Some(text);
    }
    let Some(sign) = ARQ.iter().find(|sign| rest.strip_prefix(sign.as_bytes()).is_some_and(|rest| rest.starts_with(b" "))) else {
        return Some(text);
    };
    let what = rest[sign.len()..].trim_ascii_start();
    let what = &what[..what.iter().position(|byte| matches!(byte, b' ' | b'(')).unwrap_or(what.len())];
    let (id, function) = split(what, b":").unwrap_or((&[], what));
    Some(text.with("mark", sign.as_bytes()).with("duration", duration).with("job_id", id).with("function", function))
}

/// `ts=2026-11-21T02:38:15Z level=info msg="a message" key=value`
fn logfmt(line: &[u8]) -> Option<Text<'_>> {
    let key = key(line);
    if line.get(key) != Some(&b'=') {
        return None;
    }
    let (mut count, mut is_known, mut pairs) = (0, false, Pairs::logfmt(line));
    for (key, _) in pairs.by_ref() {
        count += 1;
        is_known |= LOGFMT.contains(&key);
    }
    let is_whole = pairs.is_at_end();
    (is_whole && is_known && count >= 2).then(|| Text { form: "logfmt", fields: Fields::Logfmt(line), ..Text::default() })
}

/// Method, path without its query, and protocol of `GET /x?y HTTP/1.1`.
fn request(line: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let parts = split(line, b" ").and_then(|(method, rest)| Some((method, split(rest, b" ")?)));
    match parts {
        Some((method, (target, protocol))) if method.iter().all(u8::is_ascii_uppercase) => {
            (method, split(target, b"?").map_or(target, |(path, _)| path), protocol)
        }
        _ => (&[], &[], &[]),
    }
}

/// What stands in the brackets that a text begins with, and what is behind them.
fn bracketed(text: &[u8]) -> Option<(&[u8], &[u8])> {
    split(text.strip_prefix(b"[")?, b"]")
}

fn split<'a>(text: &'a [u8], by: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    memchr::memmem::find(text, by).map(|at| (&text[..at], &text[at + by.len()..]))
}

/// How long the first word is.
fn token(text: &[u8]) -> usize {
    memchr::memchr(b' ', text).unwrap_or(text.len())
}

/// A level, without the blanks around it. Numbers are no levels here.
fn level_of(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii();
    (text.first()?.is_ascii_alphabetic() && level_name(text).is_some()).then_some(text)
}

/// A level in capitals: `Error: x` is prose.
fn upper_level(text: &[u8]) -> Option<&[u8]> {
    level_of(text).filter(|level| level.iter().all(u8::is_ascii_uppercase))
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
