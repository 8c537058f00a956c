//! What a row is about.

use crate::{
    address::Address,
    budget::{Filters, Rate, Row, Scope, Subject},
    key::Key,
    policy::{Action, Mode},
};

use super::SECRET;

const BOTH: (bool, bool) = (true, true);

fn v4(a: u8, b: u8, c: u8, d: u8) -> Address {
    Address::v4(u32::from_ne_bytes([a, b, c, d]))
}

fn v6(text: &str) -> Address {
    let address: core::net::Ipv6Addr = text.parse().unwrap();
    Address::from_octets(address.octets())
}

fn row(scope: Scope) -> Row {
    Row::new(
        1,
        scope,
        BOTH,
        Rate::new(10, 1, 10).unwrap(),
        Action::Drop,
        Mode::Enforce,
    )
}

fn subject() -> Subject {
    Subject {
        client: v4(10, 1, 2, 3),
        server: v4(10, 0, 0, 2),
        key: Key(77),
        zones: [5, 6, 0, 0],
        ifindex: 4,
        qtype: 12,
        egress: false,
        elsewhere: false,
        onward: false,
    }
}

fn tag(row: &Row, subject: &Subject) -> Option<u64> {
    row.tag(subject, &SECRET)
}

#[test]
fn a_scope_shares_a_bucket_among_its_own() {
    let one = subject();
    for (scope, same, other) in [
        (
            Scope::Client,
            Subject { key: Key(1), ..one },
            Subject {
                client: v4(10, 1, 2, 4),
                ..one
            },
        ),
        (
            Scope::Key,
            Subject {
                client: v4(9, 9, 9, 9),
                ..one
            },
            Subject { key: Key(78), ..one },
        ),
        (
            Scope::Zone,
            Subject { key: Key(1), ..one },
            Subject {
                zones: [9, 6, 0, 0],
                ..one
            },
        ),
        (
            Scope::Interface,
            Subject { key: Key(1), ..one },
            Subject { ifindex: 5, ..one },
        ),
    ] {
        let row = row(scope);
        assert!(tag(&row, &one).is_some(), "{scope:?}");
        assert_eq!(tag(&row, &one), tag(&row, &same), "{scope:?}");
        assert_ne!(tag(&row, &one), tag(&row, &other), "{scope:?}");
    }
    let all = row(Scope::All);
    assert_eq!(
        tag(&all, &one),
        tag(
            &all,
            &Subject {
                client: v4(1, 1, 1, 1),
                key: Key(3),
                ifindex: 9,
                ..one
            }
        )
    );
}

#[test]
fn clients_are_told_apart_by_the_prefix_of_their_family() {
    let row = row(Scope::Client).by_prefix(24, 64);
    let of = |client| tag(&row, &Subject { client, ..subject() });
    assert_eq!(of(v4(10, 1, 2, 3)), of(v4(10, 1, 2, 200)));
    assert_ne!(of(v4(10, 1, 2, 3)), of(v4(10, 1, 3, 3)));
    assert_eq!(of(v6("2001:db8::1")), of(v6("2001:db8::ffff:1")));
    assert_ne!(of(v6("2001:db8::1")), of(v6("2001:db8:0:1::1")));
}

#[test]
fn rows_do_not_share_buckets() {
    let rate = Rate::new(10, 1, 10).unwrap();
    let one = Row::new(1, Scope::All, BOTH, rate, Action::Drop, Mode::Enforce);
    let other = Row::new(2, Scope::All, BOTH, rate, Action::Drop, Mode::Enforce);
    assert_ne!(tag(&one, &subject()), tag(&other, &subject()));
}

#[test]
fn a_row_is_about_its_direction_its_interfaces_and_its_types() {
    let rate = Rate::new(10, 1, 10).unwrap();
    let incoming = Row::new(1, Scope::All, (true, false), rate, Action::Drop, Mode::Enforce);
    let leaving = Subject {
        egress: true,
        ..subject()
    };
    assert!(tag(&incoming, &subject()).is_some() && tag(&incoming, &leaving).is_none());

    let filtered = row(Scope::All).with(&Filters {
        devices: [3, 4, 0, 0],
        types: [12, 255, 0, 0],
        ..Filters::default()
    });
    assert!(tag(&filtered, &subject()).is_some());
    assert!(
        tag(
            &filtered,
            &Subject {
                ifindex: 5,
                ..subject()
            }
        )
        .is_none()
    );
    assert!(tag(&filtered, &Subject { qtype: 1, ..subject() }).is_none());
}

#[test]
fn a_zone_is_the_one_it_names_and_a_short_name_has_none() {
    let named = row(Scope::All).with(&Filters {
        zone: 6,
        zone_index: 1,
        ..Filters::default()
    });
    assert!(tag(&named, &subject()).is_some());
    let elsewhere = Subject {
        zones: [6, 5, 0, 0],
        ..subject()
    };
    assert!(tag(&named, &elsewhere).is_none());
    let third = row(Scope::Zone).with(&Filters {
        zone_index: 2,
        ..Filters::default()
    });
    assert!(tag(&third, &subject()).is_none());
}

#[test]
fn a_packet_counts_once_unless_a_row_is_about_the_interface() {
    let turned = Subject {
        elsewhere: true,
        ..subject()
    };
    let onward = Subject { onward: true, ..turned };
    let both = row(Scope::Client);
    assert!(tag(&both, &turned).is_none() && tag(&both, &onward).is_none());
    // A row about one direction has not seen what came the other way.
    let incoming = Row::new(1, Scope::Client, (true, false), both.rate, Action::Drop, Mode::Enforce);
    assert!(tag(&incoming, &turned).is_some() && tag(&incoming, &onward).is_none());
    assert!(tag(&row(Scope::Interface), &onward).is_some());
    let here = row(Scope::Client).with(&Filters {
        devices: [4, 0, 0, 0],
        ..Filters::default()
    });
    assert!(tag(&here, &onward).is_some());
}

#[test]
fn no_type_is_none_of_the_listed_ones() {
    let filtered = row(Scope::All).with(&Filters {
        types: [16, 0, 0, 0],
        ..Filters::default()
    });
    assert!(tag(&filtered, &Subject { qtype: 0, ..subject() }).is_none());
}
