//! What the agent tells.
//!
//! Each [`Event`] reads as a line of the log (`Display`) and as a JSON object with a versioned schema; both end in the
//! same sentence. [`Output`] brings them out and never holds up the agent.

mod date;
#[cfg(test)]
mod documented;
pub(crate) mod feed;
mod output;
mod pods;
mod storm;
mod teller;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use guard_common::{abi, policy::Mode};
use serde::Serialize;

pub(crate) use self::{
    date::{rfc3339, rfc3339_ns},
    output::Output,
    storm::{ClientShare, NameShare, OverBudget, SearchWalk, WithinBudget, ZoneShare},
    teller::Teller,
};
use crate::{attachment::Attachment, config::mode_word, datapath::Takeover, interfaces::Failed, pods::Pod};

/// The word of a loop whose mark came back.
pub(crate) const PROVEN: &str = "proven";
/// The word of one that only looks like a loop.
pub(crate) const SUSPECTED: &str = "suspected";

/// Interfaces that a sentence names, if there are many.
const MOST_NAMED: usize = 8;

/// Goes up with every change that breaks a reader of the JSON lines.
const SCHEMA: u32 = 1;

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Event {
    /// Every program is attached, and packets are judged.
    Ready {
        /// Version of the agent.
        version: &'static str,
        /// `observe` or `enforce`.
        mode: &'static str,
        /// The interfaces that are guarded.
        devices: Vec<String>,
        /// In a sentence.
        reason: String,
    },
    /// A program was attached.
    Attach(Hooked),
    /// A program was detached.
    Detach(Hooked),
    /// The agent took over what one before it had left attached.
    Takeover {
        /// The version of the maps that were found; of several the oldest.
        abi: u32,
        /// Links that were found.
        links: usize,
        /// In a sentence.
        reason: String,
    },
    /// The agent ends, and what it had attached stays.
    Stay {
        /// The interfaces.
        devices: Vec<String>,
        /// Seconds until everything passes there, unless the next agent takes over.
        seconds_left: u64,
        /// In a sentence.
        reason: String,
    },
    /// A program could not be attached.
    AttachError {
        /// Name of the interface.
        device: String,
        /// Where.
        hook: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// A breaker opened.
    Trip(Breaker),
    /// A test failed: the breaker stays open.
    Extend(Breaker),
    /// A test was answered: the breaker closed.
    Release(Breaker),
    /// A hold ended, and nobody asked again.
    Expire(Breaker),
    /// A budget has no room for all that comes.
    OverBudget(OverBudget),
    /// It has room for everything again.
    WithinBudget(WithinBudget),
    /// A client wastes queries on its search list.
    SearchWalk(SearchWalk),
    /// Events were lost before they could be told.
    Lost {
        /// How many.
        count: u64,
        /// In a sentence.
        reason: String,
    },
    /// A policy was put in force.
    Policy {
        /// Counts the policies.
        generation: u32,
        /// `observe` or `enforce`.
        mode: &'static str,
        /// In a sentence.
        reason: String,
    },
    /// The configuration was to be loaded again.
    Reload {
        /// Whether it is in force. If not, the one before it is, whole.
        successful: bool,
        /// What asked for it: `signal`, `file`, or `command`.
        trigger: &'static str,
        /// Who, if it was a command.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// What is different now, one each.
        changes: Vec<String>,
        /// In a sentence.
        reason: String,
    },
    /// The operator allows a key: from now on it is only watched.
    Allow(Allowance),
    /// He no longer does, or the time that he gave is over.
    Disallow(Allowance),
    /// The lease was not renewed in time, or cannot be.
    Lease {
        /// Seconds until everything passes; 0 where everything did.
        seconds_left: u64,
        /// Why, and what to do.
        reason: String,
    },
    /// AWS dropped packets of an interface, by the count of its driver.
    AllowanceExceeded {
        /// Name of the interface.
        device: String,
        /// Which allowance, as in the metrics.
        #[serde(rename = "type")]
        kind: &'static str,
        /// Packets since the last reading.
        dropped: u64,
        /// The most packets that the guard let through in one second since then, if it counts them.
        #[serde(skip_serializing_if = "Option::is_none")]
        our_packets_per_second: Option<u64>,
        /// Whose packets they were, and what to do.
        reason: String,
    },
    /// The driver of an interface does not count what AWS drops.
    NoAllowances {
        /// Name of the interface.
        device: String,
        /// The driver, if it gives its name.
        #[serde(skip_serializing_if = "Option::is_none")]
        driver: Option<String>,
        /// In a sentence.
        reason: String,
    },
}

/// One program at one hook of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Hooked {
    device: String,
    hook: &'static str,
    method: &'static str,
    program_id: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    neighbours: Vec<String>,
    reason: String,
}

/// A key that is only watched, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Allowance {
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// In a sentence.
    pub(crate) reason: String,
}

/// The breaker of a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Breaker {
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// The QCLASS.
    #[serde(rename = "class")]
    pub(crate) qclass: String,
    /// The key, in 16 hexadecimal digits.
    pub(crate) key: String,
    /// Name of the interface.
    pub(crate) device: String,
    /// The pod that it leads to, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_pod: Option<Pod>,
    /// Where the packet was seen.
    pub(crate) hook: &'static str,
    /// What told it.
    #[serde(flatten)]
    pub(crate) packet: Option<Packet>,
    /// Queries held since the breaker opened, as far as is known.
    pub(crate) held: u64,
    /// Milliseconds since the breaker opened.
    pub(crate) open_ms: u64,
    /// The servers that form the loop, as far as they were seen.
    #[serde(rename = "loop")]
    pub(crate) servers: Vec<SocketAddr>,
    /// The pods among its addresses.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) pods: BTreeMap<IpAddr, Pod>,
    /// In a sentence.
    pub(crate) reason: String,
}

/// The packet that changed a breaker, and what the kernel knew then.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Packet {
    /// `proven` or `suspected`.
    pub(crate) proof: &'static str,
    /// What speaks for the loop.
    pub(crate) evidence: &'static str,
    /// Bits of the proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bits: Option<u16>,
    /// Whether 5-tuples and IDs came back faster than any client retries.
    pub(crate) rapid: bool,
    /// Hops that went to a server which already had the question.
    pub(crate) recirculated: u16,
    /// Hops that nobody had answered.
    pub(crate) hops: u16,
    /// Milliseconds from the first of them to the trip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cut_ms: Option<u64>,
    /// Milliseconds of the hold.
    pub(crate) hold_ms: u64,
    /// What happened to the packet.
    pub(crate) verdict: &'static str,
    /// The DNS ID.
    pub(crate) id: u16,
    /// Its source.
    pub(crate) from: SocketAddr,
    /// Its destination.
    pub(crate) to: SocketAddr,
}

impl Event {
    /// Every program is attached.
    pub(crate) fn ready(mode: Mode, devices: Vec<String>) -> Self {
        let reason = Self::guarding(mode, &devices);
        Self::Ready {
            version: env!("CARGO_PKG_VERSION"),
            mode: mode_word(mode),
            devices,
            reason,
        }
    }

    /// What is guarded and how, in a sentence.
    pub(crate) fn guarding(mode: Mode, devices: &[String]) -> String {
        let named = devices.get(..MOST_NAMED).unwrap_or(devices).join(", ");
        let guarded = match devices.len().saturating_sub(MOST_NAMED) {
            0 if devices.is_empty() => "no interface yet".to_owned(),
            0 => named,
            more => format!("{named} and {more} more"),
        };
        format!("guarding {guarded}: {}", promise(mode))
    }

    /// A policy was put in force.
    pub(crate) fn policy(generation: u32, mode: Mode) -> Self {
        let reason = format!("policy {generation} is in force: {}", promise(mode));
        Self::Policy {
            generation,
            mode: mode_word(mode),
            reason,
        }
    }

    /// A program was attached.
    pub(crate) fn attach(attachment: &Attachment) -> Self {
        Self::Attach(Hooked {
            neighbours: attachment.neighbours.clone(),
            ..Hooked::new(attachment, attachment.reason.clone())
        })
    }

    /// A program was detached, for this reason.
    pub(crate) fn detach(attachment: &Attachment, reason: impl Into<String>) -> Self {
        Self::Detach(Hooked::new(attachment, reason.into()))
    }

    /// A program could not be attached.
    pub(crate) fn attach_error(failed: &Failed) -> Self {
        Self::AttachError {
            device: failed.device.clone(),
            hook: failed.hook.word(),
            reason: failed.reason.clone(),
        }
    }

    /// What an agent before this one had attached was taken over.
    pub(crate) fn takeover(takeover: Takeover) -> Self {
        let Takeover { abi, links } = takeover;
        let programs = if links == 1 {
            "1 program of an agent before this one was".to_owned()
        } else {
            format!("{links} programs of an agent before this one were")
        };
        let rest = if abi == abi::VERSION {
            "holds and counts go on".to_owned()
        } else {
            format!(
                "its maps are of version {abi} and ours of {}, so holds and counts begin anew",
                abi::VERSION
            )
        };
        let reason = format!("{programs} attached, and replaced without a gap: {rest}");
        Self::Takeover { abi, links, reason }
    }

    /// What is attached stays when the agent ends.
    pub(crate) fn stay(attachments: &[Attachment], seconds_left: u64) -> Self {
        let mut devices: Vec<_> = attachments.iter().map(|one| one.device.clone()).collect();
        devices.dedup();
        let reason = format!(
            "told to stop; the guard on {} stays in force for {seconds_left} s, and everything passes then unless an \
             agent takes over; dnsguard detach --all takes it out",
            devices.join(", ")
        );
        Self::Stay {
            devices,
            seconds_left,
            reason,
        }
    }

    /// The kernel had no room in its ring buffer for so many events.
    pub(crate) fn lost(count: u64) -> Self {
        let reason = format!("{count} events found the ring buffer full; the counters in the metrics are complete");
        Self::Lost { count, reason }
    }

    /// Its word in JSON.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Attach(_) => "attach",
            Self::Detach(_) => "detach",
            Self::Takeover { .. } => "takeover",
            Self::Stay { .. } => "stay",
            Self::AttachError { .. } => "attach_error",
            Self::Trip(_) => "trip",
            Self::Extend(_) => "extend",
            Self::Release(_) => "release",
            Self::Expire(_) => "expire",
            Self::OverBudget(_) => "over_budget",
            Self::WithinBudget(_) => "within_budget",
            Self::SearchWalk(_) => "search_walk",
            Self::Lost { .. } => "lost",
            Self::Policy { .. } => "policy",
            Self::Reload { .. } => "reload",
            Self::Allow(_) => "allow",
            Self::Disallow(_) => "disallow",
            Self::Lease { .. } => "lease",
            Self::AllowanceExceeded { .. } => "allowance_exceeded",
            Self::NoAllowances { .. } => "no_allowance_counters",
        }
    }

    /// The JSON object of an event that was told at `now`, without a newline.
    pub(crate) fn json(&self, now: SystemTime) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            schema: u32,
            event: &'static str,
            time: String,
            #[serde(flatten)]
            event_fields: &'a Event,
        }
        let line = Line {
            schema: SCHEMA,
            event: self.word(),
            time: rfc3339(now),
            event_fields: self,
        };
        // Strings, numbers and lists: nothing in it can fail.
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Whether somebody should look at it.
    const fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Trip(_)
                | Self::Extend(_)
                | Self::AttachError { .. }
                | Self::OverBudget(_)
                | Self::SearchWalk(_)
                | Self::Lost { .. }
                | Self::Reload { successful: false, .. }
                | Self::Lease { .. }
                | Self::AllowanceExceeded { .. }
        )
    }
}

/// The line of the log.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { reason, .. }
            | Self::Takeover { reason, .. }
            | Self::Stay { reason, .. }
            | Self::Lost { reason, .. }
            | Self::Policy { reason, .. }
            | Self::Reload { reason, .. }
            | Self::Allow(Allowance { reason, .. })
            | Self::Disallow(Allowance { reason, .. })
            | Self::Lease { reason, .. }
            | Self::AllowanceExceeded { reason, .. }
            | Self::NoAllowances { reason, .. } => f.write_str(reason),
            Self::OverBudget(OverBudget { reason, .. }) => write!(f, "storm: {reason}"),
            Self::WithinBudget(WithinBudget { reason, .. }) => write!(f, "storm over: {reason}"),
            Self::SearchWalk(SearchWalk { reason, .. }) => write!(f, "search list: {reason}"),
            Self::Attach(hooked) => write!(f, "attached {hooked}"),
            Self::Detach(hooked) => write!(f, "detached {hooked}"),
            Self::AttachError { device, hook, reason } => write!(f, "cannot attach {hook} to {device}: {reason}"),
            Self::Trip(Breaker {
                reason,
                device,
                packet: Some(packet),
                ..
            }) => write!(
                f,
                "{}: {reason} ({} on {device}, {} recirculated, cut in {} ms, from {} to {})",
                if packet.proof == PROVEN {
                    "loop"
                } else {
                    "suspected loop"
                },
                packet.evidence,
                packet.recirculated,
                packet.cut_ms.unwrap_or_default(),
                packet.from,
                packet.to,
            ),
            Self::Trip(breaker) | Self::Extend(breaker) | Self::Release(breaker) | Self::Expire(breaker) => {
                write!(f, "{}: {} ({})", self.word(), breaker.reason, breaker.device)
            }
        }
    }
}

const fn promise(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe mode, loops and storms are told and no packet is touched",
        Mode::Enforce => "enforce mode, looped queries and what is over budget are answered or dropped",
    }
}

impl Hooked {
    fn new(attachment: &Attachment, reason: String) -> Self {
        Self {
            device: attachment.device.clone(),
            hook: attachment.hook.word(),
            method: attachment.method.word(),
            program_id: attachment.program_id,
            neighbours: Vec::new(),
            reason,
        }
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            hook,
            method,
            program_id,
            reason,
            ..
        } = self;
        write!(f, "{hook} on {device} by {method}, program {program_id}")?;
        if reason.is_empty() {
            Ok(())
        } else {
            write!(f, ": {reason}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::*;
    use crate::attachment::{Hook, Method};

    fn at(seconds: u64, ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms)
    }

    pub(super) fn value(event: &Event) -> Value {
        serde_json::from_str(&event.json(at(1_795_000_000, 7))).unwrap()
    }

    pub(super) fn trip() -> Event {
        Event::Trip(Breaker {
            name: "x.consul.".to_owned(),
            qtype: "A".to_owned(),
            qclass: "IN".to_owned(),
            key: "00000000000000ff".to_owned(),
            device: "lo".to_owned(),
            hook: "tc-ingress",
            packet: Some(Packet {
                proof: PROVEN,
                evidence: "mark",
                bits: Some(21),
                rapid: true,
                recirculated: 6,
                hops: 14,
                cut_ms: Some(3),
                hold_ms: 1_000,
                verdict: "answer",
                id: 0xbeef,
                from: ([127, 0, 0, 1], 40_123).into(),
                to: ([127, 0, 0, 1], 53).into(),
            }),
            held: 1,
            open_ms: 0,
            servers: vec![([127, 0, 0, 1], 53).into(), ([0, 0, 0, 0, 0, 0, 0, 1], 8_600).into()],
            device_pod: None,
            pods: BTreeMap::new(),
            reason: "it went round".to_owned(),
        })
    }

    #[test]
    fn a_trip_has_every_field_a_reader_counts_on() {
        let expected = json!({
            "schema": 1, "event": "trip", "time": "2026-11-18T11:06:40.007Z",
            "name": "x.consul.", "type": "A", "class": "IN", "key": "00000000000000ff",
            "device": "lo", "hook": "tc-ingress", "proof": "proven", "evidence": "mark", "bits": 21, "rapid": true,
            "recirculated": 6, "hops": 14,
            "cut_ms": 3, "hold_ms": 1000, "verdict": "answer", "held": 1, "open_ms": 0,
            "id": 48879, "from": "127.0.0.1:40123", "to": "127.0.0.1:53", "loop": ["127.0.0.1:53", "[::1]:8600"],
            "reason": "it went round",
        });
        assert_eq!(value(&trip()), expected);
        assert!(
            trip()
                .json(at(0, 0))
                .starts_with(r#"{"schema":1,"event":"trip","time":"1970-01-01T00:00:00.000Z","#)
        );
        assert_eq!(
            trip().to_string(),
            "loop: it went round (mark on lo, 6 recirculated, cut in 3 ms, from 127.0.0.1:40123 to 127.0.0.1:53)"
        );
    }

    #[test]
    fn a_suspicion_is_called_one() {
        let mut suspected = trip();
        if let Event::Trip(Breaker {
            packet: Some(packet), ..
        }) = &mut suspected
        {
            packet.proof = SUSPECTED;
            packet.bits = None;
        }
        assert_eq!(value(&suspected)["proof"], "suspected");
        assert!(value(&suspected).get("bits").is_none());
        assert!(suspected.to_string().starts_with("suspected loop: it went round ("));
    }

    #[test]
    fn a_breaker_without_a_packet_leaves_its_fields_out() {
        let expired = value(&Event::Expire(Breaker::default()));
        assert_eq!(expired["event"], "expire");
        assert!(
            expired.get("from").is_none() && expired.get("packet").is_none(),
            "{expired}"
        );
    }

    #[test]
    fn a_storm_has_every_field_a_reader_counts_on() {
        let storm = Event::OverBudget(OverBudget {
            budget: "aws-link-local".to_owned(),
            device: Some("eth0".to_owned()),
            device_pod: None,
            limit: Some(900.0),
            shed: 1_234,
            shed_per_second: 4_100,
            offered_per_second: 5_000,
            mode: "enforce",
            zones: vec![ZoneShare {
                zone: "104.in-addr.arpa.".to_owned(),
                share: 0.98,
                error: 0.01,
            }],
            clients: vec![ClientShare {
                client: "10.9.0.66".to_owned(),
                share: 0.99,
                error: 0.01,
                pod: None,
            }],
            names: vec![NameShare {
                name: "1.2.16.104.in-addr.arpa.".to_owned(),
                qtype: "PTR".to_owned(),
                share: 0.01,
                error: 0.01,
            }],
            reason: "it is over".to_owned(),
        });
        let expected = json!({
            "schema": 1, "event": "over_budget", "time": "2026-11-18T11:06:40.007Z",
            "budget": "aws-link-local", "device": "eth0", "limit": 900, "shed": 1234, "shed_per_second": 4100,
            "offered_per_second": 5000, "mode": "enforce",
            "zones": [{"zone": "104.in-addr.arpa.", "share": 0.98, "error": 0.01}],
            "clients": [{"client": "10.9.0.66", "share": 0.99, "error": 0.01}],
            "names": [{"name": "1.2.16.104.in-addr.arpa.", "type": "PTR", "share": 0.01, "error": 0.01}],
            "reason": "it is over",
        });
        assert_eq!(value(&storm), expected);
        assert_eq!(storm.to_string(), "storm: it is over");
        let rule = value(&Event::OverBudget(OverBudget::default()));
        assert!(rule.get("limit").is_none() && rule.get("device").is_none(), "{rule}");
        let slow = OverBudget {
            limit: Some(0.5),
            ..OverBudget::default()
        };
        assert_eq!(value(&Event::OverBudget(slow))["limit"], 0.5);
    }

    #[test]
    fn the_end_of_a_storm_and_a_walk_have_theirs() {
        let over = value(&Event::WithinBudget(WithinBudget {
            budget: "per client".to_owned(),
            device: None,
            shed: 7,
            seconds: 12,
            reason: "it is over".to_owned(),
        }));
        let expected = json!({
            "schema": 1, "event": "within_budget", "time": "2026-11-18T11:06:40.007Z",
            "budget": "per client", "shed": 7, "seconds": 12, "reason": "it is over",
        });
        assert_eq!(over, expected);
        let walk = value(&Event::SearchWalk(SearchWalk {
            client: [10, 9, 0, 7].into(),
            pod: None,
            wasted: 120,
            queries: 150,
            suffixes: vec!["svc.cluster.local.".to_owned()],
            example: "www.example.com.".to_owned(),
            reason: "it walks".to_owned(),
        }));
        let expected = json!({
            "schema": 1, "event": "search_walk", "time": "2026-11-18T11:06:40.007Z",
            "client": "10.9.0.7", "wasted": 120, "queries": 150, "suffixes": ["svc.cluster.local."],
            "example": "www.example.com.", "reason": "it walks",
        });
        assert_eq!(walk, expected);
    }

    #[test]
    fn an_attachment_says_where_how_and_why() {
        let attachment = Attachment {
            device: "eth0".to_owned(),
            ifindex: 2,
            hook: Hook::TcIngress,
            method: Method::Clsact,
            program_id: 77,
            reason: "this kernel has no tcx".to_owned(),
            neighbours: vec!["tcx ingress: cil_from_netdev (id 7), most likely Cilium's".to_owned()],
        };
        let expected = json!({
            "schema": 1, "event": "attach", "time": "2026-11-18T11:06:40.007Z", "device": "eth0",
            "hook": "tc-ingress", "method": "clsact", "program_id": 77,
            "neighbours": ["tcx ingress: cil_from_netdev (id 7), most likely Cilium's"], "reason": "this kernel has no tcx",
        });
        assert_eq!(value(&Event::attach(&attachment)), expected);
        let shown = Event::attach(&attachment).to_string();
        assert_eq!(
            shown,
            "attached tc-ingress on eth0 by clsact, program 77: this kernel has no tcx"
        );
        let detached = value(&Event::detach(&attachment, "stopping"));
        assert_eq!(
            (&detached["reason"], detached.get("neighbours")),
            (&"stopping".into(), None)
        );
    }

    #[test]
    fn an_exceeded_allowance_has_its_type_and_both_counts() {
        let mut event = Event::AllowanceExceeded {
            device: "ens5".to_owned(),
            kind: "linklocal",
            dropped: 12,
            our_packets_per_second: Some(1_400),
            reason: "AWS dropped them".to_owned(),
        };
        let mut expected = json!({
            "schema": 1, "event": "allowance_exceeded", "time": "2026-11-18T11:06:40.007Z", "device": "ens5",
            "type": "linklocal", "dropped": 12, "our_packets_per_second": 1400, "reason": "AWS dropped them",
        });
        assert_eq!(value(&event), expected);
        assert_eq!(event.to_string(), "AWS dropped them");
        if let Event::AllowanceExceeded {
            our_packets_per_second: ours,
            ..
        } = &mut event
        {
            *ours = None;
        }
        expected.as_object_mut().unwrap().remove("our_packets_per_second");
        assert_eq!(value(&event), expected);
    }

    #[test]
    fn a_driver_without_allowances_is_no_warning() {
        let event = Event::NoAllowances {
            device: "lo".to_owned(),
            driver: None,
            reason: "it has none".to_owned(),
        };
        let expected = json!({
            "schema": 1, "event": "no_allowance_counters", "time": "2026-11-18T11:06:40.007Z", "device": "lo",
            "reason": "it has none",
        });
        assert_eq!(value(&event), expected);
        assert!(!event.is_warning());
    }

    #[test]
    fn every_event_is_one_line_with_a_reason() {
        let reason = || "because".to_owned();
        for event in [
            Event::ready(Mode::Observe, vec!["lo".to_owned(), "eth0".to_owned()]),
            Event::AttachError {
                device: "lo".to_owned(),
                hook: "xdp",
                reason: reason(),
            },
            Event::lost(3),
            Event::policy(2, Mode::Enforce),
            Event::Lease {
                seconds_left: 12,
                reason: reason(),
            },
        ] {
            let line = event.json(at(0, 0));
            assert!(!line.contains('\n'), "{line}");
            let value = value(&event);
            assert_eq!(value["event"], event.word());
            assert!(value["reason"].is_string() && !event.to_string().is_empty(), "{value}");
        }
    }
}
