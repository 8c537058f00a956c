//! What lies between the guard and the server: it takes down every spelling, and holds queries back until enough have
//! come.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{Namespace, scribe::spelled};

/// How often it looks whether there is something else to do.
const TICK: Duration = Duration::from_millis(5);
/// How long a query is held at most: a test that waits for nothing has to fail, and not to hang.
const LONGEST: Duration = Duration::from_secs(3);
/// How long the server may take.
const SERVER: Duration = Duration::from_secs(3);

/// A query as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Who sent it.
    pub(crate) client: SocketAddr,
    /// Its name, as it is spelled.
    pub(crate) name: String,
}

/// A relay, UDP only; it ends when this is dropped.
pub(crate) struct Relay {
    book: Arc<Mutex<Book>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Book {
    seen: Vec<Seen>,
    /// How many queries for a name and type have to come before any is passed on, and those that have.
    held: HashMap<Subject, Held>,
}

/// A name in small letters, and the two bytes of a type.
type Subject = (String, [u8; 2]);

struct Held {
    enough: usize,
    since: Instant,
    queries: Vec<(SocketAddr, Vec<u8>)>,
}

impl Relay {
    /// Starts one on `address`, in front of `server`.
    pub(crate) fn start(namespace: &Namespace, address: SocketAddr, server: SocketAddr) -> Result<Self> {
        let socket = namespace.udp(address)?;
        socket.set_read_timeout(Some(TICK))?;
        let book = Arc::new(Mutex::new(Book::default()));
        let end = Arc::new(AtomicBool::new(false));
        let thread = {
            let (namespace, book, end) = (namespace.clone(), Arc::clone(&book), Arc::clone(&end));
            thread::spawn(move || {
                // Sockets towards the server belong to the network that they are made in.
                namespace.run(|| serve(&socket, server, &book, &end));
            })
        };
        Ok(Self {
            book,
            end,
            thread: Some(thread),
        })
    }

    /// From now on holds queries for `name` and `kind` until `enough` have come.
    pub(crate) fn hold(&self, name: &str, kind: u16, enough: usize) {
        let held = Held {
            enough,
            since: Instant::now(),
            queries: Vec::new(),
        };
        let subject = (name.to_ascii_lowercase(), kind.to_be_bytes());
        lock(&self.book).held.insert(subject, held);
    }

    /// Every query for `name` so far, in order.
    pub(crate) fn seen(&self, name: &str) -> Vec<Seen> {
        let book = lock(&self.book);
        let same = book.seen.iter().filter(|seen| seen.name.eq_ignore_ascii_case(name));
        same.cloned().collect()
    }

    /// Waits until it has seen so many queries for `name`.
    pub(crate) fn wait(&self, name: &str, count: usize) -> Result<()> {
        let deadline = Instant::now() + LONGEST;
        while self.seen(name).len() < count {
            let seen = self.seen(name);
            ensure!(
                Instant::now() < deadline,
                "{} of {count} queries for {name}: {seen:?}",
                seen.len()
            );
            sleep(TICK);
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no state that a panic of it could spoil here.
            drop(thread.join());
        }
    }
}

fn serve(socket: &UdpSocket, server: SocketAddr, book: &Mutex<Book>, end: &AtomicBool) {
    let mut buffer = [0; 4096];
    thread::scope(|scope| {
        while !end.load(Ordering::Relaxed) {
            let query = socket.recv_from(&mut buffer).ok();
            let mut ready = Vec::new();
            {
                let mut book = lock(book);
                if let Some((length, client)) = query {
                    let query = buffer[..length].to_vec();
                    match book.take(client, &query) {
                        Some(held) => held.queries.push((client, query)),
                        None => ready.push((client, query)),
                    }
                }
                book.held.retain(|_, held| {
                    let over = held.queries.len() >= held.enough || held.since.elapsed() > LONGEST;
                    if over {
                        ready.append(&mut held.queries);
                    }
                    !over
                });
            }
            for (client, query) in ready {
                scope.spawn(move || pass_on(socket, server, client, &query));
            }
        }
    });
}

impl Book {
    /// Takes a query down, and tells who holds it.
    fn take(&mut self, client: SocketAddr, query: &[u8]) -> Option<&mut Held> {
        let name = spelled(query)?;
        // Twelve bytes of header, a byte for each dot, one before the name and one after it.
        let kind = query.get(12 + name.len() + 2..)?.first_chunk()?;
        let subject = (name.to_ascii_lowercase(), *kind);
        self.seen.push(Seen { client, name });
        self.held.get_mut(&subject)
    }
}

/// Nobody is told if it fails: the client does without an answer, and its test with it.
fn pass_on(socket: &UdpSocket, server: SocketAddr, client: SocketAddr, query: &[u8]) -> Option<()> {
    let towards = UdpSocket::bind((server.ip(), 0)).ok()?;
    towards.connect(server).ok()?;
    towards.set_read_timeout(Some(SERVER)).ok()?;
    towards.send(query).ok()?;
    let mut buffer = [0; 4096];
    let length = towards.recv(&mut buffer).ok()?;
    socket.send_to(&buffer[..length], client).ok().map(drop)
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    // What is written in one go cannot be half written by a panic.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
