//! What goes before a program that is measured: it varies packets, and restores them, and does nothing else. And what the
//! guard is measured beside.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    bench::{Gate, WIRE, Way, beside_wires},
    frame::Query,
    names::{LETTERS, Names, Order},
    speed::{Feed, Packet, Rig, Shape, filter},
};

const WAY: Way = Way::on(WIRE);

/// The packet, and what is done to it.
fn fresh_query(count: u32, order: Order) -> Result<(Vec<u8>, Feed, Names)> {
    let packet = Packet::FreshQuery(Shape::of(60));
    let feed = packet.feed(count)?;
    let names = Names {
        order,
        ..feed.names.context("a query has a name")?
    };
    let feed = Feed {
        names: Some(names),
        ..feed
    };
    Ok((packet.frame()?, feed, names))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn names_come_one_after_the_other() -> Result<()> {
    let (frame, feed, names) = fresh_query(3, Order::InTurn)?;
    let feed = Feed { id_at: None, ..feed };
    for gate in Gate::ALL {
        beside_wires(|| {
            let rig = Rig::empty(gate, WAY, &frame, feed)?;
            for letters in [b"aaaaa", b"baaaa", b"caaaa", b"aaaaa"] {
                let mut expected = frame.clone();
                expected[names.at..names.at + LETTERS].copy_from_slice(letters);
                let outcome = rig.look(1)?;
                assert_eq!(outcome.frame, expected, "{gate:?}");
                assert_eq!(outcome.returned, gate.pass(), "{gate:?}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn drawn_names_and_ids_are_spread_and_the_rest_of_the_packet_stays() -> Result<()> {
    const DRAWN: usize = 400;
    let (frame, feed, names) = fresh_query(100, Order::AtRandom)?;
    let id_at = feed.id_at.context("an ID is drawn")?;
    for gate in Gate::ALL {
        let (mut all_letters, mut ids) = (BTreeSet::new(), BTreeSet::new());
        beside_wires(|| {
            let rig = Rig::empty(gate, WAY, &frame, feed)?;
            for _ in 0..DRAWN {
                let mut drawn = rig.look(1)?.frame;
                let letters = &mut drawn[names.at..names.at + LETTERS];
                all_letters.insert(letters.to_vec());
                letters.copy_from_slice(&frame[names.at..names.at + LETTERS]);
                let id = &mut drawn[id_at..id_at + 2];
                ids.insert(id.to_vec());
                id.copy_from_slice(&frame[id_at..id_at + 2]);
                ensure!(drawn == frame, "{gate:?} changed something else");
            }
            Ok(())
        })?;
        ensure!(
            (90..=100).contains(&all_letters.len()),
            "{} of 100 names",
            all_letters.len()
        );
        ensure!(ids.len() > DRAWN * 9 / 10, "{} IDs", ids.len());
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_answer_is_made_a_query_again() -> Result<()> {
    let shape = Shape {
        opt: true,
        ..Shape::of(60)
    };
    let packet = Packet::HeldAnswered(shape);
    let (frame, feed) = (packet.frame()?, packet.feed(1)?);
    for gate in Gate::ALL {
        beside_wires(|| {
            let bench = packet.bench()?;
            let rig =
                |feed| Ok::<_, anyhow::Error>(Rig::new(gate, WAY, &frame, feed, bench.program(gate)?.descriptor()?)?);
            let (restored, left) = (rig(feed)?, rig(Feed::default())?);
            let once = restored.look(1)?;
            ensure!(
                once.returned == gate.answer() && once.frame.len() > frame.len(),
                "{gate:?}: {once:?}"
            );
            assert_eq!(restored.look(3)?, once, "{gate:?}");
            // The second time, an answer is no query.
            assert_eq!(left.look(1)?, once, "{gate:?}");
            assert_eq!(left.look(2)?.returned, gate.pass(), "{gate:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_filter_drops_what_has_its_bytes_and_nothing_else() -> Result<()> {
    let frame = |name| Query::new(name, "192.0.2.1:40000", "192.0.2.2:53")?.frame();
    let name_at = 14 + 20 + 8 + 12;
    let flooded = frame("flood.example.")?;
    for gate in [Gate::Xdp, Gate::TcIn] {
        let filter = filter(gate, name_at, *b"\x05flood\x07e")?;
        for (frame, expected) in [
            (&flooded[..], gate.drop()),
            (&flooded[..name_at + 8], gate.drop()),
            (&flooded[..name_at + 7], gate.pass()),
            (&frame("fleet.example.")?, gate.pass()),
        ] {
            let returned = beside_wires(|| {
                Ok(Rig::new(gate, WAY, frame, Feed::default(), filter.as_fd())?
                    .look(1)?
                    .returned)
            })?;
            assert_eq!(returned, expected, "{gate:?}, {} bytes", frame.len());
        }
    }
    Ok(())
}
