//! The documents of one collection that are new, and the rules that run on them.
//!
//! Reads exactly the fields that the rules name, with `_id` and the time; what a document holds besides never leaves
//! the server.

use std::sync::Arc;
use std::time::Duration;

use mongodb::Database;
use mongodb::bson::{Bson, DateTime, Document, RawDocumentBuf, doc};

use crate::collect::filter::{all, document, is_date};
use crate::collect::record::{DocumentRecord, id_hash, time_at};
use crate::collect::watermark::{Admission, Watermark};
use crate::config::collect::{Filter, TailCollector};
use crate::series::families::{DeclareError, Families};
use crate::series::rules::RuleSet;
use crate::store::mongodb::{StoreError, within};

/// How many new documents are taken at once: each such page is written down before it is exposed.
pub(super) const PAGE: usize = 1000;

/// One collection that is followed.
#[derive(Debug)]
pub(super) struct Tail {
    collection: String,
    time: String,
    filter: Filter,
    rules: RuleSet,
    projection: Document,
}

/// New documents, oldest first.
#[derive(Debug)]
pub(super) struct Page {
    documents: Vec<Unread>,
    /// There are no more of them.
    is_last: bool,
    /// The database's clock when it was read.
    now: i64,
}

#[derive(Debug)]
struct Unread {
    time: i64,
    id: u64,
    document: RawDocumentBuf,
}

/// What a page did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// It changed the watermark, so that there is something to write down.
    pub changed: bool,
    /// The window became shorter: there are more documents than can be remembered.
    pub shortened: bool,
    /// There are no more pages.
    pub is_last: bool,
}

// === impl Tail ===

impl Tail {
    /// Prepares the rules and declares what they feed.
    pub(super) fn new(config: &TailCollector, families: &mut Families) -> Result<Self, DeclareError> {
        let rules = RuleSet::compile(&config.rules, families)?;
        let projection = projection(rules.fields(), &config.time);
        Ok(Self { collection: config.collection.clone(), time: config.time.clone(), filter: config.filter.clone(), rules, projection })
    }

    /// The name under which its watermark is kept: by another time field the place would mean something else.
    pub(super) fn key(&self) -> String {
        format!("{}.{}", self.collection, self.time)
    }

    /// Reads the next documents that are not in the watermark.
    pub(super) async fn read(
        &self,
        database: &Database,
        watermark: Arc<Watermark>,
        from: i64,
        now: i64,
        limit: Duration,
    ) -> Result<Page, StoreError> {
        let window = doc! { &self.time: { "$gte": DateTime::from_millis(from), "$lte": DateTime::from_millis(watermark.until(now)) } };
        let filter = all([document(&self.filter, now), window].into_iter().chain(is_date(&self.time)));
        let (time, sort, projection) = (self.time.clone(), doc! { &self.time: 1 }, self.projection.clone());
        let collection = database.collection::<RawDocumentBuf>(&self.collection);
        // What has been read before may come first: so many and a page are enough to get on.
        let most = watermark.seen_from(from) + PAGE;
        within(limit, async move {
            let found = collection.find(filter).sort(sort).projection(projection);
            let found = found.limit(i64::try_from(most).unwrap_or(i64::MAX)).batch_size(1000).max_time(limit);
            let mut cursor = found.await?;
            let (mut documents, mut read) = (Vec::new(), 0);
            while documents.len() < PAGE && cursor.advance().await? {
                read += 1;
                let document = cursor.current();
                if let (Some(time), Some(id)) = (time_at(document, &time), id_hash(document))
                    && watermark.is_unread(time, id, now)
                {
                    documents.push(Unread { time, id, document: document.to_owned() });
                }
            }
            let is_last = read < most && documents.len() < PAGE;
            Ok(Page { documents, is_last, now })
        })
        .await
    }

    /// Runs the rules on a page, in copies of the families and the watermark.
    pub(super) fn take(&mut self, page: &Page, watermark: &mut Watermark, families: &mut Families) -> Taken {
        let was_noting_history = watermark.is_noting_history();
        let paths = self.rules.fields().to_vec();
        for Unread { time, id, document } in &page.documents {
            if watermark.admit(*time, *id, page.now) == Admission::New {
                self.rules.apply(&DocumentRecord { document, paths: &paths }, families);
            }
        }
        if page.is_last {
            watermark.complete();
        }
        let shortened = watermark.settle();
        Taken { changed: was_noting_history || !page.documents.is_empty(), shortened, is_last: page.is_last }
    }
}

// === impl Page ===

impl Page {
    /// The time of its last document: the next page goes on there.
    pub(super) fn end(&self) -> Option<i64> {
        self.documents.last().map(|unread| unread.time)
    }
}

/// The fields and nothing else. A path within another one is left out: the server refuses to be asked for both.
fn projection(fields: &[String], time: &str) -> Document {
    let mut paths: Vec<&str> = fields.iter().map(String::as_str).chain(["_id", time]).collect();
    paths.sort_unstable();
    paths.dedup();
    let is_within = |path: &str, other: &str| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
    paths.iter().filter(|path| !paths.iter().any(|other| is_within(path, other))).map(|path| ((*path).to_owned(), Bson::Int32(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Environment;
    use crate::config::{Request, load};

    fn names(tail: &Tail) -> Vec<&str> {
        tail.projection.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_profile_never_asks_for_prompts_responses_results_or_secrets() {
        let request = Request { profile: Some("decisionbox"), ..Request::default() };
        let config = load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).unwrap();
        let mut families = Families::default();
        let tails: Vec<Tail> = config.collect.tails.iter().map(|tail| Tail::new(tail, &mut families).unwrap()).collect();
        let asked: Vec<(&str, Vec<&str>)> = tails.iter().map(|tail| (tail.collection.as_str(), names(tail))).collect();
        let expected = [
            ("discovery_runs", vec!["_id", "completed_at", "error", "started_at", "status"]),
            ("discoveries", vec!["_id", "created_at", "run_type"]),
            (
                "discovery_debug_logs",
                vec![
                    "_id",
                    "claude_error",
                    "claude_input_tokens",
                    "claude_output_tokens",
                    "created_at",
                    "duration_ms",
                    "error",
                    "error_message",
                    "llm_error",
                    "llm_input_tokens",
                    "llm_output_tokens",
                    "log_type",
                    "operation",
                    "query_error",
                    "success",
                ],
            ),
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_path_within_another_is_not_asked_for_twice() {
        let fields = ["a.b".to_owned(), "a".to_owned(), "ab.c".to_owned(), "a.b.c".to_owned()];
        let found: Vec<String> = projection(&fields, "time").keys().cloned().collect();
        assert_eq!(found, ["_id", "a", "ab.c", "time"]);
    }
}
