use core::mem::offset_of;
use std::{vec, vec::Vec};

use super::*;

/// Every byte of an event, each pair of neighbours different.
fn bytes() -> Vec<u8> {
    (0..size_of::<Event>()).map(|at| (at * 7 + at / 256) as u8).collect()
}

#[test]
fn every_field_is_read_from_where_the_kernel_writes_it() {
    let bytes = bytes();
    let event = Event::read(&bytes).unwrap();
    macro_rules! same {
        ($($field:ident: $type:ty),*) => {
            $(
                let at = offset_of!(Event, $field);
                let raw = bytes[at..at + size_of::<$type>()].try_into().unwrap();
                assert_eq!(event.$field, <$type>::from_ne_bytes(raw), stringify!($field));
            )*
        };
    }
    same!(at_ns: u64, key: u64, ifindex: u32, age_ticks: u32, hold_ticks: u32, held: u32, note: u8, evidence: u8);
    same!(verdict: u8, egress: u8, hops: u16, recirculated: u16, source_port: u16, destination_port: u16, id: u16);
    same!(qtype: u16, qclass: u16, name_len: u16, bits: u16, rapid: u16);
    for (at, words) in [
        (offset_of!(Event, source), event.source),
        (offset_of!(Event, destination), event.destination),
    ] {
        let read: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(read, bytes[at..at + 16]);
    }
    assert_eq!(event.name[..], bytes[offset_of!(Event, name)..]);
}

#[test]
fn an_entry_of_another_length_is_no_event() {
    let bytes = bytes();
    for len in [0, 8, bytes.len() - 8, bytes.len() - 1] {
        assert!(Event::read(&bytes[..len]).is_none());
    }
    assert!(Event::read(&[bytes, vec![0; 8]].concat()).is_none());
}

#[test]
fn a_name_ends_where_it_says_and_never_beyond_its_room() {
    let mut event = Event::read(&bytes()).unwrap();
    event.name[..5].copy_from_slice(b"\x03www\0");
    event.name_len = 5;
    assert_eq!(event.wire_name(), b"\x03www\0");
    event.name_len = 256;
    assert_eq!(event.wire_name().len(), 256);
    event.name_len = 257;
    assert!(event.wire_name().is_empty());
}
