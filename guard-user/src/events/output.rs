//! Bringing events out, to the log or to standard output.
//!
//! Telling never blocks and never fails. JSON lines go through a bounded queue to a thread of their own: a reader that
//! is slow costs lines, which are counted, and a reader that is gone is noticed once. So does a disk that is full: once
//! there is room again, a line says how many are missing, and the next ones are whole.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use super::Event;
use crate::{cli::EventFormat, privileges};

/// Lines that wait for a slow reader.
const QUEUE: usize = 1_024;
/// How long the last lines may take.
const FINISH: Duration = Duration::from_secs(1);

/// Where events are told.
#[derive(Debug)]
pub(crate) enum Output {
    /// As lines of the log.
    Log,
    /// As JSON lines.
    Lines(Lines),
    /// Nowhere.
    Off,
}

impl Output {
    /// The output that the operator chose.
    pub(crate) fn new(format: EventFormat) -> Self {
        match format {
            EventFormat::Text => Self::Log,
            EventFormat::Jsonl => Self::Lines(match io::stdout().as_fd().try_clone_to_owned() {
                // Without a buffer one can tell how much of a line is out.
                Ok(stdout) => Lines::new(File::from(stdout), QUEUE),
                Err(_) => Lines::new(io::stdout(), QUEUE),
            }),
            EventFormat::Off => Self::Off,
        }
    }

    /// Tells an event at `now`. Never blocks, never fails.
    pub(crate) fn tell(&mut self, event: &Event, now: SystemTime) {
        match self {
            Self::Log if event.is_warning() => warn!("{event}"),
            Self::Log => info!("{event}"),
            Self::Lines(lines) => lines.tell(event, now),
            Self::Off => {}
        }
    }

    /// Lines that a slow or absent reader, or a full disk, has cost so far.
    pub(crate) fn lost(&self) -> u64 {
        match self {
            Self::Lines(lines) => lines.lost + lines.refused.load(Ordering::Relaxed),
            Self::Log | Self::Off => 0,
        }
    }

    /// Waits a second at most until the last lines are out.
    pub(crate) fn finish(self) {
        if let Self::Lines(lines) = self {
            lines.finish();
        }
    }
}

/// A queue of lines and the thread that writes them.
#[derive(Debug)]
pub(crate) struct Lines {
    /// `None` once the reader is gone.
    queue: Option<SyncSender<String>>,
    /// Ends when the thread does.
    done: Receiver<()>,
    /// Lines lost so far.
    lost: u64,
    /// Those of them that the reader has not been told of.
    untold: u64,
    /// Lines that could not be written.
    refused: Arc<AtomicU64>,
}

impl Lines {
    fn new(sink: impl Write + Send + 'static, room: usize) -> Self {
        let (queue, lines) = mpsc::sync_channel(room);
        let (alive, done) = mpsc::channel();
        let refused = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            sink,
            refused: Arc::clone(&refused),
            untold: 0,
            is_torn: false,
        };
        let thread = thread::Builder::new().name("events".to_owned()).spawn(move || {
            privileges::give_up();
            writer.write(&lines, alive);
        });
        if let Err(error) = &thread {
            warn!("cannot write events: {error}; the metrics go on");
        }
        Self {
            queue: thread.is_ok().then_some(queue),
            done,
            lost: 0,
            untold: 0,
            refused,
        }
    }

    fn tell(&mut self, event: &Event, now: SystemTime) {
        if self.queue.is_none() {
            self.lost += 1;
            return;
        }
        if self.untold > 0 {
            let count = self.untold;
            let reason = format!("{count} events were not written: whoever reads standard output is too slow");
            if self.push(Event::Lost { count, reason }.json(now)) {
                self.untold = 0;
            }
        }
        if !self.push(event.json(now)) {
            self.lost += 1;
            self.untold += 1;
        }
    }

    /// False if the line is lost.
    fn push(&mut self, line: String) -> bool {
        match self.queue.as_ref().map(|queue| queue.try_send(line)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Disconnected(_))) => {
                warn!("nobody reads standard output any more: no further events are written, the guard goes on");
                self.queue = None;
                false
            }
            Some(Err(TrySendError::Full(_))) | None => false,
        }
    }

    fn finish(self) {
        drop(self.queue);
        let _ = self.done.recv_timeout(FINISH);
    }
}

/// What the thread writes with.
struct Writer<W> {
    sink: W,
    /// Lines that could not be written.
    refused: Arc<AtomicU64>,
    /// Those of them that nobody has been told of.
    untold: u64,
    /// Whether the last line that is out is the beginning of one that could not be written.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
    /// Writes line by line until the queue or the reader is gone. `_alive` is dropped at the end.
    fn write(mut self, lines: &Receiver<String>, _alive: Sender<()>) {
        for line in lines {
            let written = self.write_after_gap(&line);
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
                Err(error) => {
                    if self.untold == 0 {
                        warn!("cannot write events to standard output: {error}; they are lost until that works again");
                    }
                    self.untold += 1;
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Writes a line; before it, what is missing is told.
    fn write_after_gap(&mut self, line: &str) -> io::Result<()> {
        if self.untold > 0 {
            let count = self.untold;
            let reason = format!("{count} events were not written: standard output could not take them");
            self.write_line(&Event::Lost { count, reason }.json(SystemTime::now()))?;
            warn!("events can be written to standard output again; {count} are missing");
            self.untold = 0;
        }
        self.write_line(line)
    }

    /// Writes a line, behind the end of one that was begun.
    fn write_line(&mut self, line: &str) -> io::Result<()> {
        if self.is_torn {
            self.write_bytes(b"\n")?;
            self.is_torn = false;
        }
        self.write_bytes(format!("{line}\n").as_bytes())?;
        self.sink.flush()
    }

    fn write_bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut is_begun = false;
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(length @ 1..) => {
                    is_begun = true;
                    bytes = &bytes[length..];
                }
                failed => {
                    self.is_torn |= is_begun;
                    return Err(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, MutexGuard},
        time::UNIX_EPOCH,
    };

    use guard_common::policy::Mode;

    use super::*;

    fn event() -> Event {
        Event::policy(1, Mode::Enforce)
    }

    /// A reader that the test can hold up and send away.
    #[derive(Clone, Default)]
    struct Reader {
        read: Arc<Mutex<Vec<u8>>>,
        is_gone: bool,
    }

    impl Reader {
        fn hold_up(&self) -> MutexGuard<'_, Vec<u8>> {
            self.read.lock().unwrap()
        }
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.hold_up().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_reach_the_reader_whole_and_in_order() {
        let reader = Reader::default();
        let mut output = Output::Lines(Lines::new(reader.clone(), 8));
        output.tell(&Event::lost(1), UNIX_EPOCH);
        output.tell(&event(), UNIX_EPOCH);
        output.finish();
        let read = String::from_utf8(reader.hold_up().clone()).unwrap();
        assert_eq!(
            read,
            format!("{}\n{}\n", Event::lost(1).json(UNIX_EPOCH), event().json(UNIX_EPOCH))
        );
    }

    #[test]
    fn a_slow_reader_costs_lines_and_hears_of_it() {
        let reader = Reader::default();
        let mut output = Output::Lines(Lines::new(reader.clone(), 2));
        let held_up = reader.hold_up();
        for _ in 0..10 {
            output.tell(&event(), UNIX_EPOCH);
        }
        // Two wait, one may be in the hands of the thread.
        let lost = output.lost();
        assert!((7..=8).contains(&lost), "{lost} lost");
        drop(held_up);
        while !String::from_utf8_lossy(&reader.hold_up()).contains("too slow") {
            output.tell(&event(), UNIX_EPOCH);
            thread::yield_now();
        }
        output.finish();
    }

    /// A disk with room for so many bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let length = bytes.len().min(*room);
            if length == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            written.extend(&bytes[..length]);
            *room -= length;
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_says_how_many_once_there_is_room() {
        let disk = Disk::default();
        let line = event().json(UNIX_EPOCH);
        disk.0.lock().unwrap().1 = line.len() + 11;
        let mut output = Output::Lines(Lines::new(disk.clone(), 8));
        // One fits, one is torn, one finds no room.
        for _ in 0..3 {
            output.tell(&event(), UNIX_EPOCH);
        }
        while output.lost() < 2 {
            thread::yield_now();
        }
        disk.0.lock().unwrap().1 = usize::MAX;
        output.tell(&event(), UNIX_EPOCH);
        output.finish();
        let written = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines.len(), 4, "{written}");
        assert_eq!(
            (lines[0], lines[1], lines[3]),
            (line.as_str(), &line[..10], line.as_str())
        );
        assert!(
            lines[2].contains("2 events were not written: standard output"),
            "{written}"
        );
    }

    #[test]
    fn a_reader_that_is_gone_is_dropped() {
        let mut output = Output::Lines(Lines::new(
            Reader {
                is_gone: true,
                ..Reader::default()
            },
            2,
        ));
        let Output::Lines(lines) = &mut output else {
            unreachable!()
        };
        while lines.queue.is_some() {
            lines.tell(&event(), UNIX_EPOCH);
            thread::yield_now();
        }
        lines.tell(&event(), UNIX_EPOCH);
        assert!(output.lost() > 0);
        output.finish();
    }
}
