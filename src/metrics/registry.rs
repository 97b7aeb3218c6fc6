//! What is exposed: the metrics of prometheus-client, and families that are written by their owners.
//!
//! Owns the order in which they stand in an exposition. Knows nothing of what they mean.

use std::fmt;
use std::ops::{Deref, DerefMut};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry as ClientRegistry;

use crate::metrics::open_metrics::OpenMetrics;

/// An owner of families that writes them itself.
pub trait Source: fmt::Debug + Send + Sync {
    /// Appends whole families, each once in an exposition.
    fn write(&self, to: &mut OpenMetrics);
}

/// Everything that is exposed. Metrics of prometheus-client are registered as usual.
#[derive(Debug, Default)]
pub struct Registry {
    client: ClientRegistry,
    sources: Vec<Box<dyn Source>>,
}

// === impl Registry ===

impl Registry {
    /// Adds families that their owner writes.
    pub fn expose(&mut self, source: impl Source + 'static) {
        self.sources.push(Box::new(source));
    }

    /// Writes all of it as OpenMetrics 1.0.
    ///
    /// # Errors
    /// When a collector refuses to write.
    pub fn open_metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(64 * 1024);
        encode_registry(&mut text, &self.client)?;
        let mut written = OpenMetrics::default();
        self.sources.iter().for_each(|source| source.write(&mut written));
        text.push_str(&written.finish());
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Deref for Registry {
    type Target = ClientRegistry;

    fn deref(&self) -> &ClientRegistry {
        &self.client
    }
}

impl DerefMut for Registry {
    fn deref_mut(&mut self) -> &mut ClientRegistry {
        &mut self.client
    }
}
