//! How much each client asks, and all of them together: a rate, and what is being answered at the same time.
//!
//! The rates are kept by GCRA: for each client the one moment at which it would have asked for all that it may. Time is an
//! argument. The table is bounded: past the bound, clients that are new share one place in it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::config::front::limits::Limits;

/// How many clients are told apart at the same time: 10,000 take about a megabyte.
const MOST_CLIENTS: usize = 10_000;
/// How many seconds' worth of requests may come at once.
const BURST_SECONDS: u32 = 2;

/// Who asks, as far as limits tell it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ClientId {
    /// The holder of this key.
    Key(u16),
    /// Who bears tokens of this subject, by a number made of it.
    Subject(u64),
    /// Anybody at this address; of IPv6, in this network of a subscriber.
    Address(IpAddr),
    /// Everybody for whom there was no place.
    Crowd,
}

/// Why a request is not answered now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excess {
    /// This client has asked too often. When it may ask again.
    ClientRate(Duration),
    /// All together have.
    Rate(Duration),
    /// Too many requests of this client are being answered.
    ClientRequests,
    /// Too many requests are being answered.
    Requests,
}

/// What clients have asked.
#[derive(Debug)]
pub struct Clients {
    table: HashMap<ClientId, Client>,
    all: Client,
    rate: Rate,
    rate_per_client: Rate,
    requests: u32,
    requests_per_client: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    /// When everything that it has asked would have been asked at its rate, since the start.
    due: Duration,
    /// Requests of it that are being answered.
    open: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    /// From one request to the next.
    interval: Duration,
    /// How far ahead of its rate a client may be.
    burst: Duration,
}

// === impl ClientId ===

impl ClientId {
    /// The client at an address. A subscriber of IPv6 has a network of 64 bits and any number of addresses in it.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

// === impl Clients ===

impl Clients {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            table: HashMap::new(),
            all: Client::default(),
            rate: Rate::new(limits.rate),
            rate_per_client: Rate::new(limits.rate_per_client),
            requests: limits.requests,
            requests_per_client: limits.requests_per_client,
        }
    }

    /// Counts a request of a client in, until [`Clients::leave`]. The client that is to be named there.
    ///
    /// # Errors
    /// Why it cannot be answered now; then nothing is counted.
    pub fn enter(&mut self, id: ClientId, now: Duration) -> Result<ClientId, Excess> {
        let id = self.place(id, now);
        let client = self.table.entry(id).or_default();
        // What all may ask is looked at last, so that one client alone cannot use it up with what is refused.
        let due = self.rate_per_client.next(client.due, now).map_err(Excess::ClientRate)?;
        if client.open >= self.requests_per_client {
            return Err(Excess::ClientRequests);
        }
        if self.all.open >= self.requests {
            return Err(Excess::Requests);
        }
        self.all.due = self.rate.next(self.all.due, now).map_err(Excess::Rate)?;
        (client.due, client.open) = (due, client.open + 1);
        self.all.open += 1;
        Ok(id)
    }

    /// A request of a client has been answered.
    pub fn leave(&mut self, id: ClientId) {
        self.all.open = self.all.open.saturating_sub(1);
        if let Some(client) = self.table.get_mut(&id) {
            client.open = client.open.saturating_sub(1);
        }
    }

    /// The place of a client in the table.
    fn place(&mut self, id: ClientId, now: Duration) -> ClientId {
        // One place is kept for the crowd.
        if self.table.len() + 1 < MOST_CLIENTS || self.table.contains_key(&id) {
            return id;
        }
        self.table.retain(|_, client| client.open > 0 || client.due > now);
        if self.table.len() + 1 < MOST_CLIENTS { id } else { ClientId::Crowd }
    }
}

// === impl Rate ===

impl Rate {
    fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: interval * per_second.max(1) * BURST_SECONDS }
    }

    /// When everything would have been asked, with one more request at `now`.
    fn next(self, due: Duration, now: Duration) -> Result<Duration, Duration> {
        let due = due.max(now) + self.interval;
        let ahead = due.saturating_sub(now);
        if ahead > self.burst { Err(ahead.saturating_sub(self.burst)) } else { Ok(due) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClientId = ClientId::Key(1);
    const OTHER: ClientId = ClientId::Key(2);

    fn clients(rate: u32, rate_per_client: u32, requests: u32, requests_per_client: u32) -> Clients {
        let (body, content_types, uri, head, connections) = (0, Vec::new(), 0, 0, 0);
        Clients::new(&Limits { body, content_types, uri, head, rate_per_client, rate, requests_per_client, requests, connections })
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_client_may_ask_for_two_seconds_at_once_and_then_at_its_rate() {
        let mut clients = clients(1000, 10, 1000, 1000);
        assert_eq!((0..25).filter(|_| clients.enter(ONE, at(0)).is_ok()).count(), 20);
        assert_eq!(clients.enter(ONE, at(0)), Err(Excess::ClientRate(at(100))));
        assert_eq!(clients.enter(ONE, at(99)), Err(Excess::ClientRate(at(1))));
        assert!(clients.enter(ONE, at(100)).is_ok() && clients.enter(ONE, at(100)).is_err());
        assert!(clients.enter(OTHER, at(100)).is_ok(), "another has a rate of its own");
        assert_eq!((0..99).filter(|_| clients.enter(ONE, at(60_000)).is_ok()).count(), 20, "rest is not saved up");
    }

    #[test]
    fn all_together_have_a_rate_that_one_who_is_refused_does_not_use_up() {
        let mut clients = clients(10, 5, 1000, 1000);
        assert_eq!((0..1000).filter(|_| clients.enter(ONE, at(0)).is_ok()).count(), 10);
        assert_eq!((0..1000).filter(|_| clients.enter(OTHER, at(0)).is_ok()).count(), 10);
        assert_eq!(clients.enter(ClientId::Key(3), at(0)), Err(Excess::Rate(at(100))));
    }

    #[test]
    fn what_is_being_answered_at_the_same_time_is_bounded() {
        let mut clients = clients(1000, 1000, 3, 2);
        assert!(clients.enter(ONE, at(0)).is_ok() && clients.enter(ONE, at(0)).is_ok());
        assert_eq!(clients.enter(ONE, at(0)), Err(Excess::ClientRequests));
        assert!(clients.enter(OTHER, at(0)).is_ok());
        assert_eq!(clients.enter(OTHER, at(0)), Err(Excess::Requests));
        clients.leave(ONE);
        assert!(clients.enter(OTHER, at(0)).is_ok());
    }

    #[test]
    fn a_client_is_a_subscriber_and_the_table_is_bounded() {
        let id = |text: &str| ClientId::at(text.parse().unwrap());
        assert_eq!(id("2001:db8::1"), id("2001:db8::ffff:1"));
        assert_ne!(id("2001:db8::1"), id("2001:db8:0:1::1"));
        assert_eq!(id("::ffff:10.0.0.1"), id("10.0.0.1"));
        let mut clients = clients(1_000_000, 1, 100_000, 100);
        let address = |number: u32| ClientId::Address(IpAddr::V4(number.into()));
        for number in 0..20_000 {
            let placed = clients.enter(address(number), at(0));
            assert!(placed.is_ok() || number > 9_990, "{number}: {placed:?}");
            placed.into_iter().for_each(|id| clients.leave(id));
        }
        assert!(clients.table.len() <= MOST_CLIENTS, "{}", clients.table.len());
        assert_eq!(clients.enter(address(20_001), at(60_000)), Ok(address(20_001)), "those who ask nothing make room");
    }
}
