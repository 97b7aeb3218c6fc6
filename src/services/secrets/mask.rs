//! What may be shown of a value: DecisionBox's own mask. Pure.

/// Values up to this length are not shown at all.
const SHORT: usize = 10;
const HEAD: usize = 6;
const TAIL: usize = 4;

/// The first six bytes, three stars and the last four; of a short value only the stars.
pub(super) fn mask(value: &[u8]) -> String {
    if value.len() <= SHORT {
        return "***".to_owned();
    }
    let part = |bytes| String::from_utf8_lossy(bytes);
    format!("{}***{}", part(&value[..HEAD]), part(&value[value.len() - TAIL..]))
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn the_mask_is_decisionboxes() {
        for (value, shown) in [
            ("", "***"),
            ("1234567890", "***"),
            ("12345678901", "123456***8901"),
            ("sk-ant-api03-XXXXwAA1", "sk-ant***wAA1"),
            ("12345é-cut-é1", "12345\u{fffd}***-é1"),
        ] {
            assert_eq!(mask(value.as_bytes()), shown);
        }
    }
}
