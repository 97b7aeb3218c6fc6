//! What is wrong with a line: why it tells nothing, or what had to be put right before it counted. Pure.

/// Why a line, or the begin of one, tells nothing. A closed set: the label `reason`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It ends within its JSON.
    Truncated,
    /// Something stands where it does not belong.
    Syntax,
    /// A backslash with something behind it that JSON does not know.
    BadEscape,
    /// A control character within a string, such as a bare tab.
    ControlCharacter,
    /// `NaN` or `Infinity`, which Python writes and JSON does not have.
    NotANumber,
    /// Nested too deeply.
    TooDeep,
    /// Longer than allowed.
    TooLong,
    /// Parts of a line whose last part never came.
    PartialDropped,
}

/// A reason, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} behind byte {at}", reason.name())]
pub struct Fault {
    /// Why the line tells nothing.
    pub reason: Reason,
    /// How many bytes of the line stand before the place.
    pub at: usize,
}

/// What was put right in a line that counted all the same; a set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Oddities(u8);

// === impl Reason ===

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Truncated,
        Self::Syntax,
        Self::BadEscape,
        Self::ControlCharacter,
        Self::NotANumber,
        Self::TooDeep,
        Self::TooLong,
        Self::PartialDropped,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Syntax => "syntax",
            Self::BadEscape => "bad_escape",
            Self::ControlCharacter => "control_character",
            Self::NotANumber => "not_a_number",
            Self::TooDeep => "too_deep",
            Self::TooLong => "too_long",
            Self::PartialDropped => "partial_dropped",
        }
    }
}

// === impl Oddities ===

impl Oddities {
    /// Bytes that are no UTF-8: read as U+FFFD.
    pub const BAD_UTF8: Self = Self(1);
    /// A byte order mark before the line: taken away.
    pub const BYTE_ORDER_MARK: Self = Self(1 << 1);
    /// Zeros around the line, as a truncation leaves them: taken away.
    pub const ZEROS: Self = Self(1 << 2);
    /// A carriage return at the end: taken away.
    pub const CARRIAGE_RETURN: Self = Self(1 << 3);
    /// A field that rules ask for stands there twice: the last one counts.
    pub const DUPLICATE_KEY: Self = Self(1 << 4);
    /// Half of a surrogate pair: read as U+FFFD.
    pub const LONE_SURROGATE: Self = Self(1 << 5);
    /// A number beyond what a 64-bit float can hold: it has no value.
    pub const NUMBER_RANGE: Self = Self(1 << 6);

    /// The values of the label `repair`, in the order of the bits.
    pub const NAMES: [&'static str; 7] =
        ["bad_utf8", "byte_order_mark", "zeros", "carriage_return", "duplicate_key", "lone_surrogate", "number_range"];

    /// Adds others.
    #[inline]
    pub fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The positions in [`Oddities::NAMES`] of those that are there.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..Self::NAMES.len()).filter(move |position| self.0 & (1 << position) != 0)
    }
}
