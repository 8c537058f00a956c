//! The live screen: once a second it asks the agent, and at once it does what a key says.
//!
//! The agent is asked in a thread of its own: one that is slow to answer does not keep keys from working.

use std::{
    env, io,
    os::fd::AsFd as _,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender, TryRecvError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use super::{
    screen::{self, Theme},
    state::State,
};
use crate::{control::client::ClientError, exit, view::View};

/// Between two questions to the agent.
const REFRESH: Duration = Duration::from_secs(1);
/// How long keys are waited for before signals and answers are looked at.
const POLL: Duration = Duration::from_millis(50);

type Answer = Result<View, String>;

/// Shows this view, and what comes after it, until somebody leaves or a signal ends it.
///
/// # Errors
///
/// The terminal cannot be used.
pub(super) fn run(first: View, ask: impl FnMut() -> Result<View, ClientError> + Send + 'static) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        flag::register(signal, Arc::clone(&stop)).context("cannot wait for signals")?;
    }
    let (answers, inbox) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("ask".to_owned())
        .spawn(move || keep_asking(ask, &answers))
        .context("cannot start a thread")?;
    let stopped = Arc::clone(&stop);
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(move || end_if_stuck(&stopped))
        .context("cannot start a thread")?;
    let mut state = State::default();
    state.on_answer(Ok(first));
    let theme = Theme::new(env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    // A panic restores the terminal as well.
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = work(&mut terminal, &mut state, theme, &inbox, &stop);
    let restored = ratatui::try_restore();
    shown?;
    restored.context("cannot restore the terminal; `reset` does")
}

fn work(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    theme: Theme,
    inbox: &Receiver<Answer>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    while !state.is_over() && !stop.load(Ordering::Relaxed) {
        let size: ratatui::layout::Rect = (ratatui::layout::Position::ORIGIN, terminal.size()?).into();
        state.on_room(screen::room(size, state));
        terminal.draw(|frame| screen::draw(frame, state, theme))?;
        wait(state, inbox, stop)?;
    }
    Ok(())
}

/// Waits for something that changes what is shown.
fn wait(state: &mut State, inbox: &Receiver<Answer>, stop: &AtomicBool) -> anyhow::Result<()> {
    loop {
        match inbox.try_recv() {
            Ok(answer) => {
                state.on_answer(answer);
                return Ok(());
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => bail!("the thread that asks the agent has ended"),
        }
        // crossterm reads on and on from a terminal that is gone: it is asked only where there is one.
        let input = io::stdin();
        let mut waits = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let milliseconds = POLL.as_millis() as u8;
        match poll(&mut waits, milliseconds) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        if waits[0].revents().is_some_and(|events| events.intersects(gone)) {
            bail!("the terminal is gone");
        }
        // What changes the size of the window comes by a signal, and not by the terminal.
        if event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()? {
                state.on_key(key);
            }
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// Ends the process a second after it was told to, if it is still there then: a terminal that goes away at the wrong moment
/// must not leave something behind that reads from it for ever.
fn end_if_stuck(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(4 * POLL);
    }
    thread::sleep(REFRESH);
    // There may be no terminal to restore any more.
    let _ = ratatui::try_restore();
    process::exit(exit::FAILED.into());
}

/// Asks until nobody wants to know any more.
fn keep_asking(mut ask: impl FnMut() -> Result<View, ClientError>, answers: &SyncSender<Answer>) {
    loop {
        thread::sleep(REFRESH);
        let answer = ask().map_err(|error| error.to_string());
        if answers.send(answer).is_err() {
            return;
        }
    }
}
