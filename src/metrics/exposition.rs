//! Which format a scraper gets, and the text itself.
//!
//! Owns the negotiation. Knows nothing of HTTP servers; compression is a layer of theirs.

use crate::metrics::Registry;
use crate::metrics::text::from_open_metrics;

/// A text format of the exposition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Prometheus text 0.0.4: what everything understands.
    Text,
    /// OpenMetrics 1.0.0: exemplars, created timestamps and units.
    OpenMetrics,
}

// === impl Format ===

impl Format {
    /// Chooses by the `Accept` header of a scrape: the listed type of the highest quality that we have, else text.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let mut best = (0.0_f32, Self::Text);
        for offer in accept.unwrap_or_default().split(',') {
            let mut parts = offer.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0_f32, None);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = Some(value),
                    _ => {}
                }
            }
            let format = match (media.to_ascii_lowercase().as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Self::OpenMetrics,
                ("text/plain", None | Some("0.0.4")) | ("*/*" | "text/*", _) => Self::Text,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// The `Content-Type` of this format. Prometheus 3 refuses an exposition without one that it knows.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes the registry in this format.
    ///
    /// # Errors
    /// When a collector refuses to write.
    pub fn write(self, registry: &Registry) -> Result<String, std::fmt::Error> {
        let open_metrics = registry.open_metrics()?;
        Ok(match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => from_open_metrics(&open_metrics),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn each_scraper_gets_what_it_prefers() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain;version=0.0.4"), Format::Text),
            (Some("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics),
            (Some("application/openmetrics-text;version=2.0.0"), Format::Text),
            (Some("text/plain;q=0.9, application/openmetrics-text;q=0.2"), Format::Text),
            (Some("application/json"), Format::Text),
            (Some(";;;=,q=x"), Format::Text),
            (Some(prometheus_2), Format::OpenMetrics),
            (Some(prometheus_3), Format::OpenMetrics),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept:?}");
        }
    }
}
