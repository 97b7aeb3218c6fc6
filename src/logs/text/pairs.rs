//! `key=value`, in the form of logfmt and in that of structlog's console. Pure.

/// A value as it is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written<'a> {
    /// Without quotes.
    Plain(&'a [u8]),
    /// What stood within quotes.
    Quoted(&'a [u8]),
    /// What stood within quotes, with backslashes.
    Escaped(&'a [u8]),
}

/// Goes through the pairs of a text.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
    has_spaces: bool,
}

// === impl Pairs ===

impl<'a> Pairs<'a> {
    /// Values end with a space, unless they stand within double quotes. A key alone is true.
    #[must_use]
    pub fn logfmt(text: &'a [u8]) -> Self {
        Self { rest: text, has_spaces: false }
    }

    /// Values go on to the next ` key=`: structlog quotes nothing, so a value that holds one is cut there.
    #[must_use]
    pub fn structlog(text: &'a [u8]) -> Self {
        Self { rest: text, has_spaces: true }
    }

    /// Whether nothing is left that is no pair.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.rest.trim_ascii_start().is_empty()
    }

    fn quoted(&mut self) -> Option<Written<'a>> {
        let inner = self.rest.strip_prefix(b"\"")?;
        let mut escaped = false;
        let mut at = 0;
        loop {
            match inner.get(at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        self.rest = &inner[at + 1..];
        Some(if escaped { Written::Escaped(&inner[..at]) } else { Written::Quoted(&inner[..at]) })
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], Written<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_ascii_start();
        let key = key(self.rest);
        if self.has_spaces {
            if key == 0 || self.rest.get(key) != Some(&b'=') {
                return None;
            }
            let (name, value) = (&self.rest[..key], &self.rest[key + 1..]);
            let end = next_pair(value).unwrap_or(value.len());
            self.rest = &value[end..];
            let value = value[..end].trim_ascii_end();
            let bare = [b'\'', b'"'].iter().find_map(|quote| value.strip_prefix(&[*quote])?.strip_suffix(&[*quote]));
            return Some((name, bare.map_or(Written::Plain(value), Written::Quoted)));
        }
        if key == 0 {
            return None;
        }
        let name = &self.rest[..key];
        self.rest = &self.rest[key..];
        match self.rest.first() {
            Some(b'=') => self.rest = &self.rest[1..],
            None | Some(b' ') => return Some((name, Written::Plain(b"true"))),
            Some(_) => return None,
        }
        if self.rest.first() == Some(&b'"') {
            return self.quoted().map(|value| (name, value));
        }
        let end = memchr::memchr(b' ', self.rest).unwrap_or(self.rest.len());
        let value = &self.rest[..end];
        self.rest = &self.rest[end..];
        Some((name, Written::Plain(value)))
    }
}

/// Where the next ` key=` begins.
#[must_use]
pub fn next_pair(text: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b' ', text).find(|space| {
        let rest = &text[space + 1..];
        let key = key(rest);
        key > 0 && rest.get(key) == Some(&b'=')
    })
}

/// How long the key is that a text begins with.
#[must_use]
pub fn key(text: &[u8]) -> usize {
    if !text.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') {
        return 0;
    }
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pairs: Pairs<'_>) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        pairs
            .map(|(key, value)| match value {
                Written::Plain(value) => format!("{}={}", text(key), text(value)),
                Written::Quoted(value) => format!("{}='{}'", text(key), text(value)),
                Written::Escaped(value) => format!("{}=\\'{}'", text(key), text(value)),
            })
            .collect()
    }

    #[test]
    fn logfmt_values_may_stand_in_quotes() {
        let found = all(Pairs::logfmt(br#"level=info msg="a b" q="say \"x\"" empty= flag n=-1.5e3 a.b-c=x"#));
        assert_eq!(found, ["level=info", "msg='a b'", r#"q=\'say \"x\"'"#, "empty=", "flag=true", "n=-1.5e3", "a.b-c=x"]);
        assert_eq!(all(Pairs::logfmt(br#"a=1 b="never ends"#)), ["a=1"]);
        assert_eq!(all(Pairs::logfmt(br#"a="\"#)), [] as [&str; 0]);
        assert_eq!(all(Pairs::logfmt(b"a=1 (text)")), ["a=1"]);
    }

    #[test]
    fn structlog_values_may_hold_spaces() {
        let found = all(Pairs::structlog(b"query=auth flow results_count=10 error='x y' path=/a=b"));
        assert_eq!(found, ["query=auth flow", "results_count=10", "error='x y'", "path=/a=b"]);
        assert_eq!(all(Pairs::structlog(b"no pairs here")), [] as [&str; 0]);
    }
}
