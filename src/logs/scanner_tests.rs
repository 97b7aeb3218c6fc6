//! The scanner against serde_json: the same verdict and the same values on any text.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const PATHS: [&[&str]; 8] =
    [&["a"], &["level"], &["message"], &["duration_ms"], &["http", "status"], &["http", "route", "a"], &["a", "b"], &["http"]];

/// The verdict, and the wanted values where it is good.
fn scanned(line: &[u8]) -> Option<Vec<Option<Value>>> {
    let mut wanted = Wanted::new();
    for path in PATHS {
        wanted.want(path);
    }
    let mut slots = vec![Slot::default(); wanted.slots()];
    let verdict = scan(&wanted, line, &mut slots);
    let mut again = slots.clone();
    let careful = carefully(&wanted, line, &mut again);
    assert_eq!(verdict, careful, "{line:?}");
    if verdict.is_ok() {
        assert_eq!(slots[..PATHS.len()], again[..PATHS.len()], "{line:?}");
    }
    verdict.ok()?;
    let value = |slot: &Slot| match slot.kind {
        Kind::Missing => None,
        Kind::Text | Kind::Escaped => Some(Value::String(slot.text(line).unwrap().into_owned())),
        _ => Some(serde_json::from_slice(slot.raw(line)).unwrap_or(Value::String("out of range".to_owned()))),
    };
    Some(slots.iter().take(PATHS.len()).map(value).collect())
}

fn expected(line: &[u8]) -> Option<Vec<Option<Value>>> {
    let object: Value = serde_json::from_slice(line).ok()?;
    object.is_object().then(|| PATHS.iter().map(|path| path.iter().try_fold(&object, |value, key| value.get(key)).cloned()).collect())
}

#[track_caller]
fn check(line: &str) {
    assert_eq!(scanned(line.as_bytes()), expected(line.as_bytes()), "{line}");
}

#[test]
fn agrees_with_serde_json_on_the_corners() {
    for line in [
        r#"{}"#,
        r#" { "a" : 1 , "level":"x" } "#,
        r#"{"a":1,"a":2}"#,
        r#"{"http":{"status":1},"http":{"route":{}}}"#,
        r#"{"http":{"status":1},"http":5}"#,
        r#"{"\u006c\u0065vel":"escaped key","a":"\ud83d\ude00\n\t\"\\\/\b\f"}"#,
        r#"{"a":"é — → µs","message":""}"#,
        r#"{"a":-0,"level":1.5e-3,"message":1E+2,"duration_ms":0.0}"#,
        r#"{"a":[1,[2,{"b":3}],"]"],"level":true,"message":null,"duration_ms":false}"#,
        r#"{"a":{"b":{"c":1}},"http":{"status":200,"route":{"a":"x"}}}"#,
        r#"{"a":"x"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":+1}"#,
        r#"{"a":1e}"#,
        r#"{"a":-}"#,
        r#"{"a":NaN}"#,
        r#"{"a":1,}"#,
        r#"{,}"#,
        r#"{"a" 1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[1 2]}"#,
        r#"{"a":tru}"#,
        r#"{"a":truex}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"a":"\u12"#,
        r#"{a:1}"#,
        r#"{"a":1}}"#,
        r#"{"a":1} x"#,
        r#"[1]"#,
        r#"7"#,
        "",
        "{",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"0123456\t\"}",
        "{\"01234567\":{\"89\":\"0123456\\n\"}}",
    ] {
        check(line);
    }
}

#[test]
fn depth_is_bounded_as_in_serde_json() {
    for depth in [1, 100, 126, 127, 128, 129, 10_000] {
        for (open, close) in [("[", "]"), ("{\"x\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let line = format!("{{\"a\":{}{inner}{}}}", open.repeat(depth - 1), close.repeat(depth - 1));
            let line = if depth == 1 { "{\"a\":1}".to_owned() } else { line };
            let verdict = scanned(line.as_bytes()).is_some();
            assert_eq!(verdict, serde_json::from_str::<Value>(&line).is_ok(), "{depth} {open}");
        }
    }
}

#[test]
fn numbers_beyond_f64_lone_surrogates_and_bad_utf8_are_let_through() {
    for line in [&b"{\"a\":1e400}"[..], b"{\"a\":\"\\ud800\"}", b"{\"a\":\"\\ud800\\u0041\"}", b"{\"a\":\"\xff\xfe\"}", b"{\"\xff\":1}"] {
        assert!(scanned(line).is_some(), "{line:?}");
    }
    let replaced = |line: &[u8]| scanned(line).unwrap()[0].clone().unwrap();
    assert_eq!(replaced(b"{\"a\":\"\\ud800\\u0041\"}"), "\u{fffd}A");
    assert_eq!(replaced(b"{\"a\":\"x\xffy\"}"), "x\u{fffd}y");
}

/// JSON text with random spacing, keys that are often wanted, and strings with odd characters.
fn json() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", " ", "\t", "  "]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| serde_json::to_string(&value).unwrap_or_default()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
        "[ -~é—\u{1F600}]{0,40}".prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
    ];
    let key = prop_oneof![
        prop::sample::select(vec!["a", "b", "level", "message", "duration_ms", "http", "status", "route", "dur\\u0061tion_ms"])
            .prop_map(|name| format!("\"{name}\"")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let (left, right) = (space.clone(), space.clone());
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), left.clone()).prop_map(|(items, space)| format!("[{space}{}]", items.join(","))),
            (prop::collection::vec((key.clone(), inner), 0..7), left, right).prop_map(|(items, left, right)| {
                let items: Vec<String> = items.into_iter().map(|(key, value)| format!("{key}{left}:{right}{value}{left}")).collect();
                format!("{{{left}{}}}", items.join(","))
            }),
        ]
    })
}

/// One flat object as loggers write it: what the swift scanner is for, with a few values that it is not for.
fn flat() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => prop::sample::select(vec!["a", "level", "message", "duration_ms", "http", "caller", "a_name_of_more_than_16_bytes"])
            .prop_map(str::to_owned),
        1 => "[a-z_]{0,20}",
    ];
    let value = prop_oneof![
        4 => "[ -!#-\\[\\]-~]{0,90}".prop_map(|text| format!("\"{text}\"")),
        1 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
        2 => "(-)?[0-9]{1,26}(\\.[0-9]{0,26})?(e[0-9])?",
        1 => prop::sample::select(vec!["true", "false", "null", "tru", "{}", "[1,{\"a\":2}]", "{\"status\":5}", " 1", "\"", "\"x\ty\""])
            .prop_map(str::to_owned),
    ];
    let separators = prop::sample::select(vec![(",", ":"), (", ", ": "), (",  ", ":"), (" , ", " : "), (",\t", ":\t")]);
    (prop::collection::vec((name, value), 0..14), separators).prop_map(|(fields, (comma, colon))| {
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
        format!("{{{}}}", fields.join(comma))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn agrees_with_serde_json_on_lines_as_loggers_write_them(line in flat(), position in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4) {
        let mut bytes = line.into_bytes();
        let position = position.index(bytes.len());
        match how {
            0 => bytes.truncate(position),
            1 => bytes[position] = byte,
            _ => {}
        }
        let found = scanned(&bytes);
        // What serde_json refuses only for its own limits is not compared.
        let is_object = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() && bytes.trim_ascii_start().starts_with(b"{");
        if std::str::from_utf8(&bytes).is_ok() {
            prop_assert_eq!(found.is_some(), is_object);
            if let Some(values) = expected(&bytes) {
                prop_assert_eq!(found, Some(values));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn agrees_with_serde_json_on_any_json(line in json()) {
        prop_assert_eq!(scanned(line.as_bytes()), expected(line.as_bytes()));
    }

    #[test]
    fn agrees_with_serde_json_on_damaged_json(line in json(), position in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = line.into_bytes();
        let position = position.index(bytes.len());
        if cut { bytes.truncate(position) } else { bytes[position] = byte & 0x7f }
        // What serde_json refuses only for its own limits is not compared.
        let lenient = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() && bytes.trim_ascii_start().starts_with(b"{");
        if std::str::from_utf8(&bytes).is_ok() {
            prop_assert_eq!(scanned(&bytes).is_some(), lenient);
            if let Some(values) = expected(&bytes) {
                prop_assert_eq!(scanned(&bytes), Some(values));
            }
        }
    }

    #[test]
    fn never_panics(line in prop::collection::vec(any::<u8>(), 0..200)) {
        scanned(&line);
        scanned(&[b"{\"a\":\"", line.as_slice()].concat());
    }
}
