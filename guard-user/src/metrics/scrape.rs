//! One scrape: a snapshot, written family by family.

use std::{collections::BTreeMap, fmt};

use guard_common::{
    budget::Service,
    counter::{Counter, Counters, link_index},
    remedy::{Reason, Verdict},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue},
    metrics::MetricType,
};

use crate::{
    attachment::Hook,
    config::{MODES, mode_word},
    pods::Sight,
    snapshot::{Snapshot, Standing},
};

/// The QNAME and the QTYPE of all looped names that have no series of their own.
const OTHER: &str = "~other";
/// Longer names have no series: they consist of escapes.
const MAX_LABEL_LEN: usize = 255;

/// Collects from a source of snapshots.
pub(super) struct Scrape<S>(pub(super) S);

impl<S> fmt::Debug for Scrape<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl<S: Fn() -> Snapshot + Send + Sync + 'static> Collector for Scrape<S> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = (self.0)();
        let mut exposition = Exposition(encoder);
        kernel_counters(&mut exposition, &snapshot)?;
        loops(&mut exposition, &snapshot)?;
        budgets(&mut exposition, &snapshot)?;
        links(&mut exposition, &snapshot)?;
        offenders(&mut exposition, &snapshot)?;
        pods(&mut exposition, &snapshot)?;
        attachments(&mut exposition, &snapshot)?;
        agent(&mut exposition, &snapshot)
    }
}

fn kernel_counters(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    for Family {
        name,
        help,
        label,
        rows,
    } in FAMILIES
    {
        let mut series = Vec::new();
        for (device, counters) in &snapshot.devices {
            for (value, counter) in *rows {
                let labels = [("device", device.as_str()), (*label, *value)];
                let used = if label.is_empty() { 1 } else { 2 };
                series.push((labels[..used].to_vec(), counters.get(*counter)));
            }
        }
        exposition.counter(name, help, &series)?;
    }
    let mut actions = Vec::new();
    for (device, counters) in &snapshot.devices {
        for (verdict, reason) in known_actions() {
            let labels = vec![
                ("device", device.as_str()),
                ("action", verdict.word()),
                ("reason", reason.word()),
            ];
            actions.push((labels, counters.action(verdict, reason)));
        }
    }
    exposition.counter(
        "actions",
        "Held and shed queries by what happened to them, or would have in enforce mode.",
        &actions,
    )
}

/// Every reason can be one for a drop; only some are for an answer.
fn known_actions() -> impl Iterator<Item = (Verdict, Reason)> {
    let verdicts = [Verdict::Answer, Verdict::WouldAnswer, Verdict::Drop, Verdict::WouldDrop];
    verdicts
        .into_iter()
        .flat_map(|verdict| Reason::ALL.map(|reason| (verdict, reason)))
        .filter(|(verdict, reason)| match verdict {
            Verdict::Answer | Verdict::WouldAnswer => is_answered(*reason),
            Verdict::Pass | Verdict::Drop | Verdict::WouldDrop => true,
        })
}

const fn is_answered(reason: Reason) -> bool {
    match reason {
        Reason::Loop | Reason::Budget | Reason::Repeat | Reason::Share | Reason::Exhausted | Reason::Recursion => true,
        Reason::Untrusted | Reason::Silenced | Reason::Unanswerable | Reason::Resolver | Reason::Source => false,
    }
}

fn loops(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    exposition.gauge(
        "loops_active",
        "Breakers that are open, as far as the agent knows.",
        &[(vec![], snapshot.loops.len() as u64)],
    )?;
    let mut series = BTreeMap::from([((OTHER, OTHER), snapshot.open.other)]);
    for (name, qtype, breakers) in &snapshot.open.named {
        *series.entry((name, qtype)).or_default() += breakers;
    }
    let help = "Breakers that are open, by name; those beyond the configured number of names share ~other.";
    exposition.gauge("loop_open", help, &by_name(series))?;
    // Two names can read alike only if somebody else made the snapshot: a scrape with a series twice is refused whole.
    let mut series = BTreeMap::from([((OTHER, OTHER), snapshot.held.other)]);
    for (name, qtype, held) in &snapshot.held.named {
        *series.entry((name, qtype)).or_default() += held;
    }
    let help = "Queries held in a loop, by name; those beyond the configured number of names share ~other.";
    exposition.counter("loop_held", help, &by_name(series))
}

/// Series with the labels of a question.
fn by_name<'a>(values: BTreeMap<(&'a str, &'a str), u64>) -> Vec<(Labels<'a>, u64)> {
    let labels = |(name, qtype)| vec![("qname", name), ("type", qtype)];
    values
        .into_iter()
        .map(|(question, value)| (labels(question), value))
        .collect()
}

fn budgets(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (mut packets, mut limits) = (Vec::new(), Vec::new());
    for count in &snapshot.budgets {
        let budget = ("budget", count.budget.as_str());
        packets.push((vec![budget, ("result", "within")], count.within));
        packets.push((vec![budget, ("result", "over")], count.over));
        limits.push((vec![budget, ("scope", count.scope)], count.limit));
    }
    let help = "Queries that a budget had room for, and those that it had none for, whatever happened to them.";
    exposition.counter("budget_packets", help, &packets)?;
    let help = "What a budget allows to each client, key, zone or interface it tells apart.";
    exposition.gauge("budget_limit_packets_per_second", help, &limits)
}

fn links(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (mut packets, mut limits, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for (device, link) in &snapshot.links {
        let device = ("device", device.as_str());
        let counters = snapshot.devices.get(device.1).copied().unwrap_or_default();
        for service in Service::ALL {
            packets.push((
                vec![device, ("service", service.word())],
                counters.0[link_index(service)],
            ));
        }
        limits.push((vec![device], link.limit));
        peaks.push((vec![device], link.peak));
    }
    exposition.counter(
        "link_local_packets",
        "Packets that went out to link-local services.",
        &packets,
    )?;
    let help = "What the link-local budget of an interface allows.";
    exposition.gauge("link_local_limit_packets_per_second", help, &limits)?;
    let help = "The most packets that went out to link-local services in a second of the last minute or two.";
    exposition.gauge("link_local_peak_packets_per_second", help, &peaks)?;
    let exceeded: Vec<_> = snapshot
        .ena_exceeded
        .iter()
        .map(|(device, allowance, packets)| (vec![("device", device.as_str()), ("type", *allowance)], *packets))
        .collect();
    let help = "Packets that AWS queued or dropped because an allowance was exceeded, as the ENA driver reports.";
    exposition.counter("ena_allowance_exceeded", help, &exceeded)?;
    let available: Vec<_> = snapshot
        .ena_conntrack_available
        .iter()
        .map(|(device, connections)| (vec![("device", device.as_str())], *connections))
        .collect();
    let help = "Connections that AWS can still track, as the ENA driver reports.";
    exposition.gauge("ena_conntrack_allowance_available", help, &available)
}

fn offenders(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    let boards = [
        ("zone", &snapshot.top.zones),
        ("client", &snapshot.top.clients),
        ("key", &snapshot.top.keys),
    ];
    let pod_of = |by: &str, found: &Standing| {
        let pod = (by == "client").then(|| snapshot.pod_of(found)).flatten();
        pod.map_or(("", ""), |pod| (pod.namespace(), pod.name()))
    };
    // In a map, because a scrape with a series twice is refused whole.
    let series: BTreeMap<_, _> = boards
        .into_iter()
        .flat_map(|(by, board)| {
            board
                .iter()
                .map(move |found| ((by, found.name.as_str(), found.qtype.as_str()), found))
        })
        .filter(|((_, name, _), _)| name.len() <= MAX_LABEL_LEN)
        .collect();
    let gauge = |value: fn(&Standing) -> f64| -> Vec<_> {
        let series = series.iter();
        series
            .map(|((by, name, qtype), found)| {
                let (namespace, pod) = pod_of(by, found);
                let mut labels = vec![("by", *by), ("name", *name), ("type", *qtype)];
                // Where pods are not named at all, there is no label for them.
                if snapshot.pods.source.is_some() {
                    labels.extend([("client_namespace", namespace), ("client_pod", pod)]);
                }
                (labels, value(found))
            })
            .collect()
    };
    exposition.gauge(
        "top_queries_per_second",
        "Queries of the heaviest zones, clients and keys in the last ten seconds or so.",
        &gauge(|found| found.per_second),
    )?;
    exposition.gauge(
        "top_error_per_second",
        "By how much that can be off.",
        &gauge(|found| found.error_per_second),
    )?;
    exposition.counter(
        "search_walk_wasted_queries",
        "Queries for names below a search suffix that nobody meant, at least.",
        &[(vec![], snapshot.search_wasted)],
    )?;
    let lost = snapshot
        .devices
        .values()
        .map(|counters| counters.get(Counter::SamplesLost))
        .sum::<u64>();
    exposition.counter(
        "samples_lost",
        "Samples of queries lost in the kernel's ring buffer.",
        &[(vec![], lost)],
    )
}

fn pods(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    let Sight { directory, source } = &snapshot.pods;
    let named: Vec<_> = source.iter().map(|_| (vec![], directory.len() as u64)).collect();
    let help = "Pods of this node that the agent can name; 0 where the container runtime does not answer.";
    exposition.gauge("pods_named", help, &named)?;
    let failures: Vec<_> = source.iter().map(|source| (vec![], source.failures)).collect();
    let help = "Attempts to ask the container runtime for pods that failed.";
    exposition.counter("pods_failures", help, &failures)
}

fn attachments(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    let ids: Vec<_> = snapshot
        .attachments
        .iter()
        .map(|attachment| attachment.program_id.to_string())
        .collect();
    let mut attached: Vec<_> = snapshot
        .attachments
        .iter()
        .zip(&ids)
        .map(|(attachment, id)| {
            vec![
                ("device", attachment.device.as_str()),
                ("hook", attachment.hook.word()),
                ("method", attachment.method.word()),
                ("program_id", id.as_str()),
            ]
        })
        .collect();
    attached.sort_unstable();
    attached.dedup();
    exposition.info("attachment", "Programs that are attached.", &attached)?;
    let errors: Vec<_> = snapshot
        .attach_errors
        .iter()
        .map(|((device, hook), count)| (vec![("device", device.as_str()), ("hook", *hook)], *count))
        .collect();
    exposition.counter("attach_errors", "Attempts to attach a program that failed.", &errors)?;
    exposition.gauge(
        "hooks_failing",
        "Hooks at which a program is to be attached and could not be.",
        &[(vec![], snapshot.hooks_failing as f64)],
    )?;
    let hooks = [Hook::Xdp, Hook::TcIngress, Hook::TcEgress].map(Hook::word);
    let by_hook = |counts: &BTreeMap<&'static str, u64>| {
        hooks.map(|hook| (vec![("hook", hook)], counts.get(hook).copied().unwrap_or_default()))
    };
    exposition.counter(
        "attaches",
        "Programs attached, at the start and as interfaces came.",
        &by_hook(&snapshot.attaches),
    )?;
    exposition.counter(
        "detaches",
        "Programs detached as interfaces went.",
        &by_hook(&snapshot.detaches),
    )
}

fn agent(exposition: &mut Exposition<'_>, snapshot: &Snapshot) -> fmt::Result {
    let ring: u64 = snapshot
        .devices
        .values()
        .map(|counters: &Counters| counters.get(Counter::EventsLost))
        .sum();
    exposition.counter(
        "events_lost",
        "Events lost in the kernel's ring buffer, or to a slow reader of the output or a full disk.",
        &[
            (vec![("stage", "ring")], ring),
            (vec![("stage", "output")], snapshot.lines_lost),
        ],
    )?;
    let modes: Vec<_> = MODES
        .map(|(_, mode)| (vec![("mode", mode_word(mode))], u64::from(mode == snapshot.mode)))
        .into();
    exposition.gauge("mode", "1 for the mode of the policy in force.", &modes)?;
    let generation = u64::from(snapshot.policy_generation);
    exposition.gauge(
        "policy_generation",
        "Counts the policies that have been put in force.",
        &[(vec![], generation)],
    )?;
    exposition.gauge(
        "config_last_reload_successful",
        "1 if the configuration that was to be loaded last is in force, 0 if the one before it is.",
        &[(vec![], u64::from(snapshot.reload.successful))],
    )?;
    exposition.gauge(
        "config_last_reload_success_timestamp_seconds",
        "When a configuration was last loaded, in seconds since 1970.",
        &[(vec![], snapshot.reload.success_seconds)],
    )?;
    exposition.gauge(
        "allowed_keys",
        "Names and types that the operator has allowed: they are only watched.",
        &[(vec![], snapshot.allowed.len() as u64)],
    )?;
    exposition.gauge(
        "lease_seconds_remaining",
        "Seconds until everything passes unless the agent renews its lease.",
        &[(vec![], snapshot.lease_seconds)],
    )?;
    let sizes: Vec<_> = snapshot
        .map_bytes
        .iter()
        .map(|(map, bytes)| (vec![("map", *map)], *bytes))
        .collect();
    exposition.gauge("map_bytes", "Bytes of kernel memory that a map takes.", &sizes)?;
    let pressure: Vec<_> = snapshot
        .map_pressure
        .iter()
        .map(|(map, share)| (vec![("map", *map)], *share))
        .collect();
    let help = "Share of the lines of a map that have no free place: a newcomer there makes somebody forgotten.";
    exposition.gauge("map_pressure_ratio", help, &pressure)?;
    exposition.info(
        "build",
        "The version of the agent.",
        &[vec![("version", env!("CARGO_PKG_VERSION"))]],
    )
}

/// Labels of a series.
type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Writes families. One without series is left out.
struct Exposition<'e>(DescriptorEncoder<'e>);

impl Exposition<'_> {
    fn counter(&mut self, name: &str, help: &str, series: &[(Labels<'_>, u64)]) -> fmt::Result {
        if series.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_counter::<[(&str, &str); 0], _, f64>(value, None)?;
            } else {
                family
                    .encode_family(&labels.as_slice())?
                    .encode_counter::<[(&str, &str); 0], _, f64>(value, None)?;
            }
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, series: &[(Labels<'_>, impl EncodeGaugeValue)]) -> fmt::Result {
        if series.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_gauge(value)?;
            } else {
                family.encode_family(&labels.as_slice())?.encode_gauge(value)?;
            }
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, series: &[Labels<'_>]) -> fmt::Result {
        if series.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        for labels in series {
            family.encode_info(&labels.as_slice())?;
        }
        Ok(())
    }
}

/// A counter of the kernel, in as many series as there are rows.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    /// The label that tells the rows apart beside `device`; empty where there is one row only.
    label: &'static str,
    rows: &'static [(&'static str, Counter)],
}

/// The counters that every interface has.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "dns_queries",
        help: "DNS queries over UDP that were read.",
        label: "family",
        rows: &[("ipv4", Counter::QueriesV4), ("ipv6", Counter::QueriesV6)],
    },
    Family {
        name: "dns_responses",
        help: "DNS responses over UDP that were read: an answer is NOERROR or NXDOMAIN, anything else is an error.",
        label: "outcome",
        rows: &[("answer", Counter::Answers), ("error", Counter::Errors)],
    },
    Family {
        name: "tcp_segments",
        help: "TCP segments with payload to or from a DNS port; they always pass.",
        label: "",
        rows: &[("", Counter::TcpSegments)],
    },
    Family {
        name: "unread",
        help: "Packets that passed because the guard does not read them.",
        label: "kind",
        rows: &[
            ("fragment", Counter::Fragments),
            ("header", Counter::BadHeader),
            ("short", Counter::ShortMessage),
            ("opcode", Counter::OtherOpcode),
            ("question_count", Counter::QuestionCount),
            ("name", Counter::BadName),
        ],
    },
    Family {
        name: "retransmits",
        help: "Queries seen again at a client's pace: no hops.",
        label: "",
        rows: &[("", Counter::Retransmits)],
    },
    Family {
        name: "seen_elsewhere",
        help: "Queries seen already on another interface of the node: no hops.",
        label: "",
        rows: &[("", Counter::SeenElsewhere)],
    },
    Family {
        name: "recirculations",
        help: "Queries that went to a server which already had the question.",
        label: "",
        rows: &[("", Counter::Recirculations)],
    },
    Family {
        name: "trips",
        help: "Breakers that opened: loops found.",
        label: "",
        rows: &[("", Counter::Trips)],
    },
    Family {
        name: "proofs",
        help: "Breakers that opened because a mark came back: loops proven, and not only suspected.",
        label: "",
        rows: &[("", Counter::Proofs)],
    },
    Family {
        name: "marks",
        help: "Suspect queries that were to be marked; no_room: too many marks were out, and it went on without.",
        label: "result",
        rows: &[("marked", Counter::Marked), ("no_room", Counter::NotMarked)],
    },
    Family {
        name: "mark_restorations",
        help: "Responses whose question got the spelling of its query back.",
        label: "",
        rows: &[("", Counter::Restored)],
    },
    Family {
        name: "extensions",
        help: "Breakers that stayed open because a test query got no answer.",
        label: "",
        rows: &[("", Counter::Extensions)],
    },
    Family {
        name: "releases",
        help: "Breakers that closed because a test query was answered.",
        label: "",
        rows: &[("", Counter::Releases)],
    },
    Family {
        name: "passed",
        help: "Queries that passed unjudged.",
        label: "reason",
        rows: &[("table_full", Counter::TableFull), ("lease_over", Counter::LeaseOver)],
    },
    Family {
        name: "answer_failures",
        help: "Held queries that were dropped because their answer could not be built.",
        label: "",
        rows: &[("", Counter::AnswerFailed)],
    },
];
