//! Which paths are taken. One that a scope was checked for and that the API reads otherwise would get around the scope, so
//! whatever could be read in two ways is refused and never put right.

/// Why a path is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathFault {
    /// It does not begin with a slash, as in `OPTIONS *`.
    Form,
    /// A segment is empty: `//`.
    Empty,
    /// A segment is `.` or `..`.
    Dots,
    /// It holds `;`, which some servers cut parameters at, or `\`, which some take for a slash.
    Separator,
    /// A byte is encoded that need not be, or that would separate or end something once it is decoded.
    Encoding,
    /// What it holds is no UTF-8.
    Utf8,
}

/// Whether a path can be read in one way only.
///
/// # Errors
/// Why it cannot.
pub fn check(path: &str) -> Result<(), PathFault> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathFault::Form);
    }
    let (mut before, mut segment, mut has_dot, mut is_encoded) = (b'/', 0_usize, false, false);
    for (position, byte) in bytes.iter().copied().enumerate().skip(1) {
        match byte {
            b'/' if before == b'/' => return Err(PathFault::Empty),
            b'/' => {
                check_segment(&bytes[segment + 1..position], has_dot)?;
                (segment, has_dot) = (position, false);
            }
            b'.' => has_dot = true,
            b'%' => is_encoded = true,
            b';' | b'\\' => return Err(PathFault::Separator),
            0x21..=0x7e => {}
            // What is not ASCII must be encoded (RFC 3986, 2.1).
            _ => return Err(PathFault::Encoding),
        }
        before = byte;
    }
    check_segment(&bytes[segment + 1..], has_dot)?;
    if is_encoded { check_encoded(bytes) } else { Ok(()) }
}

fn check_segment(segment: &[u8], has_dot: bool) -> Result<(), PathFault> {
    if has_dot && matches!(segment, b"." | b"..") { Err(PathFault::Dots) } else { Ok(()) }
}

fn check_encoded(path: &[u8]) -> Result<(), PathFault> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else { return Err(PathFault::Encoding) };
        let byte = high << 4 | low;
        // Letters, digits and `-._~` mean the same encoded (RFC 3986, 2.3); `/`, `\`, `;` and `%` do not mean the same to all.
        if byte.is_ascii_alphanumeric() || byte.is_ascii_control() || b"-._~/\\;%".contains(&byte) {
            return Err(PathFault::Encoding);
        }
        decoded.push(byte);
    }
    std::str::from_utf8(&decoded).map_or(Err(PathFault::Utf8), |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (path, fault) in [
            ("/", None),
            ("/api/v1/projects/69d0f3a1c2b4e5f60718293a/discover", None),
            ("/api/v1/projects/x/", None),
            ("/a/...", None),
            ("/a/.well-known/..b", None),
            ("/a/caf%C3%A9/%20x%3Dy", None),
            ("", Some(PathFault::Form)),
            ("*", Some(PathFault::Form)),
            ("//", Some(PathFault::Empty)),
            ("//api", Some(PathFault::Empty)),
            ("/api//v1", Some(PathFault::Empty)),
            ("/.", Some(PathFault::Dots)),
            ("/..", Some(PathFault::Dots)),
            ("/health/../api", Some(PathFault::Dots)),
            ("/health/./api", Some(PathFault::Dots)),
            ("/api/..", Some(PathFault::Dots)),
            ("/health;/api", Some(PathFault::Separator)),
            ("/health\\..\\api", Some(PathFault::Separator)),
            ("/health/%2e%2e/api", Some(PathFault::Encoding)),
            ("/health%2Fapi", Some(PathFault::Encoding)),
            ("/health%5capi", Some(PathFault::Encoding)),
            ("/health%3Bx", Some(PathFault::Encoding)),
            ("/health%252fapi", Some(PathFault::Encoding)),
            ("/%68ealth", Some(PathFault::Encoding)),
            ("/health%00", Some(PathFault::Encoding)),
            ("/health%0d%0aX: y", Some(PathFault::Encoding)),
            ("/health%", Some(PathFault::Encoding)),
            ("/health%2", Some(PathFault::Encoding)),
            ("/health%zz", Some(PathFault::Encoding)),
            ("/caf\u{e9}", Some(PathFault::Encoding)),
            ("/%ff%fe", Some(PathFault::Utf8)),
            ("/%c3", Some(PathFault::Utf8)),
        ] {
            assert_eq!(check(path).err(), fault, "{path}");
        }
    }
}
