//! The metrics, as text for Prometheus.
//!
//! A scrape fetches one [`Snapshot`] and shows it whole: nothing is counted here. Every series that can be known in
//! advance is there from the first scrape on, with 0.

#[cfg(test)]
mod documented;
mod scrape;

use std::{fmt, sync::Arc};

use prometheus_client::{encoding::text, registry::Registry};

use self::scrape::Scrape;
use crate::snapshot::Snapshot;

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Its media type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    source: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Metrics that show what `source` returns at each scrape.
    pub(crate) fn new(source: impl Fn() -> Snapshot + Send + Sync + 'static) -> Self {
        let source: Arc<dyn Fn() -> Snapshot + Send + Sync> = Arc::new(source);
        let mut registry = Registry::with_prefix("dnsguard");
        let scraped = Arc::clone(&source);
        registry.register_collector(Box::new(Scrape(move || scraped())));
        Self {
            source,
            registry: Arc::new(registry),
        }
    }

    /// What they would show, as of now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        (self.source)()
    }

    /// The exposition, as of now.
    pub(crate) fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let mut exposition = String::new();
        text::encode(&mut exposition, &self.registry)?;
        Ok(match format {
            Format::OpenMetrics => exposition,
            Format::Text => to_text_format(&exposition),
        })
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Turns OpenMetrics into the older text format. That names a counter in HELP and TYPE as in its samples, with `_total`,
/// has no type for `_info`, and no end mark.
fn to_text_format(exposition: &str) -> String {
    let mut text = String::with_capacity(exposition.len() + 1_024);
    let mut help = "";
    for line in exposition.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, metric_type)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, metric_type) = match metric_type {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            text += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {metric_type}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use guard_common::{
        budget::Service,
        counter::{Counter, Counters, action_index, link_index},
        policy::Mode,
        remedy::{Reason, Verdict},
    };

    use super::{scrape::FAMILIES, *};
    use crate::{
        attachment::{Attachment, Hook, Method},
        question::Question,
        snapshot::{Allowed, BudgetCount, Held, Link, Open, OpenLoop, Reload, Standing, Standings},
    };

    fn attachment(hook: Hook) -> Attachment {
        Attachment {
            device: "lo".to_owned(),
            ifindex: 1,
            hook,
            method: Method::Tcx,
            program_id: 77,
            reason: String::new(),
            neighbours: Vec::new(),
        }
    }

    fn standing(name: &str, qtype: &str) -> Standing {
        Standing {
            name: name.to_owned(),
            qtype: qtype.to_owned(),
            per_second: 4_600.5,
            error_per_second: 12.25,
            share: 0.9,
            share_error: 0.01,
        }
    }

    pub(super) fn snapshot() -> Snapshot {
        let mut counters = Counters::default();
        for (index, counter) in counters.0.iter_mut().enumerate() {
            *counter = 100 + index as u64;
        }
        let mut snapshot = Snapshot {
            mode: Mode::Enforce,
            policy_generation: 3,
            reload: Reload {
                successful: true,
                success_seconds: 1_795_000_000.5,
                error: None,
            },
            allowed: vec![Allowed {
                key: 1,
                question: Question::new("x.consul", "A").unwrap(),
                by_hand: true,
                until_ns: None,
            }],
            lease_seconds: 29.5,
            attachments: vec![attachment(Hook::TcEgress), attachment(Hook::TcIngress)],
            lines_lost: 4,
            loops: vec![OpenLoop {
                key: 1,
                name: "x.consul.".to_owned(),
                qtype: "A".to_owned(),
                device: "lo".to_owned(),
                until_ns: 1,
                held: 7,
                ..OpenLoop::default()
            }],
            open: Open {
                named: vec![("x\\\".consul.".to_owned(), "A".to_owned(), 1)],
                other: 2,
            },
            held: Held {
                named: vec![("x\\\".consul.".to_owned(), "A".to_owned(), 7)],
                other: 8,
            },
            budgets: vec![BudgetCount {
                budget: "per \"client\"".to_owned(),
                limit: 0.5,
                scope: "client",
                within: 70,
                over: 7,
            }],
            links: BTreeMap::from([(
                "lo".to_owned(),
                Link {
                    limit: 900.0,
                    peak: 875.5,
                },
            )]),
            top: Standings {
                queries_per_second: 5_000.0,
                zones: vec![standing("104.in-addr.arpa.", "")],
                clients: vec![standing("10.9.0.66", "")],
                keys: vec![standing("x\\\".consul.", "A"), standing(&"\\000".repeat(64), "A")],
            },
            search_wasted: 80,
            ena_exceeded: vec![("lo".to_owned(), "linklocal", 12)],
            ena_conntrack_available: vec![("lo".to_owned(), 136_812)],
            map_bytes: BTreeMap::from([("KEYS", 8 << 20)]),
            map_pressure: BTreeMap::from([("KEYS", 0.125)]),
            ..Snapshot::default()
        };
        snapshot.add_counters("lo", &counters);
        snapshot.add_counters("eth0", &Counters::default());
        snapshot.add_attach_error("eth0", Hook::Xdp);
        snapshot
    }

    fn render(snapshot: Snapshot, format: Format) -> String {
        Metrics::new(move || snapshot.clone()).render(format).unwrap()
    }

    #[test]
    fn every_series_stands_once_under_one_type() {
        for format in [Format::Text, Format::OpenMetrics] {
            let exposition = render(snapshot(), format);
            let (mut series, mut types) = (HashSet::new(), HashSet::new());
            let mut family = "";
            for line in exposition.lines() {
                if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
                    assert!(types.insert(name), "two types for {name}");
                    assert_eq!(family, name, "help and type differ");
                } else if let Some(rest) = line.strip_prefix("# HELP ") {
                    family = rest.split(' ').next().unwrap();
                    assert!(rest.len() > family.len() + 10, "no help: {line}");
                } else if !line.starts_with('#') {
                    let (key, value) = line.rsplit_once(' ').unwrap();
                    assert!(series.insert(key), "{key} twice");
                    assert!(
                        key.starts_with("dnsguard_") && key.starts_with(family),
                        "{key} under {family}"
                    );
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                }
            }
            assert_eq!(types.len(), FAMILIES.len() + 30);
        }
    }

    #[test]
    fn the_kernels_counters_are_shown_by_device() {
        let exposition = render(snapshot(), Format::Text);
        let drop = 100 + action_index(Verdict::WouldDrop, Reason::Silenced);
        for expected in [
            "dnsguard_dns_queries_total{device=\"lo\",family=\"ipv4\"} 100",
            "dnsguard_dns_queries_total{device=\"eth0\",family=\"ipv6\"} 0",
            "dnsguard_dns_responses_total{device=\"lo\",outcome=\"error\"} 103",
            "dnsguard_tcp_segments_total{device=\"lo\"} 104",
            "dnsguard_unread_total{device=\"lo\",kind=\"question_count\"} 109",
            "dnsguard_trips_total{device=\"lo\"} 114",
            "dnsguard_passed_total{device=\"lo\",reason=\"lease_over\"} 118",
            "dnsguard_answer_failures_total{device=\"lo\"} 120",
            &format!("dnsguard_actions_total{{device=\"lo\",action=\"would_drop\",reason=\"silenced\"}} {drop}"),
            "dnsguard_actions_total{device=\"eth0\",action=\"answer\",reason=\"loop\"} 0",
        ] {
            assert!(
                exposition.lines().any(|line| line == expected),
                "{expected} is not in\n{exposition}"
            );
        }
    }

    #[test]
    fn the_agent_shows_its_state() {
        let exposition = render(snapshot(), Format::Text);
        for expected in [
            "dnsguard_loops_active 1",
            r#"dnsguard_loop_open{qname="x\\\".consul.",type="A"} 1"#,
            r#"dnsguard_loop_open{qname="~other",type="~other"} 2"#,
            r#"dnsguard_loop_held_total{qname="x\\\".consul.",type="A"} 7"#,
            r#"dnsguard_loop_held_total{qname="~other",type="~other"} 8"#,
            r#"dnsguard_attachment_info{device="lo",hook="tc-ingress",method="tcx",program_id="77"} 1"#,
            r#"dnsguard_attach_errors_total{device="eth0",hook="xdp"} 1"#,
            r#"dnsguard_events_lost_total{stage="ring"} 119"#,
            r#"dnsguard_events_lost_total{stage="output"} 4"#,
            r#"dnsguard_mode{mode="observe"} 0"#,
            r#"dnsguard_mode{mode="enforce"} 1"#,
            "dnsguard_policy_generation 3",
            "dnsguard_config_last_reload_successful 1",
            "dnsguard_config_last_reload_success_timestamp_seconds 1795000000.5",
            "dnsguard_allowed_keys 1",
            "dnsguard_lease_seconds_remaining 29.5",
            r#"dnsguard_map_bytes{map="KEYS"} 8388608"#,
            r#"dnsguard_map_pressure_ratio{map="KEYS"} 0.125"#,
            concat!("dnsguard_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(
                exposition.lines().any(|line| line == expected),
                "{expected} is not in\n{exposition}"
            );
        }
    }

    #[test]
    fn storms_are_shown() {
        let exposition = render(snapshot(), Format::Text);
        let imds = 100 + link_index(Service::Imds);
        let lost = 100 + Counter::SamplesLost as usize;
        let share = 100 + action_index(Verdict::Drop, Reason::Share);
        for expected in [
            r#"dnsguard_budget_packets_total{budget="per \"client\"",result="within"} 70"#,
            r#"dnsguard_budget_packets_total{budget="per \"client\"",result="over"} 7"#,
            r#"dnsguard_budget_limit_packets_per_second{budget="per \"client\"",scope="client"} 0.5"#,
            &format!("dnsguard_link_local_packets_total{{device=\"lo\",service=\"imds\"}} {imds}"),
            r#"dnsguard_link_local_limit_packets_per_second{device="lo"} 900.0"#,
            r#"dnsguard_link_local_peak_packets_per_second{device="lo"} 875.5"#,
            &format!("dnsguard_actions_total{{device=\"lo\",action=\"drop\",reason=\"share\"}} {share}"),
            r#"dnsguard_actions_total{device="eth0",action="answer",reason="recursion"} 0"#,
            r#"dnsguard_ena_allowance_exceeded_total{device="lo",type="linklocal"} 12"#,
            r#"dnsguard_ena_conntrack_allowance_available{device="lo"} 136812"#,
            r#"dnsguard_top_queries_per_second{by="zone",name="104.in-addr.arpa.",type=""} 4600.5"#,
            r#"dnsguard_top_error_per_second{by="client",name="10.9.0.66",type=""} 12.25"#,
            r#"dnsguard_top_queries_per_second{by="key",name="x\\\".consul.",type="A"} 4600.5"#,
            "dnsguard_search_walk_wasted_queries_total 80",
            &format!("dnsguard_samples_lost_total {lost}"),
        ] {
            assert!(
                exposition.lines().any(|line| line == expected),
                "{expected} is not in\n{exposition}"
            );
        }
        // An interface without a link-local budget, a name too long for a label, an answer that is never given.
        for absent in [
            r#"link_local_packets_total{device="eth0""#,
            "\\000",
            r#"action="answer",reason="source""#,
        ] {
            assert!(!exposition.contains(absent), "{absent} is in\n{exposition}");
        }
    }

    #[test]
    fn a_client_that_is_a_pod_has_labels_for_it_and_without_a_source_nobody_has() {
        let mut snapshot = snapshot();
        assert!(!render(snapshot.clone(), Format::Text).contains("pod"));
        snapshot.pods = crate::pods::one("shop/cart-1", "10.9.0.66", "veth7").sight([]);
        let exposition = render(snapshot, Format::Text);
        for expected in [
            r#"dnsguard_top_queries_per_second{by="client",name="10.9.0.66",type="",client_namespace="shop",client_pod="cart-1"} 4600.5"#,
            r#"dnsguard_top_queries_per_second{by="zone",name="104.in-addr.arpa.",type="",client_namespace="",client_pod=""} 4600.5"#,
            "dnsguard_pods_named 1",
            "dnsguard_pods_failures_total 0",
        ] {
            assert!(
                exposition.lines().any(|line| line == expected),
                "{expected} is not in\n{exposition}"
            );
        }
    }

    #[test]
    fn a_fresh_agent_shows_zeroes() {
        let exposition = render(Snapshot::default(), Format::Text);
        assert!(
            exposition.contains("dnsguard_loop_held_total{qname=\"~other\",type=\"~other\"} 0\n"),
            "{exposition}"
        );
        assert!(exposition.contains("dnsguard_loops_active 0\n"), "{exposition}");
        assert!(
            exposition.contains("dnsguard_loop_open{qname=\"~other\",type=\"~other\"} 0\n"),
            "{exposition}"
        );
    }

    #[test]
    fn names_that_read_alike_share_a_series() {
        let named = || ("a.".to_owned(), "A".to_owned(), 7);
        let held = Held {
            named: vec![named(), named()],
            other: 0,
        };
        let exposition = render(
            Snapshot {
                held,
                ..Snapshot::default()
            },
            Format::Text,
        );
        assert!(
            exposition.contains("dnsguard_loop_held_total{qname=\"a.\",type=\"A\"} 14\n"),
            "{exposition}"
        );
    }

    #[test]
    fn each_format_has_its_own_marks() {
        let open = render(snapshot(), Format::OpenMetrics);
        assert!(open.ends_with("\n# EOF\n"));
        assert!(open.contains("# TYPE dnsguard_trips counter\n") && open.contains("# TYPE dnsguard_build info\n"));
        let text = render(snapshot(), Format::Text);
        assert!(!text.contains("EOF") && text.ends_with('\n'));
        assert!(text.contains("# TYPE dnsguard_trips_total counter\n"));
        assert!(
            text.contains("# HELP dnsguard_build_info The version of the agent.\n# TYPE dnsguard_build_info gauge\n")
        );
    }
}
