//! What the tails have counted and how far they have read, kept over restarts as one thing.
//!
//! Values and watermarks are written together: after kill -9 at any moment either both tell of a document or neither
//! does, so no document is lost or counted twice.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::collect::watermark::Watermark;
use crate::series::families::{Families, FamiliesState};
use crate::series::snapshot::{Snapshots, WriteError};

/// The layout of [`Kept`]. Another one cannot be read.
const LAYOUT: u32 = 0x4257_0002;
/// The name of the files.
const NAME: &str = "collect";

/// How far each tail has read, and where that is kept.
#[derive(Debug)]
pub(super) struct State {
    /// By the tail's key.
    pub watermarks: BTreeMap<String, Watermark>,
    /// `None` where nothing is to be kept.
    snapshots: Option<Snapshots>,
    /// The last write failed, which has been said.
    is_failing: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    layout: u32,
    watermarks: BTreeMap<String, Watermark>,
    families: FamiliesState,
}

// === impl State ===

impl State {
    /// Takes over what an earlier process has kept in `folder`.
    pub(super) fn open(folder: Option<&Path>, families: &mut Families) -> Self {
        let Some(folder) = folder else { return Self { watermarks: BTreeMap::new(), snapshots: None, is_failing: false } };
        let (snapshots, found) =
            Snapshots::open(folder, NAME, |payload| postcard::from_bytes::<Kept>(payload).ok().filter(|kept| kept.layout == LAYOUT));
        for (path, damage) in &found.damaged {
            tracing::warn!(path = %path.display(), %damage, "a state of the collectors cannot be used; the one before it is, where there is one");
        }
        if found.state.is_none() && !found.damaged.is_empty() {
            tracing::warn!("the state of the collectors is lost; their counters start at 0");
        }
        let mut watermarks = BTreeMap::new();
        if let Some(kept) = found.state {
            watermarks = kept.watermarks;
            for metric in families.restore(kept.families) {
                tracing::warn!(metric, "its labels or buckets have changed; it starts at 0");
            }
        }
        Self { watermarks, snapshots: Some(snapshots), is_failing: false }
    }

    /// Forgets the places of tails that are no longer configured: their counters are gone, too.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.watermarks.retain(|key, _| is_known(key));
    }

    /// Writes everything down and waits until it is on the disk. Returns whether it is.
    ///
    /// Where it is not, the values are exposed nevertheless, for they are true, and a full disk must not blind every
    /// alert. The price: after a kill they go on from what was written last, and are right again when the documents
    /// since then have been read again.
    pub(super) async fn write(&mut self, families: &Families) -> bool {
        let Some(snapshots) = self.snapshots.take() else { return true };
        let kept = Kept { layout: LAYOUT, watermarks: self.watermarks.clone(), families: families.state() };
        let written = tokio::task::spawn_blocking(move || write(snapshots, &kept)).await;
        let Ok((snapshots, result)) = written else { return false };
        self.snapshots = Some(snapshots);
        let failure = result.err();
        if let Some(error) = failure.as_ref().filter(|_| !self.is_failing) {
            tracing::warn!(error, "the state of the collectors is not kept; until it is, a restart makes counters go back for a while");
        } else if failure.is_none() && self.is_failing {
            tracing::info!("the state of the collectors is kept again");
        }
        self.is_failing = failure.is_some();
        failure.is_none()
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn write(mut snapshots: Snapshots, kept: &Kept) -> (Snapshots, Result<(), Failed>) {
    let result = postcard::to_stdvec(kept)
        .map_err(Failed::from)
        .and_then(|payload| snapshots.write(&payload).map_err(|error: WriteError| Failed::from(error)))
        .map(|_| ());
    (snapshots, result)
}
