//! Ctrl-C: a demo or a benchmark ends at once, and says that nothing is left; a soak shows what it has so far.
//!
//! Nothing has to be done for that. The threads that hold the namespaces end with this process, the kernel then kills
//! the resolvers and the guard, and frees devices, programs, pins and files along with the namespaces.

use std::{
    io::IsTerminal as _,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// What a shell reports for a program that a signal ended: 128 and the signal's number.
const SIGNALLED: i32 = 128;

/// Ends this process on SIGINT, SIGTERM and SIGHUP; `what` it is.
pub(crate) fn watch(what: &'static str) -> Result<()> {
    hear(move |kind, _| leave(what, kind))
}

/// Is set by the first of SIGINT, SIGTERM and SIGHUP; the second one ends this process; `what` it is.
pub(crate) fn asked(what: &'static str) -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&asked);
    hear(move |kind, number| {
        if number > 1 {
            leave(what, kind);
        }
        set.store(true, Ordering::Relaxed);
        eprintln!("{}the {what} ends early; once more ends it at once", start_of_line());
    })?;
    Ok(asked)
}

/// Hands on each signal that asks for an end, and which one it is, from 1 on.
fn hear(mut hand_on: impl FnMut(SignalKind, u32) + Send + 'static) -> Result<()> {
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
            for number in 1.. {
                let kind = runtime.block_on(async {
                    let [interrupt, terminate, hangup] = &mut signals;
                    tokio::select! {
                        _ = interrupt.recv() => SignalKind::interrupt(),
                        _ = terminate.recv() => SignalKind::terminate(),
                        _ = hangup.recv() => SignalKind::hangup(),
                    }
                });
                hand_on(kind, number);
            }
        })
        .context("cannot watch for Ctrl-C")?;
    Ok(())
}

fn leave(what: &str, kind: SignalKind) {
    let start = start_of_line();
    eprintln!("{start}interrupted: resolvers, guard and network end with the {what}, nothing is left");
    process::exit(SIGNALLED + kind.as_raw_value());
}

/// Takes away what stands on the line of a terminal.
fn start_of_line() -> &'static str {
    if std::io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    }
}
