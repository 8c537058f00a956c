//! Resolvers that compare an answer's case with their query's, bit by bit: they asked in a spelling of their own.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{
    Namespace, Question,
    client::ask,
    programs::DNSMASQ_0X20,
    question::RecordType,
    resolver::{Dnsmasq, Duties, Forward, KnotResolver, Resolver, Unbound},
};

use super::site::{PATIENT, RESOLVER, SERVER, Site, ZONE, first, only};

/// One name in each spelling that it takes at random: in half of them the mark turns back what was turned.
const NAMES: [&str; 3] = ["host", "other", "any-name.wild"];

fn duties() -> Duties {
    Duties {
        listen: vec![RESOLVER.into()],
        forwards: vec![Forward::new(ZONE, SERVER.into())],
        answers: Vec::new(),
    }
}

/// Every name resolves at the first try, though the query was marked.
fn it_resolves(program: &'static str, start: impl Fn(&Namespace) -> Result<Resolver>) -> Result<()> {
    let site = Site::start(&[program], &[])?;
    let resolver = start(&site.namespace)?;
    for name in NAMES {
        let name = format!("{name}.{ZONE}");
        let herd = site.herd(&name, RecordType::A, 1)?;
        let question = Question::new(&name, RecordType::A)?;
        let reply = ask(
            &site.namespace,
            SocketAddr::from(RESOLVER),
            &question,
            1,
            Duration::from_secs(5),
        )?;
        let asked = site.strict(&herd)?;
        // unbound would ask again until it is content; the others fail, and kresd may ask again soon if we are slow.
        let asked = if program == "unbound" {
            only(asked)?
        } else {
            first(asked)?
        };
        println!("{program}: {name}, as {} in {:?}", asked.name, reply.waited);
        ensure!(
            reply.message.is_some_and(|message| message.answers.len() == 1),
            "{program} has no answer for {name}"
        );
    }
    site.marked(NAMES.len() as u64)?;
    drop(resolver);
    site.guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn unbound_that_spells_at_random_resolves() -> Result<()> {
    it_resolves("unbound", |namespace| {
        Unbound {
            duties: duties(),
            extra: vec!["use-caps-for-id: yes".to_owned(), PATIENT.to_owned()],
        }
        .start(namespace)
    })
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn dnsmasq_that_spells_at_random_resolves() -> Result<()> {
    it_resolves(DNSMASQ_0X20, |namespace| {
        Dnsmasq {
            duties: duties(),
            extra: vec!["do-0x20-encode".to_owned()],
        }
        .start_newer(namespace)
    })
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn knot_resolver_that_spells_at_random_resolves() -> Result<()> {
    it_resolves("kresd", |namespace| {
        KnotResolver {
            duties: duties(),
            extra: Vec::new(),
        }
        .start(namespace)
    })
}
