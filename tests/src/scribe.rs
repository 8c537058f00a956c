//! A name server of our own that takes down how each question is spelled, and can answer in another spelling.
//!
//! It reads and writes bytes itself: a library might put names into a case of its own.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use hickory_proto::op::Message;

use crate::{Namespace, upstream::ADDRESS};

/// How often it looks whether there is something else to do.
const TICK: Duration = Duration::from_millis(10);

/// Where a question begins (RFC 1035 section 4.1.1).
const QUESTION: usize = 12;
/// Type and class, after the name.
const TYPE_AND_CLASS: usize = 4;
/// A pointer to the question's name, type A, class IN, TTL 0, 4 bytes of address: an answer record.
const RECORD: [u8; 12] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4];

/// An OPT record without options (RFC 6891 section 6.1.2), for 1,232 bytes.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// What is done with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Answered in its own spelling.
    Asked,
    /// Answered with all letters of its question in the other case, and so with a spelling that is not the query's.
    Turned,
    /// Kept until [`Scribe::release`].
    Held,
}

/// Chooses what is done with a query, by its name as it is spelled, without a dot at its end.
pub type Choice = fn(&str) -> Reply;

/// A responder thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Scribe {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Book {
    /// Every name that was asked for with type A, as it was spelled, in order.
    names: Vec<String>,
    held: Vec<(SocketAddr, Vec<u8>)>,
    released: bool,
}

impl Scribe {
    /// Starts one on `address`, UDP only.
    pub fn start(namespace: &Namespace, address: SocketAddr, choice: Choice) -> Result<Self> {
        let socket = namespace.udp(address)?;
        socket.set_read_timeout(Some(TICK))?;
        let book = Arc::new(Mutex::new(Book::default()));
        let end = Arc::new(AtomicBool::new(false));
        let thread = {
            let (socket, book, end) = (socket.try_clone()?, Arc::clone(&book), Arc::clone(&end));
            thread::Builder::new()
                .name("scribe".into())
                .spawn(move || serve(&socket, choice, &book, &end))?
        };
        Ok(Self {
            address,
            book,
            end,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How `name` was spelled in each query for its A record, in order.
    pub fn spellings(&self, name: &str) -> Vec<String> {
        let book = lock(&self.book);
        let same = book.names.iter().filter(|asked| asked.eq_ignore_ascii_case(name));
        same.cloned().collect()
    }

    /// Waits for the first query for `name`.
    pub fn wait(&self, name: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.spellings(name).is_empty() {
            if Instant::now() > deadline {
                bail!("nobody asked for {name} within {patience:?}");
            }
            sleep(TICK);
        }
        Ok(())
    }

    /// Answers what is held, in its own spelling, and from now on holds nothing.
    pub fn release(&self) {
        lock(&self.book).released = true;
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no state that a panic of it could spoil here.
            drop(thread.join());
        }
    }
}

fn serve(socket: &UdpSocket, choice: Choice, book: &Mutex<Book>, end: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !end.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, client)) => take(socket, client, &buffer[..length], choice, &mut lock(book)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            // An ICMP from a client that has gone.
            Err(_) => {}
        }
        let mut book = lock(book);
        if book.released {
            for (client, query) in book.held.drain(..) {
                send(socket, client, &query, false);
            }
        }
    }
}

fn take(socket: &UdpSocket, client: SocketAddr, query: &[u8], choice: Choice, book: &mut Book) {
    let Some(question) = Question::read(query) else {
        return;
    };
    let reply = choice(&question.name);
    if question.is_address {
        book.names.push(question.name);
    }
    match reply {
        Reply::Asked => send(socket, client, query, false),
        Reply::Turned => send(socket, client, query, true),
        Reply::Held => book.held.push((client, query.to_vec())),
    }
}

/// A client that has gone needs no answer, and what cannot be read gets none.
fn send(socket: &UdpSocket, client: SocketAddr, query: &[u8], turned: bool) {
    if let Some(answer) = answer(query, turned) {
        drop(socket.send_to(&answer, client));
    }
}

/// The address for type A, NODATA for any other type.
fn answer(query: &[u8], turned: bool) -> Option<Vec<u8>> {
    let question = Question::read(query)?;
    let mut answer = query.get(..question.end)?.to_vec();
    // RFC 1035 section 4.1.1: QR and RA set, opcode and RD kept, everything else clear.
    answer[2] = 0x80 | answer[2] & 0x79;
    answer[3] = 0x80;
    let has_edns = query[10..12] != [0, 0];
    let counts = [0, 1, 0, u8::from(question.is_address), 0, 0, 0, u8::from(has_edns)];
    answer[4..QUESTION].copy_from_slice(&counts);
    if turned {
        let name = &mut answer[QUESTION..question.end - TYPE_AND_CLASS];
        // No length of a label is a letter: the longest is 63, and `A` is 65.
        let letters = name.iter_mut().filter(|byte| byte.is_ascii_alphabetic());
        letters.for_each(|letter| *letter ^= 0x20);
    }
    if question.is_address {
        answer.extend_from_slice(&RECORD);
        answer.extend_from_slice(&ADDRESS.octets());
    }
    if has_edns {
        answer.extend_from_slice(&OPT);
    }
    Some(answer)
}

/// The first question of a message.
struct Question {
    /// As it is spelled, without a dot at its end.
    name: String,
    /// Whether it is for type A.
    is_address: bool,
    /// Where it ends in the message.
    end: usize,
}

impl Question {
    fn read(message: &[u8]) -> Option<Self> {
        let mut labels = Vec::new();
        let mut at = QUESTION;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(message.get(at..at + length)?).into_owned());
            at += length;
        }
        let kind = message.get(at..at + TYPE_AND_CLASS)?;
        Some(Self {
            name: labels.join("."),
            is_address: kind[..2] == [0, 1],
            end: at + TYPE_AND_CLASS,
        })
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    // What is written in one go cannot be half written by a panic.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of the question in a message, as it is spelled there, without a dot at its end.
pub fn spelled(message: &[u8]) -> Option<String> {
    Question::read(message).map(|question| question.name)
}

/// The name of the first answer in a response, as it is spelled there or where it points to, without a dot at its end.
pub fn owner(response: &[u8]) -> Option<String> {
    let message = Message::from_vec(response).ok()?;
    let name = message.answers.first()?.name.to_ascii();
    Some(name.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{self, RecordType};

    #[test]
    fn an_answer_has_the_spelling_it_was_told_to_have() {
        let asked = question::Question::new("aB.eXample.", RecordType::A).expect("a name");
        let query = asked.query(7).expect("a query");
        for (turned, spelling) in [(false, "aB.eXample"), (true, "Ab.ExAMPLE")] {
            let answer = answer(&query, turned).expect("an answer");
            assert_eq!(spelled(&answer).as_deref(), Some(spelling));
            let message = question::response(&answer, 7).expect("a response that others can read");
            assert_eq!(message.answers.len(), 1);
        }
    }
}
