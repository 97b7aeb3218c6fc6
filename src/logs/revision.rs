//! Rules that change while lines are read: each thread takes the new ones over between two lines.
//!
//! Families only grow, so what an old rule still counts while the new ones are being taken over goes where it went before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::logs::Logs;
use crate::logs::decoder::Decoder;
use crate::logs::engine::decoder;
use crate::logs::state::Shared;
use crate::series::families::DeclareError;
use crate::series::rules::RuleSet;

/// Which rules a thread runs: those of the start, or so many revisions later.
pub type Edition = u64;

/// The rules as they are now.
#[derive(Debug, Default)]
pub struct Current {
    edition: AtomicU64,
    /// What decodes lines for them; `None` while they are those of the start.
    decoder: Mutex<Option<Decoder>>,
}

/// Changes the rules of an engine that runs.
#[derive(Clone, Debug)]
pub struct Revision {
    shared: Arc<Shared>,
    rules: RuleSet,
    max_line: usize,
}

/// What a revision has done, by the names of metrics.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Revised {
    /// These are new.
    pub added: Vec<String>,
    /// These are gone.
    pub removed: Vec<String>,
}

// === impl Current ===

impl Current {
    /// The rules, where they are others than those of an edition, which becomes theirs.
    pub fn newer_than(&self, edition: &mut Edition) -> Option<Decoder> {
        let now = self.edition.load(Ordering::Acquire);
        if now == *edition {
            return None;
        }
        *edition = now;
        self.decoder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, decoder: Decoder) {
        *self.decoder.lock().unwrap_or_else(PoisonError::into_inner) = Some(decoder);
        self.edition.fetch_add(1, Ordering::Release);
    }
}

// === impl Revision ===

impl Revision {
    /// Of an engine with these rules.
    pub(super) fn new(shared: Arc<Shared>, rules: RuleSet, max_line: usize) -> Self {
        Self { shared, rules, max_line }
    }

    /// Replaces all rules by those of a configuration; its inputs and limits are read at a start only. Values of what
    /// stays go on, and the state is kept at once, so that a crash does not count the same lines by other rules.
    ///
    /// # Errors
    /// When two rules feed one metric in different ways, or one a metric of the engine itself. Then nothing changes.
    pub fn revise(&mut self, config: &Logs) -> Result<Revised, DeclareError> {
        let mut families = self.shared.families.lock();
        let rules = self.rules.replaced(&config.rules, &mut families)?;
        self.shared.rules.set(decoder(rules.clone(), self.max_line, config.validation));
        drop(families);
        self.shared.save_now();
        let but = |these: &RuleSet, those: &RuleSet| {
            let only = these.metrics().iter().filter(|metric| !those.metrics().contains(metric));
            only.cloned().collect()
        };
        let revised = Revised { added: but(&rules, &self.rules), removed: but(&self.rules, &rules) };
        self.rules = rules;
        Ok(revised)
    }
}
