//! What a receiver knows, as it is kept over a restart. Times are by the wall; read again, none lies in the future, so
//! that a clock that was set back makes nobody wait for more than one interval.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::config::notify::Policy;
use crate::notify::alert::Alert;
use crate::notify::dispatch::{Dispatch, Incident};
use crate::notify::message::GroupLabels;

/// What is kept of a receiver.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Kept {
    groups: Vec<KeptGroup>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct KeptGroup {
    labels: GroupLabels,
    last: Option<i64>,
    incidents: Vec<KeptIncident>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct KeptIncident {
    alert: Alert,
    is_told: bool,
    is_tried: bool,
    is_under_way: bool,
    is_inhibited: bool,
    since: i64,
    ended: Option<i64>,
    gone_at: Option<Timestamp>,
    refused: Option<i64>,
}

impl Dispatch {
    /// What is to be kept.
    #[must_use]
    pub fn kept(&self, now: Moment) -> Kept {
        let wall = |uptime: i64| now.wall - (now.uptime - uptime);
        let incident = |incident: &Incident| KeptIncident {
            alert: incident.alert.clone(),
            is_told: incident.is_told,
            is_tried: incident.is_tried,
            is_under_way: incident.is_under_way,
            is_inhibited: incident.is_inhibited,
            since: wall(incident.since),
            ended: incident.ended.map(wall),
            gone_at: incident.gone.map(|(_, at)| at),
            refused: incident.refused.map(wall),
        };
        let groups = self.groups.iter().map(|(labels, group)| KeptGroup {
            labels: labels.clone(),
            last: group.last.map(wall),
            incidents: group.incidents.values().map(incident).collect(),
        });
        Kept { groups: groups.collect() }
    }

    /// Goes on from what was kept.
    #[must_use]
    pub fn restore(policy: Policy, kept: Kept, now: Moment) -> Self {
        let uptime = |wall: i64| now.uptime - (now.wall - wall).max(0);
        let mut dispatch = Self::new(policy);
        for group in kept.groups {
            let into = dispatch.groups.entry(group.labels).or_default();
            into.last = group.last.map(uptime);
            for kept in group.incidents {
                let fingerprint = kept.alert.fingerprint();
                // Who was away cannot know how long something is gone: it is given the whole time.
                let gone = kept.gone_at.map(|at| (now.uptime, at));
                let (since, ended, refused) = (uptime(kept.since), kept.ended.map(uptime), kept.refused.map(uptime));
                let KeptIncident { alert, is_told, is_tried, is_under_way, is_inhibited, .. } = kept;
                // Its end may have been heard or not: it is said again, and where it has begun again, that is said.
                let is_told = is_told && !(is_under_way && ended.is_some());
                let is_under_way = false;
                into.incidents
                    .insert(fingerprint, Incident { alert, is_told, is_tried, is_under_way, is_inhibited, since, ended, gone, refused });
            }
        }
        dispatch
    }
}
