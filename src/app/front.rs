//! The front door as a part of the process: on a thread of its own, with what stands behind it.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::app::AppError;
use crate::config::front::Front;
use crate::front::FrontDoor;
use crate::runtime::certificate::Certificate;
use crate::runtime::listen::ListenerMetrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;

/// Opens the front door.
pub(super) fn start(
    config: Front,
    listener: std::net::TcpListener,
    certificate: Option<Arc<Certificate>>,
    metrics: ListenerMetrics,
    registry: &mut Registry,
    shutdown: &Shutdown,
    supervisor: &mut Supervisor,
) -> Result<(), AppError> {
    let address = config.listen;
    let door = FrontDoor::new(config, certificate, metrics, registry, shutdown.token())?;
    supervisor.spawn_thread("front", move || door.run(listener)).map_err(AppError::Runtime)?;
    tracing::info!(listen = %address, "the front door is open");
    Ok(())
}
