//! Waiting for states: everything the demo waits for is asked again until it holds, never slept for.

use std::time::{Duration, Instant};

/// Between two looks: short against every interval that is waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until the answer is `Ok`, or gives the last refusal once `limit` is over.
pub async fn until<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Result<T, String>) -> Result<T, String> {
    let end = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= end => {
                return Err(format!("{seen} (for {} s)", limit.as_secs()));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
