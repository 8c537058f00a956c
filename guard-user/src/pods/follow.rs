//! The thread that keeps the directory: it asks the runtime again and again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::{Directory, Known, Shared, Sockets, VALID, runtime::Runtime, ways::Ways};
use crate::privileges;

/// Between two questions, where nobody is waiting: pods come and go, and addresses are given to others.
const STEADY: Duration = Duration::from_secs(5);
/// The least time between two, where somebody wants an address that is new.
const EAGER: Duration = Duration::from_secs(1);
/// How long one round may take, all its answers together. What has come by then is kept.
const ROUND: Duration = Duration::from_secs(10);
/// After an attempt that failed, and doubled from then on up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

/// Asks as long as the process lives.
pub(super) fn follow(shared: &Arc<Shared>, sockets: Sockets) {
    privileges::give_up();
    let inside = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match inside {
        Ok(inside) => inside.block_on(rounds(shared, Runtime::new(sockets))),
        Err(error) => warn!("pods are not named: {error}; the guard goes on and shows addresses"),
    }
}

async fn rounds(shared: &Shared, mut runtime: Runtime) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        match timeout(ROUND, round(&mut runtime)).await {
            Ok(Ok(directory)) => {
                if failures > 0 {
                    info!(
                        "the container runtime answers again: {} pods are named",
                        directory.len()
                    );
                }
                failures = 0;
                shared.publish(directory, began);
                tokio::select! {
                    () = sleep(STEADY) => {}
                    () = shared.wanted.notified() => sleep_until((began + EAGER).into()).await,
                }
            }
            Ok(Err(error)) => {
                retry(shared, &mut failures, error).await;
            }
            Err(_) => {
                let error = format!("the container runtime took more than {} s", ROUND.as_secs());
                retry(shared, &mut failures, error).await;
            }
        }
    }
}

/// What there is now.
async fn round(runtime: &mut Runtime) -> Result<Directory, String> {
    let sandboxes = runtime.sandboxes().await.map_err(|error| error.to_string())?;
    let ways = Ways::look()
        .inspect_err(|error| debug!("the interfaces of pods are not known: {error}"))
        .ok();
    Ok(Directory::new(sandboxes.map(|sandbox| Known {
        pod: sandbox.pod.clone(),
        addresses: sandbox.addresses.clone(),
        devices: ways.as_ref().map(|ways| ways.to(sandbox)).unwrap_or_default(),
    })))
}

/// Tells of the first failure in a row, and waits.
async fn retry(shared: &Shared, failures: &mut u32, error: String) {
    if *failures == 0 {
        warn!("pods are shown as addresses within {} s: {error}", VALID.as_secs());
    }
    shared.fail(error);
    sleep(RETRY.0.saturating_mul(1 << (*failures).min(3)).min(RETRY.1)).await;
    *failures = failures.saturating_add(1);
}
