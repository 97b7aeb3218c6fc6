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

/// How many connections a listener has at once. A kubelet, two Prometheus servers and a few people need about ten.
pub(super) const MAX_CONNECTIONS: usize = 256;

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
    /// When it was last opened or answered; `None` while a request is being answered.
    idle_since: Option<u64>,
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
    pub fn new(metrics: ListenerMetrics) -> Self {
        Self { table: Mutex::default(), freed: Notify::new(), metrics }
    }

    /// Finds room for a connection. Waits only where every single one is being answered at this moment.
    pub async fn admit(self: &Arc<Self>) -> Connection {
        loop {
            if let Some(number) = self.try_admit() {
                return Connection(ConnectionState { number, connections: Arc::clone(self) });
            }
            self.freed.notified().await;
        }
    }

    fn try_admit(&self) -> Option<u64> {
        let mut table = self.lock();
        if table.open.len() >= MAX_CONNECTIONS {
            table.evict()?;
            self.metrics.evicted.inc();
        }
        let number = table.tick();
        table.open.insert(number, Entry { idle_since: Some(number), evicted: CancellationToken::new() });
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
        let idle = self.open.iter().filter_map(|(number, entry)| Some((entry.idle_since?, *number)));
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
    /// A request is being answered from now on.
    pub fn busy(&self) -> Busy {
        self.becomes(false);
        Busy(self.clone())
    }

    fn becomes(&self, is_idle: bool) {
        let mut table = self.connections.lock();
        let now = table.tick();
        if let Some(entry) = table.open.get_mut(&self.number) {
            entry.idle_since = is_idle.then_some(now);
        }
    }
}

// === impl Busy ===

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.becomes(true);
        self.0.connections.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn full(connections: &Arc<Connections>) -> Vec<Connection> {
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            open.push(connections.admit().await);
        }
        open
    }

    #[tokio::test]
    async fn the_one_that_has_been_idle_for_the_longest_time_must_go() {
        let connections = Arc::new(Connections::new(ListenerMetrics::default()));
        let mut open = full(&connections).await;
        let evicted: Vec<CancellationToken> = open.iter().map(Connection::evicted).collect();
        // The first one asks and is answered, the second one is being answered.
        drop(open[0].state().busy());
        let busy = open[1].state().busy();
        let newest = connections.admit().await;
        assert_eq!(evicted.iter().position(CancellationToken::is_cancelled), Some(2), "neither of them");
        assert_eq!(connections.lock().open.len(), MAX_CONNECTIONS);
        assert!(open[2].evicted().is_cancelled() && !newest.evicted().is_cancelled());
        drop(busy);
        open.clear();
        assert_eq!((connections.lock().open.len(), connections.metrics.open.get(), connections.metrics.evicted.get()), (1, 1, 1));
    }

    #[tokio::test]
    async fn one_that_is_being_answered_never_goes() {
        let connections = Arc::new(Connections::new(ListenerMetrics::default()));
        let open = full(&connections).await;
        let mut busy: Vec<Busy> = open.iter().map(|connection| connection.state().busy()).collect();
        let (_, ()) = tokio::join!(connections.admit(), async { drop(busy.pop()) });
        let gone: Vec<usize> = (0..open.len()).filter(|number| open[*number].evicted().is_cancelled()).collect();
        assert_eq!(gone, [MAX_CONNECTIONS - 1]);
    }
}
