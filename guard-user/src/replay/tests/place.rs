//! Which interface a packet was at, and which way it went.

use super::{
    file::{Order, enhanced, interface, option, pcap, section},
    packets::{Family, START_NS, looped, query},
    *,
};

const ONE_A_SECOND: &str = "[attach]\ninterfaces = ['lo', 'eth0', 'eth1']\n[[budget]]\nname = 'few'\nscope = 'all'\nlimit = 1\n\
                            interfaces = ['eth0']\ndirection = 'both'\n";

/// Queries for different names, one every 10 ms, from one host to another.
fn load(from: u8, to: u8) -> Vec<Packet> {
    let packet = |number: u16| {
        let name = format!("n{number}.example.");
        let data = query(Family::V4, (from, 2_000 + number), (to, 53), number, &name);
        Packet::new(START_NS + u64::from(number) * 10_000_000, data)
    };
    (0..200).map(packet).collect()
}

#[test]
fn a_budget_finds_its_interface_by_name() {
    let call = Call {
        toml: ONE_A_SECOND,
        ..jsonl()
    };
    let order = Order::Little;
    let named = |name: &[u8]| {
        let mut ng = [section(order), interface(order, 101, &[option(order, 2, name)])].concat();
        for packet in load(4, 5) {
            ng.extend(enhanced(order, 0, packet.at_ns / 1_000, &packet, &[]));
        }
        ng
    };
    let replayed = call.on(&named(b"eth0"));
    assert_eq!(replayed.code(), exit::FOUND);
    let summary = replayed.summary();
    assert_eq!(
        (
            summary["budgets"][0]["budget"].as_str(),
            summary["budgets"][0]["within"].as_u64()
        ),
        (Some("few"), Some(2))
    );
    let storms = replayed.events("over_budget");
    assert_eq!(
        (storms[0]["device"].as_str(), storms[0]["zones"][0]["zone"].as_str()),
        (Some("eth0"), Some("example."))
    );
    assert_eq!(call.on(&named(b"eth7")).code(), exit::DONE);

    // Several are guarded, and the capture does not say which one it is of.
    let unnamed = ethernet(101, &[], &load(4, 5));
    let unknown = call.on(&unnamed);
    assert_eq!(unknown.code(), exit::DONE);
    assert!(
        unknown.summary()["notes"].to_string().contains("--interface NAME"),
        "{}",
        unknown.out
    );
    let given = Call {
        interface: Some("eth0"),
        ..call
    };
    assert_eq!(given.on(&unnamed).code(), exit::FOUND);

    // All interfaces at once, with their indexes.
    let mut header = vec![0x08, 0x00, 0, 0, 0, 0, 0, 7, 0, 1, 0, 6];
    header.extend([0; 8]);
    let any = ethernet(276, &header, &load(4, 5));
    let unknown = given.on(&any);
    assert_eq!(unknown.summary()["interfaces"][0]["device"], "#7");
    assert_eq!(unknown.code(), exit::DONE);
    assert!(
        unknown.summary()["notes"]
            .to_string()
            .contains("--interface INDEX=NAME"),
        "{}",
        unknown.out
    );
    let named = Call {
        interface: Some("7=eth0"),
        ..given
    };
    assert_eq!(named.on(&any).code(), exit::FOUND);
}

#[test]
fn what_is_local_goes_out() {
    let call = Call {
        toml: "[attach]\ninterfaces = ['eth0']\n",
        locals: &["127.0.0.4", "fd00::/64"],
        ..jsonl()
    };
    let directions = |capture: &[u8]| {
        let summary = call.on(capture).summary();
        let one = &summary["interfaces"][0];
        assert_eq!(one["device"], "eth0", "{summary}");
        (one["incoming"].as_u64().unwrap(), one["outgoing"].as_u64().unwrap())
    };
    assert_eq!(directions(&ethernet(101, &[], &load(4, 5))), (0, 200));
    assert_eq!(directions(&ethernet(101, &[], &load(5, 4))), (200, 0));
    assert_eq!(directions(&ethernet(101, &[], &looped(Family::V6, 5))), (0, 6));
    let station = [&[2; 12], &[0x81, 0x00, 0, 7, 0x08, 0x00][..]].concat();
    assert_eq!(directions(&ethernet(1, &station, &load(4, 5))), (0, 200));
}

#[test]
fn the_leaving_copy_of_a_packet_on_lo_is_left_out() {
    let mut header = vec![0x08, 0x00, 0, 0, 0, 0, 0, 1, 0x03, 0x04, 4, 6];
    header.extend([0; 8]);
    let mut packets = Vec::new();
    for packet in looped(Family::V4, 60) {
        packets.extend(behind(&header, std::slice::from_ref(&packet)));
        header[10] = 0;
        packets.extend(behind(&header, std::slice::from_ref(&packet)));
        header[10] = 4;
    }
    let replayed = jsonl().on(&pcap(Order::Little, 1, 276, &packets));
    let once = jsonl().on(&ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60)));
    let fields = |replayed: &Replayed| {
        let trip = &replayed.events("trip")[0];
        ["time", "recirculated", "hops", "evidence", "device"].map(|field| trip[field].clone())
    };
    assert_eq!(fields(&replayed), fields(&once));
    assert_eq!(replayed.summary()["unread"][0]["packets"], 61);
}

const AWS: &str = "[attach]\ninterfaces = ['eth0']\n[[budget]]\npreset = 'aws-link-local'\nlimit = 10\n";

#[test]
fn the_link_local_budget_needs_to_know_the_vpc_and_which_way_packets_go() {
    let call = Call { toml: AWS, ..jsonl() };
    let error = call.on(&[]).ended.unwrap_err();
    assert_eq!(error.code(), exit::BAD_USAGE);
    assert!(error.to_string().contains("set vpc = "), "{error}");

    const WITH_VPC: &str = "[attach]\ninterfaces = ['eth0']\n[[budget]]\npreset = 'aws-link-local'\nlimit = 10\n\
                            vpc = '127.0.0.0/16'\n";
    let call = Call { toml: WITH_VPC, ..call };
    let capture = ethernet(101, &[], &load(4, 2));
    let unknown = call.on(&capture);
    assert_eq!(unknown.code(), exit::DONE);
    assert!(
        unknown.summary()["notes"].to_string().contains("--local ADDRESS"),
        "{}",
        unknown.out
    );
    let call = Call {
        locals: &["127.0.0.4"],
        ..call
    };
    let replayed = call.on(&capture);
    assert_eq!(replayed.code(), exit::FOUND);
    let summary = replayed.summary();
    let budget = &summary["budgets"][0];
    assert_eq!(budget["budget"], "aws-link-local", "{summary}");
    let (within, over) = (budget["within"].as_u64().unwrap(), budget["over"].as_u64().unwrap());
    assert_eq!(within + over, 200, "{summary}");
    assert!((10..=40).contains(&within), "10/s for 2 s: {summary}");
}

#[test]
fn own_addresses_have_to_be_said() {
    let call = Call {
        toml: "[hygiene]\nsources = ['own']\n",
        ..jsonl()
    };
    let error = call.on(&[]).ended.unwrap_err();
    assert_eq!(error.code(), exit::BAD_USAGE);
    assert!(error.to_string().contains("--local ADDR"), "{error}");
    let call = Call {
        locals: &["10.0.0.1"],
        ..call
    };
    assert!(call.guarded().is_ok());
}
