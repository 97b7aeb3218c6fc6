//! Rules of the configuration into rules that are ready to run. Pure.

use std::collections::BTreeMap;

use crate::config::rules::{Condition, DEFAULT_SERIES_LIMIT, Label, LabelSource, Mapping, Match, Metric, MetricKind, Rule, ValueSource};
use crate::series::families::{DeclareError, Families, SeriesId};
use crate::series::record::FieldId;
use crate::series::rules::label::{CompiledLabel, CompiledMapping};
use crate::series::rules::matching::{CompiledMatch, Needs};
use crate::series::rules::{Action, Choice, CompiledRule, CompiledValue, Dispatch, RuleSet};
use crate::series::texts::{Memo, Texts};

/// Combinations of label values up to this many are exposed as zero from the start; more would be noise.
const ZERO_SERIES: usize = 256;
/// How often the rules of logs have applied.
const HITS: &str = "bellwether_log_rule_hits_total";
/// The record's own time, whatever the dialect calls it.
const TIME: &str = "time";

// === impl RuleSet ===

impl RuleSet {
    /// Prepares rules and declares what they feed.
    ///
    /// # Errors
    /// When two rules feed one metric in different ways.
    pub fn compile(rules: &[Rule], families: &mut Families) -> Result<Self, DeclareError> {
        let mut set = Self::default();
        for rule in rules {
            set.add(rule, None, families)?;
        }
        set.choose_dispatch();
        Ok(set)
    }

    /// The same for lines of logs, which have a time of their own, and whose hits are counted by metric.
    ///
    /// # Errors
    /// When two rules feed one metric in different ways.
    pub fn for_logs(rules: &[Rule], families: &mut Families) -> Result<Self, DeclareError> {
        let mut set = Self::default();
        let is_open = |label: &Label| matches!(label.source, LabelSource::Field { mapping: Mapping::PathTemplate, .. });
        if rules.iter().any(|rule| rule.pair.is_some() || rule.absent_after.is_some() || rule.labels.iter().any(is_open)) {
            set.time = Some(set.field(TIME));
        }
        for rule in rules {
            set.add(rule, Some(HITS), families)?;
        }
        set.choose_dispatch();
        Ok(set)
    }

    /// The rules of logs that come in place of these. What both feed goes on with all its values; what is not fed any more
    /// leaves, and what has another form begins anew.
    ///
    /// # Errors
    /// When two rules feed one metric in different ways. Then the families are as they were.
    pub fn replaced(&self, rules: &[Rule], families: &mut Families) -> Result<Self, DeclareError> {
        let mut next = families.clone();
        next.doubt(&self.metrics);
        let set = Self::for_logs(rules, &mut next)?;
        next.retire_doubtful();
        let is_gone = |hits: &SeriesId| !set.rules.iter().any(|rule| rule.hits == Some(*hits));
        self.rules.iter().filter_map(|rule| rule.hits).filter(is_gone).for_each(|hits| next.forget(hits));
        *families = next;
        Ok(set)
    }

    fn add(&mut self, rule: &Rule, hits: Option<&str>, families: &mut Families) -> Result<(), DeclareError> {
        let mut names: Vec<&Label> = rule.labels.iter().collect();
        names.sort_by(|left, right| left.name.cmp(&right.name));
        let label_names: Vec<String> = names.iter().map(|label| label.name.clone()).collect();
        let family = families.declare(&rule.metric, &label_names)?;
        let hits = match hits {
            Some(name) => {
                let help = "How often the rules of a metric have applied".to_owned();
                let (name, kind) = (name.to_owned(), MetricKind::Counter);
                let metric = Metric { name, help, kind, buckets: Vec::new(), series_limit: DEFAULT_SERIES_LIMIT };
                let family = families.declare(&metric, &["metric".to_owned()])?;
                let series = families.series(family, &[&rule.metric.name]);
                families.begin(series);
                Some(series)
            }
            None => None,
        };
        let watch = match rule.absent_after {
            Some(after) => Some(families.declare_watch(rule.base(), millis(after))?),
            None => None,
        };
        let (mut matcher, mut action) = (self.compile_match(&rule.matcher), action(rule.metric.kind));
        if let Some(pair) = &rule.pair {
            let id = families.declare_pairs(&rule.metric.name, rule.base(), millis(pair.expire), pair.limit)?;
            let key: Vec<FieldId> = pair.key.iter().map(|field| self.field(field)).collect();
            let start = CompiledRule {
                metric: rule.metric.name.clone(),
                matcher: self.compile_match(&pair.start),
                rest: CompiledMatch::default(),
                action: Action::Start(id, key.clone()),
                family,
                value: None,
                labels: Vec::new(),
                table: Vec::new(),
                exemplar: Vec::new(),
                watch,
                hits,
            };
            self.rules.push(start);
            (matcher, action) = (self.compile_match(&pair.finish), Action::Finish(id, key));
        }
        let exemplar = rule.exemplar.iter().map(|label| (label.name.clone(), self.fields_of(&label.fields))).collect();
        let compiled = CompiledRule {
            metric: rule.metric.name.clone(),
            matcher,
            rest: CompiledMatch::default(),
            action,
            family,
            value: rule.value.as_ref().map(|value| self.compile_value(value)),
            labels: names.into_iter().map(|label| self.compile_label(label)).collect(),
            table: Vec::new(),
            exemplar,
            watch,
            hits,
        };
        self.rules.push(compiled.with_table(families));
        self.metrics.extend(rule.metrics());
        self.metrics.sort();
        self.metrics.dedup();
        Ok(())
    }

    pub(super) fn field(&mut self, path: &str) -> FieldId {
        if let Some(position) = self.fields.iter().position(|field| field == path) {
            return position;
        }
        self.fields.push(path.to_owned());
        self.fields.len() - 1
    }

    fn fields_of(&mut self, paths: &[String]) -> Vec<FieldId> {
        paths.iter().map(|path| self.field(path)).collect()
    }

    fn compile_match(&mut self, matcher: &Match) -> CompiledMatch {
        CompiledMatch {
            all: matcher.all.iter().map(|Condition { field, test }| (self.field(field), test.clone())).collect(),
            any: matcher.any.iter().map(|alternative| self.compile_match(alternative)).collect(),
            none: matcher.none.iter().map(|excluded| self.compile_match(excluded)).collect(),
        }
    }

    fn compile_value(&mut self, value: &ValueSource) -> CompiledValue {
        let fields = self.fields_of(&value.fields);
        CompiledValue { fields, unit: value.unit, since: value.since.as_ref().map(|field| self.field(field)) }
    }

    fn compile_label(&mut self, label: &Label) -> CompiledLabel {
        let name = label.name.clone();
        let (fields, mapping, otherwise) = match &label.source {
            LabelSource::Constant(text) => {
                let values = vec![text.clone()];
                return CompiledLabel { name, fields: Vec::new(), mapping: CompiledMapping::Constant, values };
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
            Mapping::Allow(allowed) => exact(allowed.iter().map(|text| (text, number(text)))),
            Mapping::Map(pairs) => exact(pairs.iter().map(|(text, to)| (text, number(to)))),
            Mapping::Classify(classes) => CompiledMapping::Classify(
                classes
                    .iter()
                    .map(|(class, words)| {
                        let finders = words.iter().map(|word| memchr::memmem::Finder::new(word.as_bytes()).into_owned()).collect();
                        (number(class), finders)
                    })
                    .collect(),
                Memo::default(),
            ),
            Mapping::PathTemplate => CompiledMapping::PathTemplate,
        };
        values.push(otherwise.clone());
        CompiledLabel { name, fields: self.fields_of(fields), mapping, values }
    }

    /// Finds the field whose exact value most rules ask for: those that ask for another value need not be looked at.
    fn choose_dispatch(&mut self) {
        let mut asked: BTreeMap<FieldId, usize> = BTreeMap::new();
        for (field, _) in self.rules.iter().flat_map(|rule| rule.matcher.exact()) {
            *asked.entry(field).or_default() += 1;
        }
        let best = asked.into_iter().max_by_key(|(field, count)| (*count, std::cmp::Reverse(*field)));
        let field = best.filter(|(_, count)| *count > 1).map(|(field, _)| field);
        let needs: Vec<Option<Needs>> = self.rules.iter().map(|rule| rule.matcher.needs(field)).collect();
        let mut by_value: Texts<Vec<Choice>> = Texts::default();
        for value in needs.iter().flatten().flat_map(|needs| &needs.values) {
            by_value.get_or_insert(value, Vec::new);
        }
        for (number, (rule, needs)) in self.rules.iter_mut().zip(&needs).enumerate() {
            let (values, present) = needs.as_ref().map_or_else(Default::default, |needs| (needs.values.clone(), needs.present.clone()));
            for value in &values {
                by_value.get_or_insert(value, Vec::new).push(Choice { rule: number, needs: Vec::new() });
            }
            // What only some values allow is not looked at for others.
            if values.is_empty() || !present.is_empty() {
                let choice = Choice { rule: number, needs: present };
                let chosen = |choices: &[Choice]| choices.last().is_some_and(|last| last.rule == number);
                by_value.values_mut().filter(|choices| !chosen(choices)).for_each(|choices| choices.push(choice.clone()));
                self.otherwise.push(choice);
            }
            rule.rest = match field {
                Some(field) if !values.is_empty() => rule.matcher.without_exact(field),
                _ => rule.matcher.clone(),
            };
        }
        self.dispatch = field.map(|field| Dispatch { field, by_value });
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    /// Exposes every combination of closed label values as zero, where they are not too many.
    fn with_table(mut self, families: &mut Families) -> Self {
        if self.labels.iter().any(CompiledLabel::is_open) {
            families.note_open_labels(self.family);
            return self;
        }
        let size = self.labels.iter().map(|label| label.values.len()).product();
        self.table = vec![None; size];
        if size <= ZERO_SERIES && !matches!(self.action, Action::Set) {
            for place in 0..size {
                let labels = self.labels_at(place);
                self.table[place] = Some(families.series(self.family, &labels));
            }
        }
        self
    }
}

fn exact<'a>(numbers: impl Iterator<Item = (&'a String, usize)>) -> CompiledMapping {
    let mut texts = Texts::default();
    for (text, number) in numbers {
        *texts.get_or_insert(text, || number) = number;
    }
    CompiledMapping::Exact(texts)
}

fn action(kind: MetricKind) -> Action {
    match kind {
        MetricKind::Counter => Action::Add,
        MetricKind::Gauge => Action::Set,
        MetricKind::Histogram => Action::Observe,
    }
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
