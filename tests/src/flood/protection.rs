//! What stands between the flood and the server, and how each is set up.
//!
//! All of them allow 1,000 packets/s. Some have to be told the name, some know the source only; the guard limits every
//! name, and nobody tells it which.

use std::{fmt, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    asked::{Asked, FLOODED, flooded},
    cpu,
    hook::Hook,
    iptables, nft,
    site::{DEVICE, SERVER},
};
use crate::{
    Namespace,
    guard::{Guard, GuardOptions},
    resolver::{Dnsdist, Dnsmasq, Duties, Forward, Resolver},
    speed,
};

/// What every protection allows, in packets/s and at once.
pub const LIMIT: u32 = 1_000;

/// Where dnsmasq listens when dnsdist is in front of it.
const BEHIND: ([u8; 4], u16) = ([127, 0, 0, 1], 5353);

/// Bytes of Ethernet and IPv4 headers.
const IPV4_HEADERS: usize = 14 + 20;

/// Loading and verifying the programs takes a fraction of it.
const READY: Duration = Duration::from_secs(20);

/// One way to protect a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// None at all.
    None,
    /// nftables at ingress of the device: drops what has the bytes of the name, above the limit.
    NftIngress,
    /// The same at input.
    NftInput,
    /// iptables before connection tracking: searches each packet for the name, drops it above the limit.
    Iptables,
    /// dnsdist in front, with a limiter for the name.
    DnsdistName,
    /// dnsdist in front, with a limiter for each address.
    DnsdistAddress,
    /// dnsdist in front, with dynamic blocks: an address above the limit is blocked in the kernel.
    DnsdistBlock,
    /// The guard, with a limit for any name and type; under random names, with another for any zone.
    Guard(Hook),
    /// The guard without a limit: it judges and counts.
    Judge(Hook),
    /// No protection, but a program that lets everything pass.
    Empty(Hook),
    /// A program that was told the name: it compares eight bytes, and drops what has them. Less cannot be done with a packet
    /// that has to be read.
    Filter(Hook),
}

impl Protection {
    /// Those that `cargo xtask demo flood` shows.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::NftIngress,
        Self::NftInput,
        Self::DnsdistName,
        Self::DnsdistAddress,
        Self::DnsdistBlock,
        Self::Guard(Hook::Auto),
        Self::Guard(Hook::Driver),
        Self::Guard(Hook::Generic),
    ];

    /// Whether somebody told it the name beforehand.
    pub const fn is_told(self) -> bool {
        matches!(
            self,
            Self::NftIngress | Self::NftInput | Self::Iptables | Self::DnsdistName | Self::Filter(_)
        )
    }

    /// Whether it is the guard.
    pub const fn is_guard(self) -> bool {
        matches!(self, Self::Guard(_))
    }

    /// The programs it needs beside those of [`super::Site::PROGRAMS`].
    pub const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::None | Self::Guard(_) | Self::Judge(_) | Self::Empty(_) | Self::Filter(_) => &[],
            Self::NftIngress | Self::NftInput => &["nft"],
            Self::Iptables => &[iptables::PROGRAM],
            Self::DnsdistName | Self::DnsdistAddress | Self::DnsdistBlock => &["dnsdist"],
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("none"),
            Self::NftIngress => out.write_str("nftables, ingress"),
            Self::NftInput => out.write_str("nftables, input"),
            Self::Iptables => out.write_str("iptables, string in raw"),
            Self::DnsdistName => out.write_str("dnsdist, per name"),
            Self::DnsdistAddress => out.write_str("dnsdist, per address"),
            Self::DnsdistBlock => out.write_str("dnsdist, dynamic block"),
            Self::Guard(Hook::Auto) => out.write_str("dnsguard"),
            Self::Guard(Hook::Driver) => out.write_str("dnsguard, driver XDP"),
            Self::Guard(Hook::Generic) => out.write_str("dnsguard, generic XDP"),
            Self::Judge(hook) => write!(out, "dnsguard without a limit, {hook}"),
            Self::Empty(hook) => write!(out, "an empty program, {hook}"),
            Self::Filter(hook) => write!(out, "a filter for the name, {hook}"),
        }
    }
}

/// A protection that is up, with the server behind it.
#[derive(Debug)]
pub(super) struct Shield {
    resolvers: Vec<Resolver>,
    guard: Option<Guard>,
    /// Keeps a program where it is that is neither theirs nor the guard's.
    _link: Option<OwnedFd>,
}

impl Shield {
    pub(super) fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Keeps all its programs on one core.
    pub(super) fn pin(&self, cpu: usize) -> Result<()> {
        let resolvers = self.resolvers.iter().map(Resolver::process);
        for process in resolvers.chain(self.guard.iter().map(Guard::process)) {
            cpu::pin_all(process.pid(), cpu)?;
        }
        Ok(())
    }
}

/// Starts the server, and the protection in front of it.
pub(super) fn raise(protection: Protection, asked: Asked, server: &Namespace) -> Result<Shield> {
    let behind = SocketAddr::from(BEHIND);
    let mut shield = Shield {
        resolvers: Vec::new(),
        guard: None,
        _link: None,
    };
    let dnsdist = match protection {
        Protection::DnsdistName => Some(match asked {
            Asked::OneName => limit_by_dnsdist(&format!("QNameRule('{FLOODED}')")),
            Asked::RandomNames => format!(
                "local zone = newSuffixMatchNode()\nzone:add(newDNSName('{FLOODED}'))\n{}",
                limit_by_dnsdist("SuffixMatchNodeRule(zone)")
            ),
        }),
        Protection::DnsdistAddress => Some(format!("addAction(MaxQPSIPRule({LIMIT}), DropAction())")),
        Protection::DnsdistBlock => Some(format!(
            "setDefaultBPFFilter(newBPFFilter(1024, 1024, 1024))\n\
             local blocks = dynBlockRulesGroup()\n\
             blocks:setQueryRate({LIMIT}, 1, 'flood', 60)\n\
             function maintenance() blocks:apply() end"
        )),
        _ => None,
    };
    let dnsmasq = Dnsmasq {
        duties: Duties {
            listen: vec![if dnsdist.is_some() { behind } else { SERVER }],
            answers: vec!["example".to_owned()],
            ..Duties::default()
        },
        extra: Vec::new(),
    };
    shield.resolvers.push(dnsmasq.start(server)?);
    if let Some(rule) = dnsdist {
        let dnsdist = Dnsdist {
            duties: Duties {
                listen: vec![SERVER],
                forwards: vec![Forward::new("", behind)],
                ..Duties::default()
            },
            extra: vec![rule],
        };
        shield.resolvers.push(dnsdist.start(server)?);
    }
    match protection {
        Protection::NftIngress => {
            let hook = format!("ingress device \"{DEVICE}\" priority 0");
            nft::apply(server, asked, "netdev", &hook, &limit_by_nft())?;
        }
        Protection::NftInput => nft::apply(server, asked, "inet", "input priority 0", &limit_by_nft())?,
        Protection::Iptables => iptables::apply(server)?,
        Protection::Guard(hook) => {
            let budgets = match asked {
                Asked::OneName => budget("key"),
                Asked::RandomNames => budget("key") + &budget("zone"),
            };
            shield.guard = Some(guard(server, hook, &budgets)?);
        }
        Protection::Judge(hook) => shield.guard = Some(guard(server, hook, "")?),
        Protection::Empty(hook) => shield._link = Some(server.run(|| hook.occupy(speed::empty))?),
        Protection::Filter(hook) => {
            let place = IPV4_HEADERS + asked.flooded_at();
            let bytes = *flooded()?.first_chunk().context("the name is too short for a filter")?;
            shield._link = Some(server.run(|| hook.occupy(|gate| speed::filter(gate, place, bytes)))?);
        }
        _ => {}
    }
    Ok(shield)
}

fn guard(server: &Namespace, hook: Hook, budgets: &str) -> Result<Guard> {
    let options = GuardOptions {
        extra_toml: format!("[attach]\nxdp = \"{}\"\n{budgets}", hook.word()),
        ..GuardOptions::enforce(&[DEVICE])
    };
    let guard = Guard::start(server, &options)?;
    guard.wait_ready(READY)?;
    Ok(guard)
}

fn budget(scope: &str) -> String {
    format!(
        "\n[[budget]]\nname = \"one {scope}\"\nscope = \"{scope}\"\ndirection = \"in\"\nlimit = {LIMIT}\n\
         burst = {LIMIT}\naction = \"drop\"\n"
    )
}

fn limit_by_dnsdist(rule: &str) -> String {
    format!("addAction(AndRule({{{rule}, MaxQPSRule({LIMIT})}}), DropAction())")
}

fn limit_by_nft() -> String {
    format!("limit rate over {LIMIT}/second burst {LIMIT} packets drop")
}
