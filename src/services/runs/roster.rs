//! The agents that are looked after: of which run and project, and where each is on its way. Pure: what an agent is made of,
//! and how it is looked at, is the matter of whoever keeps the list.

use std::collections::BTreeMap;
use std::time::Instant;

use mongodb::bson::oid::ObjectId;

use crate::services::runs::run::{Ending, Event, Phase};

/// The agents, by their runs.
#[derive(Debug)]
pub(super) struct Roster<Work> {
    most: usize,
    agents: BTreeMap<ObjectId, Agent<Work>>,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Agent<Work> {
    pub project: String,
    pub phase: Phase,
    /// Somebody wants it to end.
    pub cancelled: bool,
    /// How it ended, once that is known.
    pub ending: Option<Ending>,
    /// When its run is tried again to be written down.
    not_before: Option<Instant>,
    /// What it is made of.
    pub work: Work,
}

/// Why there is no room for an agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoRoom {
    /// As many as may run here do.
    Full,
    /// The project has one.
    Busy(ObjectId),
    /// The project may have one in a moment.
    Starting,
    /// The project's last one has ended, and is being written down.
    Ending,
}

/// An agent that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub run: ObjectId,
    pub project: String,
    pub cancelled: bool,
    pub ending: Ending,
    pub last_error: Option<String>,
}

// === impl Roster ===

impl<Work> Roster<Work> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, agents: BTreeMap::new() }
    }

    /// Makes room for an agent.
    pub(super) fn reserve(&mut self, run: ObjectId, project: &str, work: Work) -> Result<(), NoRoom> {
        if let Some((other, agent)) = self.agents.iter().find(|(_, agent)| agent.project == project) {
            return Err(match agent.phase {
                Phase::Starting => NoRoom::Starting,
                Phase::Ended => NoRoom::Ending,
                Phase::Live | Phase::Stopping => NoRoom::Busy(*other),
            });
        }
        if self.agents.len() >= self.most {
            return Err(NoRoom::Full);
        }
        self.insert(run, Agent::new(project, work));
        Ok(())
    }

    /// Takes one over that was found, whether there is room or not.
    pub(super) fn insert(&mut self, run: ObjectId, agent: Agent<Work>) {
        self.agents.insert(run, agent);
    }

    /// Its run was never begun, or is written down.
    pub(super) fn remove(&mut self, run: ObjectId) -> Option<Agent<Work>> {
        self.agents.remove(&run)
    }

    pub(super) fn get_mut(&mut self, run: ObjectId) -> Option<&mut Agent<Work>> {
        self.agents.get_mut(&run)
    }

    /// Whether a run is here, in whatever phase.
    pub(super) fn has(&self, run: ObjectId) -> bool {
        self.agents.contains_key(&run)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ObjectId, &Agent<Work>)> {
        self.agents.iter().map(|(run, agent)| (*run, agent))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ObjectId, &mut Agent<Work>)> {
        self.agents.iter_mut().map(|(run, agent)| (*run, agent))
    }

    /// All runs, with their projects and phases.
    pub(super) fn all(&self) -> Vec<(ObjectId, String, Phase)> {
        self.iter().map(|(run, agent)| (run, agent.project.clone(), agent.phase)).collect()
    }

    /// How many have not ended.
    pub(super) fn live(&self) -> usize {
        self.agents.values().filter(|agent| agent.phase != Phase::Ended).count()
    }

    /// Those that have ended, and whose time to be written down has come.
    pub(super) fn ended(&self, now: Instant, last_error: impl Fn(&Work) -> Option<String>) -> Vec<Ended> {
        let is_due = |agent: &Agent<Work>| agent.phase == Phase::Ended && agent.not_before.is_none_or(|time| time <= now);
        let ended = self.iter().filter(|(_, agent)| is_due(agent)).map(|(run, agent)| Ended {
            run,
            project: agent.project.clone(),
            cancelled: agent.cancelled,
            ending: agent.ending.clone().unwrap_or_else(Ending::unknown),
            last_error: last_error(&agent.work),
        });
        ended.collect()
    }

    /// Tries to write one down again later.
    pub(super) fn postpone(&mut self, run: ObjectId, until: Instant) {
        if let Some(agent) = self.agents.get_mut(&run) {
            agent.not_before = Some(until);
        }
    }
}

// === impl Agent ===

impl<Work> Agent<Work> {
    /// One that is being started.
    pub(super) fn new(project: &str, work: Work) -> Self {
        Self { project: project.to_owned(), phase: Phase::Starting, cancelled: false, ending: None, not_before: None, work }
    }

    /// Goes on where that is possible.
    pub(super) fn happened(&mut self, event: Event) {
        if let Some(phase) = self.phase.after(event) {
            self.phase = phase;
        }
    }

    /// It is no more.
    pub(super) fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        self.happened(Event::Exited);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(number: u8) -> ObjectId {
        ObjectId::from_bytes([number; 12])
    }

    #[test]
    fn a_project_has_one_agent_and_all_have_so_many() {
        let mut roster = Roster::new(2);
        roster.reserve(run(1), "a", ()).expect("there is room");
        assert_eq!(roster.reserve(run(2), "a", ()), Err(NoRoom::Starting));
        roster.get_mut(run(1)).expect("it is here").happened(Event::Started);
        assert_eq!(roster.reserve(run(2), "a", ()), Err(NoRoom::Busy(run(1))));
        roster.reserve(run(3), "b", ()).expect("there is room");
        assert_eq!(roster.reserve(run(4), "c", ()), Err(NoRoom::Full));
        roster.insert(run(5), Agent::new("d", ()));
        assert_eq!((roster.live(), roster.has(run(5))), (3, true));
        roster.get_mut(run(1)).expect("it is here").end(Ending::unknown());
        assert_eq!((roster.reserve(run(2), "a", ()), roster.live()), (Err(NoRoom::Ending), 2));
        drop(roster.remove(run(1)));
        drop(roster.remove(run(5)));
        roster.reserve(run(2), "a", ()).expect("there is room again");
    }

    #[test]
    fn what_has_ended_is_told_until_it_is_removed_and_not_while_it_is_postponed() {
        let (mut roster, now) = (Roster::new(9), Instant::now());
        roster.reserve(run(1), "a", "its last words").expect("there is room");
        let told = |roster: &Roster<&str>, now| roster.ended(now, |work| Some((*work).to_owned()));
        assert!(told(&roster, now).is_empty());
        roster.get_mut(run(1)).expect("it is here").end(Ending::unknown());
        let ended = told(&roster, now);
        assert_eq!((ended.len(), ended[0].last_error.as_deref()), (1, Some("its last words")));
        roster.postpone(run(1), now + Duration::from_secs(2));
        assert!(told(&roster, now).is_empty());
        assert_eq!(told(&roster, now + Duration::from_secs(2)).len(), 1);
    }
}
