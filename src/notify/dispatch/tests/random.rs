//! Random stories against a model of what the receiver heard.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{MINUTE, SECOND, START, firing, policy, wall};
use crate::clock::Moment;
use crate::notify::alert::Alert;
use crate::notify::dispatch::Dispatch;
use crate::notify::dispatch::kept::Kept;
use crate::notify::outcome::{Outcome, Reason};

/// What happens next in a random story.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An alert begins or ends.
    Toggle(usize),
    /// So many seconds pass.
    Pass(i64),
    /// The receiver goes away or comes back.
    Receiver,
    /// The process ends in order and starts again; the wall has jumped by so many seconds.
    Restart(i64),
    /// The process is killed after a message was sent, before that is written down.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_usize).prop_map(Step::Toggle),
        6 => (1..900_i64).prop_map(Step::Pass),
        1 => Just(Step::Receiver),
        1 => (-5000..5000_i64).prop_map(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

/// Everything around a dispatch: what is, what was written down, and what arrived.
struct World {
    dispatch: Dispatch,
    written: Kept,
    now: i64,
    /// How far the wall is from the clock that never jumps.
    wall: i64,
    alerts: BTreeMap<usize, Alert>,
    is_away: bool,
    kill_next: bool,
    /// For each alert, what the receiver heard: `true` is that it fires; and whether a kill may have repeated it.
    heard: BTreeMap<u64, Vec<bool>>,
    /// What was in a message that did not arrive, and has to.
    owed: BTreeSet<u64>,
    kills: usize,
    repeated: usize,
}

impl World {
    fn new() -> Self {
        let (dispatch, written) = (Dispatch::new(policy()), Kept::default());
        let (alerts, heard, owed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { dispatch, written, now: 0, wall: START, alerts, is_away: false, kill_next: false, heard, owed, kills: 0, repeated: 0 }
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.wall + self.now, uptime: self.now }
    }

    fn restart(&mut self) {
        self.dispatch = Dispatch::restore(policy(), self.written.clone(), self.moment());
    }

    fn keep(&mut self) {
        if self.dispatch.take_changed() {
            self.written = self.dispatch.kept(self.moment());
        }
    }

    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SECOND;
            if self.now % (15 * SECOND) == 0 {
                let horizon = wall(self.now - 15 * MINUTE);
                let listed: Vec<Alert> =
                    self.alerts.values().filter(|alert| alert.ends_at.is_none_or(|end| end > horizon)).cloned().collect();
                self.dispatch.observe(&listed, &BTreeSet::new(), self.moment());
                self.keep();
            }
            let Some(message) = self.dispatch.next(self.now) else { continue };
            self.keep();
            if self.is_away {
                // An end may be taken back by a new begin; a begin that was tried is told.
                let is_begin = |alert: &&Alert| self.heard.get(&alert.fingerprint()).and_then(|heard| heard.last()) != Some(&true);
                self.owed.extend(message.news.iter().filter(is_begin).map(Alert::fingerprint));
                self.dispatch.settle(&message, Outcome::Later(Reason::Timeout, None), self.now, 7);
                continue;
            }
            for alert in &message.news {
                self.hear(alert);
            }
            if std::mem::take(&mut self.kill_next) {
                self.kills += 1;
                self.restart();
                continue;
            }
            self.dispatch.settle(&message, Outcome::Delivered, self.now, 7);
            self.keep();
        }
    }

    fn hear(&mut self, alert: &Alert) {
        let fingerprint = alert.fingerprint();
        let was_owed = self.owed.remove(&fingerprint);
        let heard = self.heard.entry(fingerprint).or_default();
        let knows = heard.last() == Some(&true);
        // An end without its begin tells of both, where the begin did not arrive.
        let is_repeated = if alert.is_firing() { knows } else { !knows && !was_owed };
        if is_repeated {
            self.repeated += 1;
        }
        heard.push(alert.is_firing());
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Pass(seconds) => self.pass(seconds),
            Step::Receiver => self.is_away = !self.is_away,
            Step::Kill => self.kill_next = true,
            Step::Restart(jump) => {
                self.keep();
                self.wall += jump * SECOND;
                self.restart();
            }
            Step::Toggle(number) => {
                let now = wall(self.now);
                let begin = firing(&number.to_string(), self.now);
                let alert = self.alerts.entry(number).or_insert_with(|| Alert { ends_at: Some(now), ..begin.clone() });
                if alert.is_firing() { alert.ends_at = Some(now) } else { *alert = begin }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever happens: no begin and no end is told twice but for a kill between sending and writing, an end only after
    /// its begin or for both, and in the end the receiver knows what is.
    #[test]
    fn in_random_stories_everything_is_told_once(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.is_away = false;
        world.kill_next = false;
        world.pass(3600);
        prop_assert!(world.repeated <= world.kills * 5, "{} repeated by {} kills", world.repeated, world.kills);
        prop_assert!(world.owed.is_empty(), "what was tried is told in the end: {:?}", world.owed);
        for alert in world.alerts.values() {
            let last = world.heard.get(&alert.fingerprint()).and_then(|heard| heard.last().copied()).unwrap_or(false);
            prop_assert_eq!(last, alert.is_firing(), "{:?} was heard of {:?}", alert, world.heard.get(&alert.fingerprint()));
        }
        prop_assert_eq!(world.dispatch.waiting(), 0);
    }
}
