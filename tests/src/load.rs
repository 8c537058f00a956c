//! Traffic that looks busy and is no loop: no guard may ever trip on it.
//!
//! Every server listens on port 53 of its own loopback address, so that a guard on `lo` sees every leg.

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use crate::{
    Namespace, Prober, Report,
    client::{Reply, Retry, exchange, inside},
    prober::{crowd, gather},
    question::{Question, RecordType, random_id},
    resolver::{Dnsmasq, Duties, Forward, Recipe, Resolver, Unbound},
    upstream::{Manner, Upstream},
};

/// Where clients ask.
const FIRST: ([u8; 4], u16) = ([127, 0, 0, 1], 53);
/// The next resolver of a chain.
const SECOND: ([u8; 4], u16) = ([127, 0, 0, 2], 53);
/// The authority at its end.
const AUTHORITY: ([u8; 4], u16) = ([127, 0, 0, 3], 53);
/// The name server that can be slow or dead.
const UPSTREAM: ([u8; 4], u16) = ([127, 0, 0, 9], 53);

/// A slow but living upstream: what a cold recursion takes on a bad day.
const SLOW: Duration = Duration::from_millis(900);

/// Search list of a Kubernetes pod on EC2: with `ndots:5` each of these comes before the name itself.
const SEARCH: [&str; 4] = [
    "shop.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
    "ec2.internal",
];

/// One resolver between the clients and a name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Middle {
    /// dnsmasq.
    Dnsmasq,
    /// unbound.
    Unbound,
}

impl Middle {
    fn recipe(self, listen: SocketAddr, to: SocketAddr) -> Recipe {
        let duties = Duties {
            listen: vec![listen],
            forwards: vec![Forward::new("", to)],
            answers: Vec::new(),
        };
        match self {
            Self::Dnsmasq => Recipe::Dnsmasq(Dnsmasq {
                duties,
                extra: Vec::new(),
            }),
            Self::Unbound => Recipe::Unbound(Unbound {
                duties,
                extra: Vec::new(),
            }),
        }
    }
}

/// A load that can be put on resolvers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A client repeats its query five times, 1 s apart, and the upstream is dead.
    DeadUpstream {
        /// Whether the tries share socket and ID.
        retry: Retry,
    },
    /// 1,000 clients ask one cold name at the same moment, and the upstream takes 900 ms.
    Herd {
        /// The resolver they ask.
        middle: Middle,
    },
    /// 100 clients walk a search list of four domains with `ndots:5`, A and AAAA, each for a name of its own, twice.
    SearchWalk,
    /// 5,000 queries per second for 3 s, most names distinct: client, dnsmasq, unbound, authority.
    Chain,
    /// 200 queries per second for 3 s for five names in random case (0x20), the upstream 50 ms away.
    MixedCase,
}

impl Load {
    /// Every load the guard has to leave alone.
    pub const ALL: [Self; 7] = [
        Self::DeadUpstream { retry: Retry::Same },
        Self::DeadUpstream { retry: Retry::Fresh },
        Self::Herd {
            middle: Middle::Dnsmasq,
        },
        Self::Herd {
            middle: Middle::Unbound,
        },
        Self::SearchWalk,
        Self::Chain,
        Self::MixedCase,
    ];

    /// The programs it needs, as [`crate::programs::provide`] takes them.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Herd {
                middle: Middle::Unbound,
            } => &["ip", "unbound"],
            Self::Chain => &["ip", "dnsmasq", "unbound"],
            _ => &["ip", "dnsmasq"],
        }
    }

    /// Starts the resolvers; no client asks yet.
    pub fn start(self) -> Result<Site> {
        self.build().with_context(|| format!("build {self}"))
    }

    fn build(self) -> Result<Site> {
        let namespace = Namespace::new()?;
        let (first, second) = (SocketAddr::from(FIRST), SocketAddr::from(SECOND));
        let (middle, manner) = match self {
            Self::DeadUpstream { .. } => (Middle::Dnsmasq, Manner::Dead),
            Self::Herd { middle } => (middle, Manner::Answers(SLOW)),
            Self::SearchWalk => (Middle::Dnsmasq, Manner::KnowsNothing),
            Self::MixedCase => (Middle::Dnsmasq, Manner::Answers(Duration::from_millis(50))),
            Self::Chain => {
                let authority = SocketAddr::from(AUTHORITY);
                let duties = Duties {
                    listen: vec![authority],
                    forwards: Vec::new(),
                    answers: vec!["example".to_owned()],
                };
                let resolvers = vec![
                    Unbound {
                        duties,
                        extra: Vec::new(),
                    }
                    .start(&namespace)?,
                    Middle::Unbound.recipe(second, authority).start(&namespace)?,
                    Middle::Dnsmasq.recipe(first, second).start(&namespace)?,
                ];
                return Ok(Site {
                    load: self,
                    namespace,
                    resolvers,
                    upstream: None,
                });
            }
        };
        let upstream = Upstream::start(&namespace, UPSTREAM.into(), manner)?;
        let resolvers = vec![middle.recipe(first, upstream.address()).start(&namespace)?];
        Ok(Site {
            load: self,
            namespace,
            resolvers,
            upstream: Some(upstream),
        })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::DeadUpstream { retry: Retry::Same } => "a client repeats its query, upstream dead",
            Self::DeadUpstream { retry: Retry::Fresh } => "a client asks anew, upstream dead",
            Self::Herd {
                middle: Middle::Dnsmasq,
            } => "1,000 clients, one cold name, dnsmasq",
            Self::Herd {
                middle: Middle::Unbound,
            } => "1,000 clients, one cold name, unbound",
            Self::SearchWalk => "ndots:5 walks of 100 clients",
            Self::Chain => "a chain of resolvers at 5,000 queries/s",
            Self::MixedCase => "names in random case",
        })
    }
}

/// The resolvers of a load, running.
#[derive(Debug)]
pub struct Site {
    load: Load,
    namespace: Namespace,
    resolvers: Vec<Resolver>,
    upstream: Option<Upstream>,
}

impl Site {
    /// Where everything is; all of it speaks over `lo`.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The resolvers between the clients and the last name server.
    pub fn resolvers(&self) -> &[Resolver] {
        &self.resolvers
    }

    /// The name server of our own at the end, where there is one.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    /// Puts the load on and tells what the clients got. Takes 1 to 10 s.
    pub fn run(&self) -> Result<Report> {
        let name = |name: &str| Question::new(name, RecordType::A);
        let second = Duration::from_secs(1);
        let replies = match self.load {
            Load::DeadUpstream { retry } => self.crowd(vec![name("dead.example.")?], 5, second, retry)?,
            Load::Herd { .. } => {
                let questions = vec![name("cold.example.")?; 1_000];
                self.crowd(questions, 2, 5 * second, Retry::Same)?
            }
            Load::SearchWalk => self.walks()?,
            Load::Chain => {
                // One in ten is asked for again and again, as popular names are.
                let mut names = vec!["*.example.".to_owned(); 9];
                names.push("popular.example.".to_owned());
                return Prober::run(&self.namespace, FIRST.into(), &names, 5_000, 3 * second);
            }
            Load::MixedCase => {
                let names: Vec<String> = (0..600)
                    .map(|number| mixed_case(&format!("some-longer-name-{}.example.", number % 5)))
                    .collect();
                return Prober::run(&self.namespace, FIRST.into(), &names, 200, 3 * second);
            }
        };
        Ok(Report::of(&replies))
    }

    /// 100 clients, 5 ms apart; each goes on to the next domain when both answers are there, and walks twice.
    fn walks(&self) -> Result<Vec<Reply>> {
        let walk = |client: u32| async move {
            sleep(Duration::from_millis(5) * client).await;
            let mut replies = Vec::new();
            for domain in SEARCH.into_iter().chain([""]).cycle().take(2 * (SEARCH.len() + 1)) {
                let name = format!("api{client}.partner.example.{domain}");
                let ask = |kind| {
                    let question = Question::new(&name, kind);
                    async move {
                        let timeout = Duration::from_secs(5);
                        exchange(FIRST.into(), &question?, 2, timeout, Retry::Same).await
                    }
                };
                let (v4, v6) = tokio::join!(ask(RecordType::A), ask(RecordType::AAAA));
                replies.extend([v4?, v6?]);
            }
            Ok(replies)
        };
        let walks = inside(&self.namespace, async { gather((0..100).map(walk).collect()).await })??;
        Ok(walks.into_iter().flatten().collect())
    }

    fn crowd(&self, questions: Vec<Question>, tries: u32, timeout: Duration, retry: Retry) -> Result<Vec<Reply>> {
        inside(&self.namespace, crowd(FIRST.into(), questions, tries, timeout, retry))?
    }
}

/// The name with each letter in upper case by chance.
fn mixed_case(name: &str) -> String {
    let flip = |letter: char| {
        if random_id() & 1 == 1 {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    };
    name.chars().map(flip).collect()
}
