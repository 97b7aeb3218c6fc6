//! What a receiver has been told, kept over restarts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::notify::dispatch::kept::Kept;
use crate::series::snapshot::{Snapshots, WriteError};

/// The layout of what is written. Another one cannot be read.
const LAYOUT: u32 = 0x424e_0002;

/// The state of one receiver on the disk.
#[derive(Debug)]
pub(super) struct Store {
    receiver: String,
    /// `None` where nothing is to be kept.
    snapshots: Option<Snapshots>,
    /// The last write failed, which has been said.
    is_failing: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Written {
    layout: u32,
    kept: Kept,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

// === impl Store ===

impl Store {
    /// Takes over what an earlier process has kept in `folder`.
    pub(super) fn open(folder: Option<&Path>, receiver: &str) -> (Self, Kept) {
        let receiver = receiver.to_owned();
        let Some(folder) = folder else { return (Self { receiver, snapshots: None, is_failing: false }, Kept::default()) };
        let understand = |payload: &[u8]| postcard::from_bytes::<Written>(payload).ok().filter(|written| written.layout == LAYOUT);
        let (snapshots, found) = Snapshots::open(folder, &format!("notify-{receiver}"), understand);
        for (path, damage) in &found.damaged {
            tracing::warn!(path = %path.display(), %damage, "a state of notifications cannot be used; the one before it is, where there is one");
        }
        if found.state.is_none() && !found.damaged.is_empty() {
            tracing::warn!(receiver, "what the receiver has been told is lost; it is told of what fires again");
        }
        let kept = found.state.map(|written| written.kept).unwrap_or_default();
        (Self { receiver, snapshots: Some(snapshots), is_failing: false }, kept)
    }

    /// Writes it down and waits until it is on the disk. Where it is not, people are told nevertheless: a full disk must
    /// not keep anybody from hearing of it.
    pub(super) async fn write(&mut self, kept: Kept) {
        let Some(snapshots) = self.snapshots.take() else { return };
        let written = tokio::task::spawn_blocking(move || write(snapshots, kept)).await;
        let Ok((snapshots, result)) = written else { return };
        self.snapshots = Some(snapshots);
        let failure = result.err();
        if let Some(error) = failure.as_ref().filter(|_| !self.is_failing) {
            tracing::warn!(
                receiver = self.receiver,
                error,
                "what the receiver has been told is not kept; until it is, a restart may tell it twice"
            );
        } else if failure.is_none() && self.is_failing {
            tracing::info!(receiver = self.receiver, "what the receiver has been told is kept again");
        }
        self.is_failing = failure.is_some();
    }
}

fn write(mut snapshots: Snapshots, kept: Kept) -> (Snapshots, Result<(), Failed>) {
    let result = postcard::to_stdvec(&Written { layout: LAYOUT, kept })
        .map_err(Failed::from)
        .and_then(|payload| snapshots.write(&payload).map_err(|error: WriteError| Failed::from(error)))
        .map(|_| ());
    (snapshots, result)
}
