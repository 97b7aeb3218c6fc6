//! Running rules: a record in, updates of series out. Pure.
//!
//! Labels are closed sets, so the series of a record is found by counting, not by hashing: each label value has a
//! number, and the numbers together are the place in a table. Only path templates need a lookup by text.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use crate::config::rules::{Condition, Label, LabelSource, Mapping, Match, MetricKind, Rule, Test, ValueSource};
use crate::series::families::{DeclareError, Families, FamilyId, SeriesId};
use crate::series::record::{FieldId, Record, Value};
use crate::units::Unit;

/// Combinations of label values up to this many are exposed as zero from the start; more would be noise.
const ZERO_SERIES: usize = 256;

/// Rules that are ready to run.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    fields: Vec<String>,
    rules: Vec<CompiledRule>,
    /// The field whose exact value most rules ask for, and which rules can apply for each value.
    dispatch: Option<Dispatch>,
    /// The rules that do not ask for it.
    always: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Dispatch {
    field: FieldId,
    by_value: HashMap<String, Vec<usize>>,
}

#[derive(Clone, Debug)]
struct CompiledRule {
    matcher: CompiledMatch,
    kind: MetricKind,
    family: FamilyId,
    value: Option<CompiledValue>,
    labels: Vec<CompiledLabel>,
    /// The series of each combination of label values, once it is known. Empty where a label is open.
    table: Vec<Option<SeriesId>>,
}

#[derive(Clone, Debug, Default)]
struct CompiledMatch {
    all: Vec<(FieldId, Test)>,
    any: Vec<CompiledMatch>,
}

#[derive(Clone, Debug)]
struct CompiledValue {
    fields: Vec<FieldId>,
    unit: Unit,
    since: Option<FieldId>,
}

#[derive(Clone, Debug)]
struct CompiledLabel {
    fields: Vec<FieldId>,
    mapping: CompiledMapping,
    /// All values of a closed label; the last one is for everything else.
    values: Vec<String>,
}

#[derive(Clone, Debug)]
enum CompiledMapping {
    Constant,
    /// The number of the value for each text.
    Exact(HashMap<String, usize>),
    /// The number of the value for each list of words.
    Classify(Vec<(usize, Vec<memchr::memmem::Finder<'static>>)>),
    PathTemplate,
}

// === impl RuleSet ===

impl RuleSet {
    /// Prepares rules and declares what they feed.
    ///
    /// # Errors
    /// When two rules feed one metric in different ways.
    pub fn compile(rules: &[Rule], families: &mut Families) -> Result<Self, DeclareError> {
        let mut set = Self::default();
        for rule in rules {
            let mut names: Vec<&Label> = rule.labels.iter().collect();
            names.sort_by(|left, right| left.name.cmp(&right.name));
            let label_names: Vec<String> = names.iter().map(|label| label.name.clone()).collect();
            let family = families.declare(&rule.metric, &label_names)?;
            let compiled = CompiledRule {
                matcher: set.compile_match(&rule.matcher),
                kind: rule.metric.kind,
                family,
                value: rule.value.as_ref().map(|value| set.compile_value(value)),
                labels: names.into_iter().map(|label| set.compile_label(label)).collect(),
                table: Vec::new(),
            };
            set.rules.push(compiled.with_table(families));
        }
        set.choose_dispatch();
        Ok(set)
    }

    /// The paths of the fields that the rules look at; a record answers by their positions.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Runs all rules on a record. Returns how many applied.
    pub fn apply<R: Record>(&mut self, record: &R, families: &mut Families) -> usize {
        let Self { rules, dispatch, always, .. } = self;
        let mut hits = 0;
        if let Some(dispatch) = dispatch {
            let value = record.get(dispatch.field);
            let chosen = value.text().and_then(|text| dispatch.by_value.get(&*text));
            for rule in chosen.into_iter().flatten() {
                hits += usize::from(rules[*rule].apply(record, families));
            }
        }
        for rule in always {
            hits += usize::from(rules[*rule].apply(record, families));
        }
        hits
    }

    fn field(&mut self, path: &str) -> FieldId {
        if let Some(position) = self.fields.iter().position(|field| field == path) {
            return position;
        }
        self.fields.push(path.to_owned());
        self.fields.len() - 1
    }

    fn compile_match(&mut self, matcher: &Match) -> CompiledMatch {
        CompiledMatch {
            all: matcher.all.iter().map(|Condition { field, test }| (self.field(field), test.clone())).collect(),
            any: matcher.any.iter().map(|alternative| self.compile_match(alternative)).collect(),
        }
    }

    fn compile_value(&mut self, value: &ValueSource) -> CompiledValue {
        CompiledValue {
            fields: value.fields.iter().map(|field| self.field(field)).collect(),
            unit: value.unit,
            since: value.since.as_ref().map(|field| self.field(field)),
        }
    }

    fn compile_label(&mut self, label: &Label) -> CompiledLabel {
        let (fields, mapping, otherwise) = match &label.source {
            LabelSource::Constant(text) => {
                return CompiledLabel { fields: Vec::new(), mapping: CompiledMapping::Constant, values: vec![text.clone()] };
            }
            LabelSource::Field { fields, mapping, otherwise } => (fields, mapping, otherwise),
        };
        let mut values: Vec<String> = Vec::new();
        let mut number = |text: &String| {
            values.iter().position(|value| value == text).unwrap_or_else(|| {
                values.push(text.clone());
                values.len() - 1
            })
        };
        let mapping = match mapping {
            Mapping::Allow(allowed) => CompiledMapping::Exact(allowed.iter().map(|text| (text.clone(), number(text))).collect()),
            Mapping::Map(pairs) => CompiledMapping::Exact(pairs.iter().map(|(text, to)| (text.clone(), number(to))).collect()),
            Mapping::Classify(classes) => CompiledMapping::Classify(
                classes
                    .iter()
                    .map(|(class, words)| {
                        let finders = words.iter().map(|word| memchr::memmem::Finder::new(word.as_bytes()).into_owned()).collect();
                        (number(class), finders)
                    })
                    .collect(),
            ),
            Mapping::PathTemplate => CompiledMapping::PathTemplate,
        };
        values.push(otherwise.clone());
        CompiledLabel { fields: fields.iter().map(|field| self.field(field)).collect(), mapping, values }
    }

    /// Finds the field whose exact value most rules ask for: those that ask for another value need not be looked at.
    fn choose_dispatch(&mut self) {
        let mut asked: BTreeMap<FieldId, usize> = BTreeMap::new();
        for (field, _) in self.rules.iter().flat_map(|rule| rule.matcher.exact()) {
            *asked.entry(field).or_default() += 1;
        }
        let best = asked.into_iter().max_by_key(|(field, count)| (*count, std::cmp::Reverse(*field)));
        self.always = (0..self.rules.len()).collect();
        let Some((field, _)) = best.filter(|(_, count)| *count > 1) else { return };
        let mut by_value: HashMap<String, Vec<usize>> = HashMap::new();
        self.always.clear();
        for (position, rule) in self.rules.iter().enumerate() {
            match rule.matcher.exact().find(|(asked, _)| *asked == field) {
                Some((_, values)) => values.iter().for_each(|value| by_value.entry(value.clone()).or_default().push(position)),
                None => self.always.push(position),
            }
        }
        self.dispatch = Some(Dispatch { field, by_value });
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    /// Exposes every combination of closed label values as zero, where they are not too many.
    fn with_table(mut self, families: &mut Families) -> Self {
        if self.labels.iter().any(|label| matches!(label.mapping, CompiledMapping::PathTemplate)) {
            return self;
        }
        let size = self.labels.iter().map(|label| label.values.len()).product();
        self.table = vec![None; size];
        if size <= ZERO_SERIES && self.kind != MetricKind::Gauge {
            for place in 0..size {
                let labels = self.labels_at(place);
                self.table[place] = Some(families.series(self.family, &labels));
            }
        }
        self
    }

    fn labels_at(&self, mut place: usize) -> Vec<&str> {
        let mut labels = Vec::with_capacity(self.labels.len());
        for label in &self.labels {
            labels.push(label.values[place % label.values.len()].as_str());
            place /= label.values.len();
        }
        labels
    }

    fn apply<R: Record>(&mut self, record: &R, families: &mut Families) -> bool {
        if !self.matcher.holds(record) {
            return false;
        }
        let amount = match &self.value {
            None => 1.0,
            Some(value) => match value.of(record) {
                Some(amount) => amount,
                None => return false,
            },
        };
        let series = self.series(record, families);
        match self.kind {
            MetricKind::Counter => families.add(series, amount),
            MetricKind::Gauge => families.set(series, amount),
            MetricKind::Histogram => families.observe(series, amount),
        }
        true
    }

    fn series<R: Record>(&mut self, record: &R, families: &mut Families) -> SeriesId {
        if self.table.is_empty() {
            let texts: Vec<Cow<'_, str>> = self.labels.iter().map(|label| label.text(record)).collect();
            let labels: Vec<&str> = texts.iter().map(|text| &**text).collect();
            return families.series(self.family, &labels);
        }
        let (mut place, mut stride) = (0, 1);
        for label in &self.labels {
            place += label.number(record) * stride;
            stride *= label.values.len();
        }
        if let Some(series) = self.table[place] {
            return series;
        }
        let series = families.series(self.family, &self.labels_at(place));
        self.table[place] = Some(series);
        series
    }
}

// === impl CompiledMatch ===

impl CompiledMatch {
    fn holds<R: Record>(&self, record: &R) -> bool {
        self.all.iter().all(|(field, test)| holds(test, &record.get(*field)))
            && (self.any.is_empty() || self.any.iter().any(|alternative| alternative.holds(record)))
    }

    /// The fields whose exact value it asks for.
    fn exact(&self) -> impl Iterator<Item = (FieldId, &[String])> {
        self.all.iter().filter_map(|(field, test)| match test {
            Test::OneOf(values) => Some((*field, values.as_slice())),
            _ => None,
        })
    }
}

fn holds(test: &Test, value: &Value<'_>) -> bool {
    match test {
        Test::Absent => matches!(value, Value::Null),
        Test::Present => !matches!(value, Value::Null),
        Test::OneOf(texts) => value.text().is_some_and(|found| texts.iter().any(|text| *text == *found)),
        Test::Prefix(texts) => value.text().is_some_and(|found| texts.iter().any(|text| found.starts_with(text.as_str()))),
        Test::Contains(texts) => value.text().is_some_and(|found| texts.iter().any(|text| found.contains(text.as_str()))),
        Test::Regex(regexes) => value.text().is_some_and(|found| regexes.iter().any(|regex| regex.is_match(&found))),
    }
}

// === impl CompiledValue ===

impl CompiledValue {
    fn of<R: Record>(&self, record: &R) -> Option<f64> {
        let value = self.fields.iter().map(|field| record.get(*field)).find(|value| !matches!(value, Value::Null))?;
        let amount = value.quantity(self.unit)?;
        match self.since {
            None => Some(amount),
            Some(since) => Some(amount - record.get(since).quantity(self.unit)?).filter(|amount| *amount >= 0.0),
        }
    }
}

// === impl CompiledLabel ===

impl CompiledLabel {
    /// The number of the value. What is missing, null or not in the set has the last one.
    fn number<R: Record>(&self, record: &R) -> usize {
        let otherwise = self.values.len() - 1;
        if matches!(self.mapping, CompiledMapping::Constant) {
            return 0;
        }
        let value = self.fields.iter().map(|field| record.get(*field)).find(|value| !matches!(value, Value::Null));
        let Some(value) = value else { return otherwise };
        let Some(text) = value.text() else { return otherwise };
        match &self.mapping {
            CompiledMapping::Exact(numbers) => numbers.get(&*text).copied().unwrap_or(otherwise),
            CompiledMapping::Classify(classes) => classes
                .iter()
                .find(|(_, words)| words.iter().any(|word| word.find(text.as_bytes()).is_some()))
                .map_or(otherwise, |(number, _)| *number),
            CompiledMapping::Constant | CompiledMapping::PathTemplate => otherwise,
        }
    }

    fn text<'a, R: Record>(&'a self, record: &'a R) -> Cow<'a, str> {
        if !matches!(self.mapping, CompiledMapping::PathTemplate) {
            return self.values[self.number(record)].as_str().into();
        }
        let found = self.fields.iter().map(|field| record.get(*field)).find(|value| !matches!(value, Value::Null));
        match found.as_ref().and_then(Value::text) {
            Some(path) => path_template(&path).into(),
            None => self.values[self.values.len() - 1].as_str().into(),
        }
    }
}

/// Replaces what varies in a path: numbers, ids of 8 or more hexadecimal digits, UUIDs, and any segment of more than
/// 40 bytes, become `{id}`. The query is cut off.
fn path_template(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let varies = |segment: &str| {
        let mut bytes = segment.bytes();
        let is_number = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
        let is_id = segment.len() >= 8
            && segment.bytes().any(|byte| byte.is_ascii_digit())
            && bytes.all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_number || is_id || segment.len() > 40
    };
    path.split('/').map(|segment| if varies(segment) { "{id}" } else { segment }).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Environment;
    use crate::config::{Request, load};

    struct Fields<'a>(&'a [String], Vec<(&'a str, Value<'a>)>);

    impl Record for Fields<'_> {
        fn get(&self, field: FieldId) -> Value<'_> {
            self.1.iter().find(|(name, _)| *name == self.0[field]).map_or(Value::Null, |(_, value)| value.clone())
        }
    }

    fn rules() -> (RuleSet, Families) {
        let request = Request { profile: Some("decisionbox"), logs_only: true, ..Request::default() };
        let config = load(&request, &Environment::default()).unwrap();
        let mut families = Families::default();
        let set = RuleSet::compile(&config.logs.rules, &mut families).unwrap();
        (set, families)
    }

    #[track_caller]
    fn check(fields: &[(&str, Value<'_>)], expected: &[(&str, &[&str], f64)]) {
        let (mut set, mut families) = rules();
        let names = set.fields().to_vec();
        set.apply(&Fields(&names, fields.to_vec()), &mut families);
        for (metric, labels, value) in expected {
            assert_eq!(families.value(metric, labels), Some(*value), "{metric} {labels:?}");
        }
    }

    fn text(text: &str) -> Value<'_> {
        Value::Text(text.into())
    }

    #[test]
    fn an_llm_failure_is_counted_once_and_classified() {
        let error = "claude: failed after 3 attempts: context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        check(
            &[("message", text("LLM call failed")), ("error", text(error)), ("latency_ms", Value::Digits("905211"))],
            &[
                ("decisionbox_llm_failures_total", &["timeout"], 1.0),
                ("decisionbox_llm_failures_total", &["rate_limit"], 0.0),
                ("decisionbox_llm_calls_total", &["failure"], 1.0),
                ("decisionbox_llm_call_duration_seconds", &[], 1.0),
            ],
        );
        let later = [("message", text("LLM call failed during exploration")), ("attempt", Value::Digits("0")), ("error", text(error))];
        check(&later, &[("decisionbox_llm_failures_total", &["timeout"], 0.0)]);
        check(&[later[0].clone(), later[2].clone()], &[("decisionbox_llm_failures_total", &["timeout"], 1.0)]);
    }

    #[test]
    fn both_types_of_duration_become_seconds() {
        check(
            &[("message", text("Discovery run completed")), ("duration", text("5m23.412345678s"))],
            &[("decisionbox_discovery_duration_seconds", &[], 1.0)],
        );
        check(
            &[("message", text("Exploration finished")), ("duration", Value::Digits("1023412"))],
            &[("decisionbox_exploration_duration_seconds", &[], 1.0)],
        );
    }

    #[test]
    fn labels_are_closed_sets() {
        check(
            &[
                ("message", text("Request error")),
                ("status", Value::Digits("409")),
                ("level", text("warn")),
                ("caller", text("log/log.go:47")),
            ],
            &[
                ("decisionbox_http_request_failures_total", &["409"], 1.0),
                ("decisionbox_log_lines_total", &["warn", "decisionbox-api"], 1.0),
            ],
        );
        check(
            &[("message", text("Request error")), ("status", text("x\"}\n evil")), ("level", Value::Null)],
            &[("decisionbox_http_request_failures_total", &["other"], 1.0), ("decisionbox_log_lines_total", &["unknown", "other"], 1.0)],
        );
    }

    #[test]
    fn alternatives_count_a_line_once() {
        let error = text("server selection error: server selection timeout");
        check(
            &[("message", text("MongoDB connection failed")), ("error", error), ("caller", text("log/log.go:48"))],
            &[("decisionbox_mongodb_errors_total", &["decisionbox-api"], 1.0)],
        );
    }

    #[test]
    fn paths_lose_what_varies() {
        for (path, template) in [
            ("/api/v1/projects/69d0f3a1c2b4e5f60718293a/discover?x=1", "/api/v1/projects/{id}/discover"),
            ("/runs/42", "/runs/{id}"),
            ("/a/550e8400-e29b-41d4-a716-446655440000", "/a/{id}"),
            ("/health/ready", "/health/ready"),
            ("/feedback/deadbeef", "/feedback/deadbeef"),
            ("", ""),
        ] {
            assert_eq!(path_template(path), template);
        }
    }
}
