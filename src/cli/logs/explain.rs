//! `bellwether logs explain`: an account of every line, for people or for machines.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::logs::source::{name, open};
use crate::cli::{Failure, IO, SOFTWARE};
use crate::config::Config;
use crate::logs::{Explainer, Explanation};
use crate::series::rules::{Explained, Verdict};

/// How much of a line is shown, in characters, around the place that is of interest.
const SHOWN: usize = 100;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The file, compressed or not; `-` is the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Tells of the rules of this metric only.
    #[arg(long, value_name = "METRIC")]
    rule: Option<String>,
    /// Writes one JSON document a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(config: &Config, arguments: &ExplainArgs) -> Result<ExitCode, Failure> {
    if let Some(rule) = arguments.rule.as_ref().filter(|rule| !config.logs.rules.iter().any(|known| known.metric.name == **rule)) {
        return Err(Failure::new(
            crate::cli::USAGE,
            format!("no rule feeds the metric `{rule}`; `bellwether check` shows the configuration"),
        ));
    }
    let mut explainer = Explainer::new(&config.logs).map_err(|error| Failure::new(SOFTWARE, error))?;
    let (reader, bar) = open(&arguments.file)?;
    let (file, mut output) = (name(&arguments.file), BufWriter::new(io::stdout().lock()));
    let read = explainer.stream(reader, |explanation| {
        let rules = explanation.seen.record.iter().flat_map(|record| &record.rules);
        let rules: Vec<&Explained> = rules.filter(|rule| arguments.rule.as_ref().is_none_or(|only| rule.metric == *only)).collect();
        if arguments.json { writeln!(output, "{}", to_json(explanation, &rules)) } else { show(explanation, &file, &rules, &mut output) }
    });
    let done = read.and_then(|()| output.flush());
    bar.finish_and_clear();
    match done {
        // Whoever read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(IO, format!("cannot explain {}: {error}", arguments.file.display()))),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn show(explanation: &Explanation, file: &str, rules: &[&Explained], to: &mut impl Write) -> io::Result<()> {
    let Explanation { number, offset, outcome, fault, seen, line } = explanation;
    let layers = if seen.layers.is_empty() { String::new() } else { format!(": {}", seen.layers.join(", ")) };
    writeln!(to, "{file}:{number} byte {offset}: {}{layers}", outcome.unwrap_or("a part of a line"))?;
    let (text, caret) = excerpt(line, fault.map_or(0, |fault| fault.at));
    if !text.is_empty() {
        writeln!(to, "  | {text}")?;
    }
    if let Some(fault) = fault {
        writeln!(to, "  | {}^ {} at column {}", " ".repeat(caret), fault.reason.name(), fault.at + 1)?;
    }
    let Some(record) = &seen.record else { return writeln!(to) };
    for (name, value) in &record.common {
        let value = if *name == "time" { time(value) } else { value.clone() };
        writeln!(to, "  {name}: {}", printable(&value))?;
    }
    let fields: Vec<String> =
        record.fields.iter().map(|(name, value)| format!("{}={}", printable(name), shortened(&value.to_string()))).collect();
    if !fields.is_empty() {
        writeln!(to, "  fields: {}", fields.join(" "))?;
    }
    for rule in rules {
        let metric = rule.role.map_or_else(|| rule.metric.clone(), |role| format!("{} ({role})", rule.metric));
        match &rule.verdict {
            Verdict::Applies { labels, value } => {
                let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
                let value = value.map_or_else(String::new, |value| format!(" {value}"));
                writeln!(to, "  + {metric}{labels}{value}")?;
            }
            Verdict::Fails(why) => writeln!(to, "  - {metric}: {why}")?,
        }
    }
    writeln!(to)
}

fn to_json(explanation: &Explanation, rules: &[&Explained]) -> serde_json::Value {
    let Explanation { number, offset, outcome, fault, seen, line } = explanation;
    let rules: Vec<serde_json::Value> = rules
        .iter()
        .map(|rule| match &rule.verdict {
            Verdict::Applies { labels, value } => {
                let labels: serde_json::Map<_, _> = labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                json!({ "metric": rule.metric, "role": rule.role, "applies": true, "labels": labels, "value": value })
            }
            Verdict::Fails(why) => json!({ "metric": rule.metric, "role": rule.role, "applies": false, "why": why }),
        })
        .collect();
    let record = seen.record.as_ref().map(|record| {
        let common: serde_json::Map<_, _> = record.common.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({ "common": common, "fields": record.fields, "rules": rules })
    });
    json!({
        "line": number,
        "offset": offset,
        "outcome": outcome,
        "layers": seen.layers,
        "fault": fault.map(|fault| json!({ "reason": fault.reason.name(), "column": fault.at + 1 })),
        "record": record,
        "text": shortened(&String::from_utf8_lossy(line)),
    })
}

/// The part of a line around a byte, without anything that a terminal would act upon, and at which character of it the
/// byte stands.
fn excerpt(line: &[u8], at: usize) -> (String, usize) {
    let at = at.min(line.len());
    let before = printable(&String::from_utf8_lossy(&line[..at]));
    let behind = printable(&String::from_utf8_lossy(&line[at..]));
    let skipped = before.chars().count().saturating_sub(SHOWN * 3 / 4);
    let mut text: String = if skipped > 0 { "…".to_owned() } else { String::new() };
    text.extend(before.chars().skip(skipped));
    let caret = text.chars().count();
    let room = SHOWN.saturating_sub(caret);
    text.extend(behind.chars().take(room));
    if behind.chars().count() > room {
        text.push('…');
    }
    (text, caret)
}

/// Control characters, colours among them, as blanks: a log must not write on the terminal of whoever reads it.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn shortened(text: &str) -> String {
    let text = printable(text);
    if text.chars().count() <= SHOWN {
        return text;
    }
    let begin: String = text.chars().take(SHOWN).collect();
    format!("{begin}…")
}

fn time(millis: &str) -> String {
    let read = millis.parse().ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    read.map_or_else(|| millis.to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::excerpt;

    #[test]
    fn the_caret_stands_under_its_place() {
        for (line, at) in [("{\"a\":x}", 5), ("{\"ä\":\tx}", 7), ("", 0), ("short", 99)] {
            let (text, caret) = excerpt(line.as_bytes(), at);
            assert!(caret <= text.chars().count(), "{line} {text} {caret}");
            let expected = line.as_bytes().get(at).map(|byte| char::from(*byte));
            assert_eq!(text.chars().nth(caret), expected, "{line}");
        }
        let long = format!("{}!{}", "a".repeat(500), "b".repeat(500));
        let (text, caret) = excerpt(long.as_bytes(), 500);
        assert_eq!((text.chars().nth(caret), text.chars().count()), (Some('!'), 101));
    }
}
