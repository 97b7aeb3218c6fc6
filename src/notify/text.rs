//! Text of anybody, made fit for a message: bounded, and without what would be read as something else.

/// How much of an annotation is kept, in bytes.
const MOST: usize = 2048;

/// Cuts an annotation to what is kept of one.
pub fn bounded(text: &mut String) {
    if text.len() > MOST {
        *text = cut(text, MOST, str::len).into_owned();
    }
}

/// The text as one line: each run of space and control characters is a space, and none of those is left that change
/// the direction in which is written.
#[must_use]
pub fn one_line(text: &str) -> String {
    let is_hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let visible: String =
        text.chars().filter(|c| !is_hidden(*c)).map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c }).collect();
    visible.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Cuts a text to at most `most`, as `measure` counts, and says that it did.
#[must_use]
pub fn cut(text: &str, most: usize, measure: impl Fn(&str) -> usize) -> std::borrow::Cow<'_, str> {
    const MARK: &str = "…";
    if measure(text) <= most {
        return text.into();
    }
    let room = most.saturating_sub(measure(MARK));
    let (mut used, mut end) = (0, 0);
    let mut buffer = [0; 4];
    for c in text.chars() {
        used += measure(c.encode_utf8(&mut buffer));
        if used > room {
            break;
        }
        end += c.len_utf8();
    }
    format!("{}{MARK}", &text[..end]).into()
}

/// The length of a text in characters.
#[must_use]
pub fn characters(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("abc", 3, characters), "abc");
        assert_eq!(cut("abcd", 3, characters), "ab…");
        assert_eq!(cut("äöü", 5, str::len), "ä…");
        assert_eq!(cut("🦀🦀🦀", 2, characters), "🦀…");
        let mut long = "é".repeat(5000);
        bounded(&mut long);
        assert!(long.len() <= MOST && long.ends_with('…'));
    }

    #[test]
    fn a_line_is_a_line() {
        assert_eq!(one_line(" a\r\nb\u{0}\t c\u{2028}d\u{85}e "), "a b c d e");
        assert_eq!(one_line("evil\u{202e}txt.exe"), "eviltxt.exe");
    }
}
