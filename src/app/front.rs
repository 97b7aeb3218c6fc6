//! The front door as a part of the process: on a thread of its own, with what stands behind it.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::app::AppError;
use crate::app::notify::host_name;
use crate::config::front::Front;
use crate::front::{Embedded, FrontDoor};
use crate::runtime::certificate::Certificate;
use crate::runtime::listen::ListenerMetrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;

/// Where it listens.
pub(super) struct Threshold {
    pub socket: std::net::TcpListener,
    pub certificate: Option<Arc<Certificate>>,
    pub metrics: ListenerMetrics,
}

/// Opens the front door.
pub(super) fn start(
    config: Front,
    embedded: &Embedded,
    threshold: Threshold,
    registry: &mut Registry,
    shutdown: &Shutdown,
    supervisor: &mut Supervisor,
) -> Result<(), AppError> {
    let address = config.listen;
    let Threshold { socket, certificate, metrics } = threshold;
    let door = FrontDoor::new(config, host_name(), embedded, certificate, metrics, registry, shutdown.token())?;
    supervisor.spawn_thread("front", move || door.run(socket)).map_err(AppError::Runtime)?;
    tracing::info!(listen = %address, "the front door is open");
    Ok(())
}
