//! All collectors, and the one task that runs them: one question at a time, each with a deadline.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::collect::gauge::{Asking, Sample, label};
use crate::collect::metrics::{CollectMetrics, Failure};
use crate::collect::schedule::Beat;
use crate::collect::state::State;
use crate::collect::tail::Tail;
use crate::collect::watermark::Watermark;
use crate::config::collect::{Collect, GaugeCollector, Query};
use crate::config::stores::MongoStore;
use crate::metrics::Registry;
use crate::runtime::supervise::PartResult;
use crate::series::families::{DeclareError, Families, FamilyId, SeriesId, SharedFamilies};
use crate::store::mongodb::{Mongo, Purpose, Reason, StoreError};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How many pages of a tail are read before the other collectors have their turn: 20,000 documents.
const PAGES: usize = 20;

/// Collectors that are due so soon are read in the same round.
const TOGETHER: Duration = Duration::from_secs(1);

/// Collectors of a configuration that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Entries disagree on a metric.
    #[error("two collectors disagree")]
    Declare(#[from] DeclareError),
    /// A label is given as a constant and by the query.
    #[error("the collector {metric} has the label {label} twice: as a constant, and by its query")]
    Label {
        /// The metric.
        metric: String,
        /// The label.
        label: String,
    },
    /// A metric is a value as it is now, and counted from documents, too.
    #[error("the metric {0} is fed by a query and by a tail; give one of them another name")]
    TwoSources(String),
}

/// Everything that is read from the database.
#[derive(Debug)]
pub struct Collectors {
    mongo: Mongo,
    now: SharedFamilies,
    counted: SharedFamilies,
    collectors: Vec<Collector>,
    state: State,
    metrics: CollectMetrics,
    /// The server cannot be read, which has been said.
    outage: Option<Reason>,
}

#[derive(Debug)]
struct Collector {
    name: String,
    beat: Beat,
    source: Source,
    /// It fails although the server answers, which has been said.
    trouble: Option<Reason>,
}

#[derive(Debug)]
enum Source {
    Gauge(Gauge),
    Tail(Box<Tail>),
}

#[derive(Debug)]
struct Gauge {
    query: Query,
    family: FamilyId,
    /// The values of the labels in the order of their names; `None` is the one that the query gives.
    labels: Vec<Option<String>>,
    /// The series that are exposed.
    known: Vec<SeriesId>,
}

// === impl Collectors ===

impl Collectors {
    /// Prepares everything, takes over what an earlier process has kept in `state_dir`, and registers it. Nothing is
    /// connected yet.
    ///
    /// # Errors
    /// When entries of the configuration contradict each other.
    pub fn new(config: &Collect, store: &MongoStore, state_dir: Option<&Path>, registry: &mut Registry) -> Result<Self, CollectError> {
        let start = Instant::now();
        let (mut now, mut counted) = (Families::default(), Families::default());
        counted.set_now(Moment::read());
        let mut collectors = Vec::new();
        for (gauge, name) in config.gauges.iter().zip(names(&config.gauges)) {
            if config.tails.iter().flat_map(|tail| &tail.rules).any(|rule| rule.metric.name == gauge.metric.name) {
                return Err(CollectError::TwoSources(gauge.metric.name.clone()));
            }
            let source = Source::Gauge(Gauge::new(gauge, &mut now)?);
            collectors.push(Collector { name, beat: Beat::new(gauge.every, start), source, trouble: None });
        }
        let mut keys = Vec::new();
        for config in &config.tails {
            let tail = Tail::new(config, &mut counted)?;
            keys.push(tail.key());
            let (name, beat) = (format!("tail_{}", config.collection), Beat::new(config.every, start));
            collectors.push(Collector { name, beat, source: Source::Tail(Box::new(tail)), trouble: None });
        }
        let mut state = State::open(state_dir.filter(|_| !keys.is_empty()), &mut counted);
        state.retain(|key| keys.iter().any(|known| known == key));
        let metrics = CollectMetrics::register(registry);
        collectors.iter().for_each(|collector| metrics.announce(&collector.name));
        let (now, counted) = (SharedFamilies::new(now), SharedFamilies::new(counted));
        registry.expose(now.clone());
        registry.expose(counted.clone());
        Ok(Self { mongo: Mongo::new(store, Purpose::Collect), now, counted, collectors, state, metrics, outage: None })
    }

    /// The families that the collectors feed, for the sum of what went beyond their caps.
    #[must_use]
    pub fn families(&self) -> Vec<SharedFamilies> {
        vec![self.now.clone(), self.counted.clone()]
    }

    /// Reads on and on until `stop`.
    ///
    /// # Errors
    /// None: a database that is away is waited for.
    pub async fn run(mut self, stop: CancellationToken) -> PartResult {
        loop {
            let next = self.collectors.iter().map(|collector| collector.beat.due()).min();
            let Some(next) = next else {
                stop.cancelled().await;
                return Ok(());
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(next.into()) => {}
            }
            // What a round has begun may be left: a page is written down as a whole or not at all.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.round() => {}
            }
        }
    }

    async fn round(&mut self) {
        let (start, mut server) = (Instant::now(), self.mongo.server_time(LIMIT).await);
        let asked = start.elapsed();
        let measured = Instant::now();
        self.note_server(server.as_ref().err());
        for position in 0..self.collectors.len() {
            if self.collectors[position].beat.due() > start + TOGETHER {
                continue;
            }
            let begin = Instant::now();
            let error = match &server {
                Ok(now) => {
                    let since = i64::try_from(measured.elapsed().as_millis()).unwrap_or(i64::MAX);
                    self.read(position, now.saturating_add(since)).await.err()
                }
                Err(error) => {
                    let error = error.reason();
                    self.fail(position, error, asked);
                    continue;
                }
            };
            match error {
                None => self.succeed(position, begin.elapsed()),
                Some(error) => {
                    self.fail(position, error.reason(), begin.elapsed());
                    // One failure may be that collector's own; where the server is gone, the others need not wait.
                    if let Err(gone) = self.mongo.server_time(LIMIT).await {
                        self.note_server(Some(&gone));
                        server = Err(gone);
                    } else {
                        self.note_trouble(position, &error);
                    }
                }
            }
        }
    }

    async fn read(&mut self, position: usize, now: i64) -> Result<(), StoreError> {
        let database = self.mongo.database().await?;
        match &mut self.collectors[position].source {
            Source::Gauge(gauge) => {
                let samples = Asking { database, now, limit: LIMIT }.ask(&gauge.query).await?;
                gauge.publish(samples, &mut self.now.lock());
                Ok(())
            }
            Source::Tail(_) => self.follow(position, &database, now).await,
        }
    }

    /// Reads what is new, a page at a time. Each page is counted in a copy, written down, and only then exposed: what
    /// a scrape has seen is never taken back by a kill.
    async fn follow(&mut self, position: usize, database: &mongodb::Database, now: i64) -> Result<(), StoreError> {
        let Collector { name, source: Source::Tail(tail), .. } = &mut self.collectors[position] else { return Ok(()) };
        let key = tail.key();
        let mut watermark = self.state.watermarks.entry(key.clone()).or_insert_with(|| Watermark::begin(now)).clone();
        let mut from = watermark.from();
        for _ in 0..PAGES {
            let page = tail.read(database, Arc::new(watermark.clone()), from, now, LIMIT).await?;
            let mut families = self.counted.lock().clone();
            let taken = tail.take(&page, &mut watermark, &mut families);
            if taken.shortened {
                self.metrics.note(name, Failure::Crowded);
            }
            if taken.changed {
                self.state.watermarks.insert(key.clone(), watermark.clone());
                if !self.state.write(&families).await {
                    self.metrics.note(name, Failure::State);
                }
                *self.counted.lock() = families;
            }
            if taken.is_last {
                break;
            }
            from = page.end().unwrap_or(from).max(watermark.from());
        }
        Ok(())
    }

    fn succeed(&mut self, position: usize, took: Duration) {
        let collector = &mut self.collectors[position];
        collector.beat.succeeded(Instant::now(), took, fastrand::f64());
        self.metrics.succeeded(&collector.name, took);
        if collector.trouble.take().is_some() {
            tracing::info!(collector = collector.name, "the collector reads again");
        }
    }

    fn fail(&mut self, position: usize, reason: Reason, took: Duration) {
        let collector = &mut self.collectors[position];
        self.metrics.failed(&collector.name, Failure::Store(reason), took);
        let is_unknown = collector.beat.failed(Instant::now(), fastrand::f64());
        if is_unknown && let Source::Gauge(gauge) = &mut collector.source {
            gauge.withdraw(&mut self.now.lock());
        }
    }

    fn note_server(&mut self, error: Option<&StoreError>) {
        let reason = error.map(StoreError::reason);
        if let Some(error) = error.filter(|_| reason != self.outage) {
            tracing::warn!(%error, "cannot read from MongoDB; its values are withdrawn after 3 intervals and come back by themselves. Check that the server runs, and `stores.mongodb.uri`");
        } else if reason.is_none() && self.outage.is_some() {
            tracing::info!("MongoDB can be read again");
        }
        self.outage = reason;
    }

    fn note_trouble(&mut self, position: usize, error: &StoreError) {
        let collector = &mut self.collectors[position];
        let reason = error.reason();
        if collector.trouble != Some(reason) {
            let remedy = match reason {
                Reason::Auth => "grant the user the role `read` on the application's database",
                Reason::Timeout => "the query is slow on this database: an index on its fields helps, or a longer `every`",
                _ => "check its query",
            };
            tracing::warn!(collector = collector.name, %error, "the collector cannot read although MongoDB answers; {remedy}");
        }
        collector.trouble = Some(reason);
    }
}

/// The name of each collector: its metric, and its constant labels where several feed one metric.
fn names(gauges: &[GaugeCollector]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(gauges.len());
    for gauge in gauges {
        let is_shared = gauges.iter().filter(|other| other.metric.name == gauge.metric.name).count() > 1;
        let labels = gauge.labels.iter().filter(|_| is_shared).map(|(_, value)| value.as_str());
        let name = [gauge.metric.name.as_str()].into_iter().chain(labels).collect::<Vec<_>>().join("_");
        let same = names.iter().filter(|other| **other == name).count();
        names.push(if same == 0 { name } else { format!("{name}_{}", same + 1) });
    }
    names
}

// === impl Gauge ===

impl Gauge {
    fn new(config: &GaugeCollector, families: &mut Families) -> Result<Self, CollectError> {
        let constant = config.labels.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
        let mut labels: Vec<(String, Option<String>)> = constant.chain(label(&config.query).map(|name| (name.to_owned(), None))).collect();
        labels.sort();
        if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(CollectError::Label { metric: config.metric.name.clone(), label: pair[0].0.clone() });
        }
        let (names, labels): (Vec<String>, _) = labels.into_iter().unzip();
        let family = families.declare(&config.metric, &names)?;
        Ok(Self { query: config.query.clone(), family, labels, known: Vec::new() })
    }

    /// Exposes the samples, and only them: a value that is gone is gone.
    fn publish(&mut self, samples: Vec<Sample>, families: &mut Families) {
        let mut known = Vec::with_capacity(samples.len());
        for (own, value) in samples {
            let own = own.unwrap_or_default();
            let labels: Vec<&str> = self.labels.iter().map(|label| label.as_deref().unwrap_or(&own)).collect();
            let series = families.series(self.family, &labels);
            families.set(series, value);
            known.push(series);
        }
        self.known.iter().filter(|series| !known.contains(series)).for_each(|series| families.forget(*series));
        self.known = known;
    }

    fn withdraw(&mut self, families: &mut Families) {
        self.known.drain(..).for_each(|series| families.forget(series));
    }
}
