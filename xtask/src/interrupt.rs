//! Ctrl-C: a demo or a benchmark ends at once, and says that nothing is left.
//!
//! Nothing has to be done for that. The threads that hold the namespaces end with this process, the kernel then kills
//! the resolvers and the guard, and frees devices, programs, pins and files along with the namespaces.

use std::{io::IsTerminal as _, process, thread};

use anyhow::{Context as _, Result};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// What a shell reports for a program that a signal ended: 128 and the signal's number.
const SIGNALLED: i32 = 128;

/// Ends this process on SIGINT, SIGTERM and SIGHUP; `what` it is.
pub(crate) fn watch(what: &'static str) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch for Ctrl-C")?;
    let mut signals = {
        let _inside = runtime.enter();
        let hear = |kind| signal(kind).context("cannot watch for Ctrl-C");
        [
            hear(SignalKind::interrupt())?,
            hear(SignalKind::terminate())?,
            hear(SignalKind::hangup())?,
        ]
    };
    thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            let kind = runtime.block_on(async {
                let [interrupt, terminate, hangup] = &mut signals;
                tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = hangup.recv() => SignalKind::hangup(),
                }
            });
            let start = if std::io::stderr().is_terminal() {
                "\r\x1b[K"
            } else {
                ""
            };
            eprintln!("{start}interrupted: resolvers, guard and network end with the {what}, nothing is left");
            process::exit(SIGNALLED + kind.as_raw_value());
        })
        .context("cannot watch for Ctrl-C")?;
    Ok(())
}
