//! A network between a check and its server that fails as it is told to: slow, silent, or refusing.
//!
//! Runs everywhere. What the other side sees is what a firewall that drops would show: connections stay open and nothing
//! arrives. `namespace` has the kernel do it where the system allows that.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the network behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Network {
    /// Everything arrives.
    Whole,
    /// Bytes are swallowed both ways, as by a firewall that drops.
    Silent,
    /// Connections are cut at once.
    Cut,
}

/// A network that runs.
pub struct Proxy {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    network: AtomicU8,
    /// What each direction waits before it passes bytes on.
    delay_millis: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A network to a server.
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared =
            Arc::new(Shared { network: AtomicU8::new(Network::Whole as u8), delay_millis: AtomicU64::new(0), open: Mutex::default() });
        let (server, all) = (server.to_owned(), Arc::clone(&shared));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if all.is(Network::Cut) {
                    continue;
                }
                // A silent network accepts nothing either; the listener's queue does, which to the client is the same.
                let Ok(server) = TcpStream::connect(&server) else { continue };
                all.open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                    let all = Arc::clone(&all);
                    std::thread::spawn(move || all.pass_on(from, to));
                }
            }
        });
        Self { address, shared }
    }

    /// Changes how the network behaves.
    pub fn becomes(&self, network: Network) {
        self.shared.network.store(network as u8, Ordering::SeqCst);
        if network == Network::Cut {
            for stream in self.shared.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Makes each direction slower.
    pub fn delays(&self, delay: Duration) {
        self.shared.delay_millis.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Shared {
    fn is(&self, network: Network) -> bool {
        self.network.load(Ordering::SeqCst) == network as u8
    }

    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            std::thread::sleep(Duration::from_millis(self.delay_millis.load(Ordering::SeqCst)));
            if !self.is(Network::Silent) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        if !self.is(Network::Silent) {
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}
