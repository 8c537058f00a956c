//! Good clients near and far from the flood's source: who is hurt by it, and who by the protection.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    cpu,
    site::{SERVER, Site},
};
use crate::{
    client::{Reply, inside, receive},
    prober::{Report, gather},
    question::{Question, RecordType, random_id},
    sys,
};

/// A query without an answer after this is lost.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Where good clients sit, as the server sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a network of its own.
    OtherNetwork,
    /// In the /24 that the flood comes from.
    SameNetwork,
    /// At the address that the flood comes from: behind the same NAT or forwarder.
    SameAddress,
}

impl Place {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::OtherNetwork, Self::SameNetwork, Self::SameAddress];

    pub(super) const fn address(self) -> Ipv4Addr {
        match self {
            Self::OtherNetwork => Ipv4Addr::new(10, 99, 0, 7),
            Self::SameNetwork => Ipv4Addr::new(10, 53, 0, 67),
            Self::SameAddress => Ipv4Addr::new(10, 53, 0, 66),
        }
    }
}

/// What good clients got.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// All of them.
    pub all: Report,
    /// Those of each place, in the order of [`Place::ALL`].
    pub places: [Report; Place::ALL.len()],
}

/// Has `qps` good clients in each place and second ask the server, for `duration`; each for a name of its own, from a
/// port of its own, once. Returns when the last one is answered or lost: up to 1 s later.
pub fn ask_all(site: &Site, qps: u32, duration: Duration) -> Result<Service> {
    ensure!(qps > 0, "good clients need a rate");
    let qps = qps * Place::ALL.len() as u32;
    let total = (duration.as_secs_f64() * f64::from(qps)) as u32;
    let run = async move {
        // They do not wait for the flood, which has the same core and never rests.
        cpu::pin(0, cpu::SENDER)?;
        sys::go_first(Pid::from_raw(0)).context("put good clients before the flood")?;
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for (number, place) in (0..total).zip(Place::ALL.into_iter().cycle()) {
            let due = start + Duration::from_secs(1) * number / qps;
            sleep_until(due.into()).await;
            let question = Question::new(&format!("good-{number}.example."), RecordType::A)?;
            clients.spawn(async move { Ok((place, ask(place.address().into(), &question).await?)) });
        }
        gather(clients).await
    };
    let replies: Vec<(Place, Reply)> = inside(site.client(), run)??;
    let of = |wanted: &dyn Fn(Place) -> bool| {
        let replies: Vec<Reply> = replies
            .iter()
            .filter(|(place, _)| wanted(*place))
            .map(|(_, reply)| reply.clone())
            .collect();
        Report::of(&replies)
    };
    Ok(Service {
        all: of(&|_| true),
        places: Place::ALL.map(|place| of(&|other| other == place)),
    })
}

/// One client's one try, from this address.
async fn ask(source: IpAddr, question: &Question) -> Result<Reply> {
    let start = Instant::now();
    let id = random_id();
    let socket = UdpSocket::bind(SocketAddr::new(source, 0)).await?;
    socket.connect(SERVER).await?;
    socket.send(&question.query(id)?).await?;
    let message = timeout(TIMEOUT, receive(&socket, id)).await.ok();
    Ok(Reply {
        message,
        tries: 1,
        waited: start.elapsed(),
    })
}
