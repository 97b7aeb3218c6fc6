//! The connections that are open, and who must go when there are too many: the one that has been idle for the longest time.
//!
//! So those who connect and ask nothing, however many, push out each other, and a probe among them is answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::runtime::listen::pace::{Pace, Patience};

type ListenerLabel = [(&'static str, &'static str); 1];

/// The connections of all listeners, as they are exposed.
#[derive(Clone, Debug, Default)]
struct Families {
    open: Family<ListenerLabel, Gauge>,
    evicted: Family<ListenerLabel, Counter>,
}

/// The connections of one listener, counted.
#[derive(Clone, Debug, Default)]
pub struct ListenerMetrics {
    open: Gauge,
    evicted: Counter,
}

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    table: Mutex<Table>,
    /// Tells that a connection has ended or become idle.
    freed: Notify,
    /// How many may be open at once.
    most: usize,
    metrics: ListenerMetrics,
}

#[derive(Debug, Default)]
struct Table {
    /// By their numbers.
    open: BTreeMap<u64, Entry>,
    /// Counts what happens: the order of its numbers is that of time.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// When it was last opened or answered.
    idle_since: u64,
    /// Requests that are being answered.
    busy: u32,
    evicted: CancellationToken,
}

/// A connection that is open, for as long as this lives.
#[derive(Debug)]
pub(super) struct Connection(ConnectionState);

/// The place of a connection in the table.
#[derive(Clone, Debug)]
pub(super) struct ConnectionState {
    number: u64,
    connections: Arc<Connections>,
    pace: Arc<Pace>,
}

/// A request that is being answered, for as long as this lives.
#[derive(Debug)]
pub(super) struct Busy(ConnectionState);

// === impl ListenerMetrics ===

impl ListenerMetrics {
    /// Registers the connections of these listeners.
    pub fn register<const N: usize>(listeners: [&'static str; N], registry: &mut Registry) -> [Self; N] {
        let families = Families::default();
        let help = "Connections that are open";
        registry.register("bellwether_http_connections", help, families.open.clone());
        let help = "Connections that were closed because too many were open, and none had been idle for longer";
        registry.register("bellwether_http_connections_evicted", help, families.evicted.clone());
        listeners.map(|listener| Self {
            open: families.open.get_or_create_owned(&[("listener", listener)]),
            evicted: families.evicted.get_or_create_owned(&[("listener", listener)]),
        })
    }
}

// === impl Connections ===

impl Connections {
    pub fn new(most: usize, metrics: ListenerMetrics) -> Self {
        Self { table: Mutex::default(), freed: Notify::new(), most, metrics }
    }

    /// Finds room for a connection. Waits only where every single one is being answered at this moment.
    pub async fn admit(self: &Arc<Self>, patience: Patience) -> Connection {
        loop {
            if let Some(number) = self.try_admit() {
                let pace = Arc::new(Pace::new(patience));
                return Connection(ConnectionState { number, connections: Arc::clone(self), pace });
            }
            self.freed.notified().await;
        }
    }

    fn try_admit(&self) -> Option<u64> {
        let mut table = self.lock();
        if table.open.len() >= self.most {
            table.evict()?;
            self.metrics.evicted.inc();
        }
        let number = table.tick();
        table.open.insert(number, Entry { idle_since: number, busy: 0, evicted: CancellationToken::new() });
        self.show(&table);
        Some(number)
    }

    fn show(&self, table: &Table) {
        self.metrics.open.set(i64::try_from(table.open.len()).unwrap_or(i64::MAX));
    }

    /// Each update is a single step, so that a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Table ===

impl Table {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Closes the connection that has been idle for the longest time; `None` when all are busy.
    fn evict(&mut self) -> Option<()> {
        let idle = self.open.iter().filter(|(_, entry)| entry.busy == 0).map(|(number, entry)| (entry.idle_since, *number));
        let (_, number) = idle.min()?;
        self.open.remove(&number)?.evicted.cancel();
        Some(())
    }
}

// === impl Connection ===

impl Connection {
    /// Told when it must go.
    pub fn evicted(&self) -> CancellationToken {
        self.0.connections.lock().open.get(&self.0.number).map_or_else(cancelled, |entry| entry.evicted.clone())
    }

    /// Its place in the table.
    pub fn state(&self) -> ConnectionState {
        self.0.clone()
    }

    /// How fast its client goes.
    pub fn pace(&self) -> &Arc<Pace> {
        &self.0.pace
    }
}

fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

impl Drop for Connection {
    fn drop(&mut self) {
        let connections = &self.0.connections;
        let mut table = connections.lock();
        table.open.remove(&self.0.number);
        connections.show(&table);
        drop(table);
        connections.freed.notify_one();
    }
}

// === impl ConnectionState ===

impl ConnectionState {
    /// A request is being answered from now on. `is_shared` where others may be at the same time.
    pub fn busy(&self, is_shared: bool) -> Busy {
        self.pace.begins(is_shared);
        if let Some(entry) = self.connections.lock().open.get_mut(&self.number) {
            entry.busy += 1;
        }
        Busy(self.clone())
    }

    fn is_answered(&self) {
        self.pace.ends();
        let mut table = self.connections.lock();
        let now = table.tick();
        if let Some(entry) = table.open.get_mut(&self.number) {
            (entry.busy, entry.idle_since) = (entry.busy.saturating_sub(1), now);
        }
    }
}

// === impl Busy ===

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_answered();
        self.0.connections.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MOST: usize = 256;
    const PATIENCE: Patience = Patience { head: Duration::from_secs(5), idle: Duration::from_secs(5) };

    async fn full(connections: &Arc<Connections>) -> Vec<Connection> {
        let mut open = Vec::new();
        for _ in 0..MOST {
            open.push(connections.admit(PATIENCE).await);
        }
        open
    }

    #[tokio::test]
    async fn the_one_that_has_been_idle_for_the_longest_time_must_go() {
        let connections = Arc::new(Connections::new(MOST, ListenerMetrics::default()));
        let mut open = full(&connections).await;
        let evicted: Vec<CancellationToken> = open.iter().map(Connection::evicted).collect();
        // The first one asks and is answered, the second one is being answered.
        drop(open[0].state().busy(false));
        let busy = open[1].state().busy(false);
        let newest = connections.admit(PATIENCE).await;
        assert_eq!(evicted.iter().position(CancellationToken::is_cancelled), Some(2), "neither of them");
        assert_eq!(connections.lock().open.len(), MOST);
        assert!(open[2].evicted().is_cancelled() && !newest.evicted().is_cancelled());
        drop(busy);
        open.clear();
        assert_eq!((connections.lock().open.len(), connections.metrics.open.get(), connections.metrics.evicted.get()), (1, 1, 1));
    }

    #[tokio::test]
    async fn one_that_is_being_answered_never_goes() {
        let connections = Arc::new(Connections::new(MOST, ListenerMetrics::default()));
        let open = full(&connections).await;
        let mut busy: Vec<Busy> = open.iter().map(|connection| connection.state().busy(false)).collect();
        let (_, ()) = tokio::join!(connections.admit(PATIENCE), async { drop(busy.pop()) });
        let gone: Vec<usize> = (0..open.len()).filter(|number| open[*number].evicted().is_cancelled()).collect();
        assert_eq!(gone, [MOST - 1]);
    }
}
