use guard_common::{
    budget::{Service, Subject},
    key::Key,
    policy::{Action, MAX_ROWS},
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::config::{Rcode, file};

const SECRET: Secret = Secret([
    0x1234_5678_9abc_def1,
    0x0fed_cba9_8765_4321,
    0x5555_aaaa_3333_cccc,
    0x77,
]);
const DNS: (IpAddr, Service) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 7, 0, 2)), Service::Dns);
const IMDS: (IpAddr, Service) = (IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)), Service::Imds);

fn config(text: &str) -> Config {
    match file::parse("f", text, None) {
        Ok(config) => config,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// A host with the interfaces lo and eth0 to eth5, with indexes of 1 and 10 to 15.
fn facts() -> Facts {
    let names = (0..6).map(|number| (format!("eth{number}"), 10 + number));
    let devices = names.chain([("lo".to_owned(), 1)]);
    Facts {
        services: devices.clone().map(|(name, _)| (name, vec![DNS, IMDS])).collect(),
        devices: devices.collect(),
        addresses: vec!["10.7.0.5".parse().unwrap(), "fe80::1".parse().unwrap()],
    }
}

/// What this configuration needs to know of that host.
fn facts_for(config: &Config) -> Facts {
    let mut facts = facts();
    let is_on = |name: &String| {
        let is_named = |link_local: &LinkLocal| link_local.interfaces(&config.attach).any(|named| named == name);
        config.link_local.as_ref().is_some_and(is_named)
    };
    facts.services.retain(|name, _| is_on(name));
    facts
}

fn compiled(text: &str) -> Compiled {
    let config = config(text);
    config.policy(&facts_for(&config), &SECRET).unwrap()
}

fn failure(text: &str) -> String {
    let config = config(text);
    config.policy(&facts_for(&config), &SECRET).unwrap_err().to_string()
}

fn address(text: &str) -> Address {
    kernel_address(text.parse().unwrap())
}

/// A query for a name that comes in on eth0, with the digests of its zones as the kernel finds them.
fn query(policy: &Policy, name: &str) -> Subject {
    let zones = policy.zone_labels.map(|labels| {
        let labels_of: Vec<_> = name.split('.').collect();
        let above = labels_of.len().checked_sub(labels.into()).filter(|_| labels > 0);
        let zone = above.map(|above| labels_of[above..].join("."));
        zone.map_or(0, |zone| zone.parse::<Zone>().unwrap().digest(&SECRET))
    });
    Subject {
        client: address("192.0.2.77"),
        server: address("10.7.0.5"),
        key: Key(7),
        zones,
        ifindex: 10,
        qtype: 1,
        egress: false,
        elsewhere: false,
        onward: false,
    }
}

/// The tags of the buckets that a query is charged to, row by row.
fn tags(policy: &Policy, subject: &Subject) -> Vec<Option<u64>> {
    let rows = (0..policy.row_count()).filter_map(|index| policy.row(index));
    rows.map(|row| row.tag(subject, &SECRET)).collect()
}

#[test]
fn the_kernel_gets_what_the_operator_wrote() {
    let mut config = Config {
        ports: vec![53, 8_600],
        ..Config::default()
    };
    config.answer.rcode = Rcode::Refused;
    config.mode = Mode::Enforce;
    let policy = config.policy(&facts(), &SECRET).unwrap().policy;
    assert_eq!(
        (policy.mode(), policy.action(), policy.rcode),
        (Mode::Enforce, Action::Answer, 5)
    );
    assert!(policy.has_port(53) && policy.has_port(8_600) && !policy.has_port(5_353));
    assert_eq!(
        policy.rules,
        Rules {
            hold_ticks: 954,
            hold_max_ticks: 286_103,
            test_ticks: 1_908,
            marks: 1
        }
    );
    assert_eq!(
        (policy.rapid_ticks, policy.answers_per_client, policy.answers_per_hold),
        (96, 16, 256)
    );
    assert_eq!(
        (policy.row_count(), policy.fine_clock, policy.zone_labels),
        (0, 0, [0; ZONES])
    );
    assert!(policy.link.is_empty() && policy.hygiene.is_empty());
}

#[test]
fn marks_are_put_in_enforce_mode_and_in_observe_mode_only_when_asked_for() {
    for (mode, marks, observe_marks, expected) in [
        (Mode::Enforce, true, false, 1),
        (Mode::Enforce, false, true, 0),
        (Mode::Observe, true, false, 0),
        (Mode::Observe, false, true, 1),
    ] {
        let config = Config {
            mode,
            marks,
            observe_marks,
            ..Config::default()
        };
        assert_eq!(config.policy(&facts(), &SECRET).unwrap().policy.rules.marks, expected);
    }
}

#[test]
fn the_default_trusts_private_ranges_and_nobody_else() {
    let policy = compiled("").policy;
    for trusted in [
        "127.0.0.53",
        "::1",
        "10.2.3.4",
        "172.31.0.1",
        "192.168.9.9",
        "169.254.20.10",
        "fe80::1",
        "fd00::1",
    ] {
        assert!(policy.trusts(&address(trusted)), "{trusted}");
    }
    for other in [
        "8.8.8.8",
        "172.32.0.1",
        "192.169.0.1",
        "2001:db8::1",
        "::2",
        "fec0::1",
        "126.0.0.1",
    ] {
        assert!(!policy.trusts(&address(other)), "{other}");
    }
}

#[test]
fn a_client_budget_has_a_row_for_each_pair_of_prefix_lengths() {
    let text = "[[budget]]\nname = 'b'\nscope = 'client'\nlimit = 200\nv4_prefixes = [24, 32]\nv6_prefixes = [64]\n";
    let policy = compiled(text).policy;
    let from = |client: &str| {
        let subject = Subject {
            client: address(client),
            ..query(&policy, "example.com")
        };
        let tags = tags(&policy, &subject);
        (tags[0].unwrap(), tags[1].unwrap())
    };
    let (own, network) = from("192.0.2.77");
    assert_ne!(own, network);
    assert_ne!(from("192.0.2.78").0, own);
    assert_eq!(from("192.0.2.78").1, network);
    assert_ne!(from("192.0.3.77").1, network);
    assert_eq!(from("2001:db8::1"), from("2001:db8::2"));
}

#[test]
fn rows_go_from_narrow_to_broad_whatever_the_order_of_the_file() {
    let text = "[[budget]]\nname = 'all'\nscope = 'all'\nlimit = 1\n\
                [[budget]]\nname = 'interface'\nscope = 'interface'\nlimit = 1\n\
                [[budget]]\nname = 'destination'\nscope = 'destination'\nlimit = 1\ndestinations = ['10.7.0.5/32']\n\
                [[budget]]\nname = 'zone'\nscope = 'zone'\nlimit = 1\nlabels = [1, 3]\n\
                [[budget]]\nname = 'zone of two'\nscope = 'zone'\nlimit = 1\n\
                [[budget]]\nname = 'client'\nscope = 'client'\nlimit = 1\nv4_prefixes = [16, 32]\nv6_prefixes = [64]\n\
                [[budget]]\nname = 'network'\nscope = 'client'\nlimit = 1\nv4_prefixes = [24]\nv6_prefixes = [56]\n\
                [[budget]]\nname = 'key'\nscope = 'key'\nlimit = 1\n";
    let config = config(text);
    let compiled = config.policy(&facts(), &SECRET).unwrap();
    let budget_of = |row: &BudgetRow| config.budgets[row.budget].name.as_str();
    let names: Vec<_> = compiled.rows.iter().map(budget_of).collect();
    assert_eq!(
        names,
        [
            "key",
            "client",
            "network",
            "client",
            "zone",
            "zone of two",
            "zone",
            "destination",
            "interface",
            "all"
        ]
    );
    let steps: Vec<_> = compiled.rows.iter().map(|row| row.step).collect();
    assert_eq!(steps, [0, 0, 0, 1, 0, 0, 1, 0, 0, 0]);
    assert_eq!(compiled.policy.zone_labels, [1, 2, 3, 0]);
}

#[test]
fn a_budget_with_zones_is_about_names_at_or_below_them_in_one_bucket() {
    let text = "[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 1\nzones = ['example.com', 'a.b.example.org']\n";
    let policy = compiled(text).policy;
    let charged = |name: &str| -> Vec<u64> { tags(&policy, &query(&policy, name)).into_iter().flatten().collect() };
    let bucket = charged("example.com");
    assert_eq!(bucket.len(), 1);
    assert_eq!(charged("x.y.EXAMPLE.com"), bucket);
    assert_eq!(charged("a.b.example.org"), bucket);
    for other in ["com", "b.example.org", "example.net", "ample.com", "x.b.example.org"] {
        assert_eq!(charged(other), [0; 0], "{other}");
    }
}

#[test]
fn a_budget_of_scope_zone_tells_zones_apart_by_its_labels() {
    let text = "[[budget]]\nname = 'b'\nscope = 'zone'\nlimit = 1\nlabels = 3\n\
                [[budget]]\npreset = 'aws-link-local'\ninterfaces = ['eth0']\n";
    let policy = compiled(text).policy;
    assert_eq!(policy.zone_labels, [2, 3, 0, 0]);
    let charged = |name: &str| tags(&policy, &query(&policy, name))[0];
    assert!(charged("1.2.104.in-addr.arpa").is_some());
    assert_eq!(charged("1.2.104.in-addr.arpa"), charged("9.9.9.104.in-addr.arpa"));
    assert_ne!(charged("1.2.104.in-addr.arpa"), charged("1.2.105.in-addr.arpa"));
    assert_eq!(charged("example.com"), None);
}

#[test]
fn more_than_four_interfaces_share_one_bucket() {
    let text = "[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 1\n\
                interfaces = ['eth0', 'eth1', 'eth2', 'eth3', 'eth4']\n";
    let policy = compiled(text).policy;
    let on = |ifindex: u32| {
        let subject = Subject {
            ifindex,
            ..query(&policy, "example.com")
        };
        tags(&policy, &subject)
    };
    let [first, None] = on(10)[..] else {
        panic!("{:?}", on(10))
    };
    assert!(first.is_some());
    assert_eq!(on(14), [None, first]);
    assert_eq!(on(15), [None, None]);
}

#[test]
fn direction_types_and_destinations_reach_the_row() {
    let text = "[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 1\ndirection = 'out'\ntypes = ['ANY', 'TXT']\n\
                destinations = ['10.7.0.0/24', '2001:db8::/32']\naction = 'answer'\n";
    let policy = compiled(text).policy;
    let asks = |qtype: u16, egress: bool| {
        let subject = Subject {
            qtype,
            egress,
            ..query(&policy, "example.com")
        };
        tags(&policy, &subject)[0].is_some()
    };
    assert!(asks(255, true) && asks(16, true) && !asks(1, true) && !asks(255, false));
    let row = policy.row(0).unwrap();
    assert_eq!((row.action(), row.observes()), (Action::Answer, false));
    for (server, is_there) in [("10.7.0.9", true), ("2001:db8::9", true), ("10.7.1.9", false)] {
        assert_eq!(policy.holds(row.destinations(), &address(server)), is_there, "{server}");
    }
}

#[test]
fn a_bucket_keeps_its_meaning_while_the_budget_does() {
    let tag = |keys: &str| {
        let policy = compiled(&format!("[[budget]]\nscope = 'client'\n{keys}")).policy;
        tags(&policy, &query(&policy, "example.com"))[0].unwrap()
    };
    let before = tag("name = 'b'\nlimit = 1");
    assert_eq!(
        tag("name = 'b'\nlimit = 2\naction = 'count'\ndirection = 'both'"),
        before
    );
    assert_ne!(tag("name = 'c'\nlimit = 1"), before);
    assert_ne!(tag("name = 'b'\nlimit = 1\nv6_prefixes = [64]"), before);
    // So that a budget that is edited does not lose its place: this is what it was when it was first written down.
    let plan_id = |name: &str| {
        let config = config(&format!("[[budget]]\nname = '{name}'\nscope = 'client'\nlimit = 1"));
        Plan::all(0, &config.budgets[0], Ranges::NONE)[0].id()
    };
    assert_eq!(plan_id("per client"), 0x51a9_e086_9d31_a563);
}

#[test]
fn what_counts_or_watches_drops_nothing() {
    for (keys, observes) in [
        ("action = 'count'", true),
        ("action = 'count'\nmode = 'enforce'", true),
        ("action = 'drop'\nmode = 'observe'", true),
        ("action = 'drop'", false),
    ] {
        let budget = format!("[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 1\n{keys}\n");
        assert_eq!(compiled(&budget).policy.row(0).unwrap().observes(), observes, "{keys}");
        let preset = format!("[[budget]]\npreset = 'aws-link-local'\ninterfaces = ['eth0']\n{keys}\n");
        assert_eq!(compiled(&preset).policy.link.observes(), observes, "{keys}");
    }
}

#[test]
fn the_preset_has_its_interfaces_and_services() {
    let text = "[attach]\ninterfaces = ['lo', 'eth1', 'eth3']\n[[budget]]\npreset = 'aws-link-local'\n";
    let link = compiled(text).policy.link;
    assert_eq!(
        [1, 11, 13, 10].map(|ifindex| link.link_of(ifindex)),
        [None, Some(0), Some(1), None]
    );
    assert_eq!(link.service_at(&address("10.7.0.2")), Some(Service::Dns));
    assert_eq!(link.service_at(&address("169.254.169.254")), Some(Service::Imds));
    assert_eq!(link.service_at(&address("10.7.0.3")), None);
    assert_eq!(link.rate().fill_ns() / 1_000_000, 124);
}

#[test]
fn the_clock_is_fine_only_if_a_bucket_needs_it() {
    let fine = |limit: &str, burst: u32| {
        let text = format!("[[budget]]\nname = 'b'\nscope = 'all'\nlimit = {limit}\nburst = {burst}\n");
        compiled(&text).policy.fine_clock
    };
    assert_eq!((fine("1000", 79), fine("1000", 81), fine("'1/h'", 1)), (1, 0, 0));
    let preset = |burst: u32| {
        let text = format!("[[budget]]\npreset = 'aws-link-local'\ninterfaces = ['eth0']\nburst = {burst}\n");
        compiled(&text).policy.fine_clock
    };
    assert_eq!((preset(71), preset(73)), (1, 0));
}

#[test]
fn hygiene_knows_the_hosts_own_addresses() {
    let policy = compiled(
        "[hygiene]\nresolvers = ['10.7.0.2/32']\nsources = ['own', '10.1.0.0/16']\nrecursion = ['10.0.0.0/8']\n",
    )
    .policy;
    let holds = |ranges: Ranges, text: &str| policy.holds(ranges, &address(text));
    assert!(holds(policy.hygiene.resolvers, "10.7.0.2") && !holds(policy.hygiene.resolvers, "10.7.0.3"));
    for own in ["10.7.0.5", "fe80::1", "10.1.2.3"] {
        assert!(holds(policy.hygiene.sources, own), "{own}");
    }
    assert!(!holds(policy.hygiene.sources, "10.7.0.6"));
    assert!(holds(policy.hygiene.recursion, "10.9.9.9") && !holds(policy.hygiene.recursion, "192.0.2.1"));
    let breach = |text: &str| {
        let policy = compiled(text).policy;
        let stranger = query(&policy, "example.com");
        policy
            .hygiene
            .breach(&stranger, true, false, |_, _| false)
            .map(|shed| shed.observes)
    };
    assert_eq!(breach("[hygiene]\nrecursion = ['10.0.0.0/8']\n"), Some(false));
    assert_eq!(
        breach("[hygiene]\nrecursion = ['10.0.0.0/8']\nmode = 'observe'\n"),
        Some(true)
    );
    assert_eq!(breach(""), None);
}

#[test]
fn an_interface_that_is_awaited_is_no_interface_until_it_comes() {
    let text = "[attach]\ninterfaces = ['lo', 'ens*']\n[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 1\n\
                interfaces = ['ens9']\n[[budget]]\npreset = 'aws-link-local'\n";
    let awaited = compiled(text).policy;
    assert!(awaited.link.is_empty());
    let charged = |policy: &Policy, ifindex| {
        let subject = Subject {
            ifindex,
            ..query(policy, "example.com")
        };
        tags(policy, &subject)[0].is_some()
    };
    assert!(!charged(&awaited, 10) && !charged(&awaited, 99));
    let mut facts = facts_for(&config(text));
    facts.devices.insert("ens9".to_owned(), 99);
    facts.services.insert("ens9".to_owned(), vec![DNS]);
    let there = config(text).policy(&facts, &SECRET).unwrap().policy;
    assert_eq!(there.link.link_of(99), Some(0));
    assert!(!charged(&there, 10) && charged(&there, 99));
}

#[test]
fn what_does_not_fit_the_host_is_told_with_what_to_do() {
    let budget = "[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 1\ninterfaces = ['eth0', 'eth9']\n";
    assert_eq!(
        failure(budget),
        "budget 'b' is about interface eth9, which is not guarded; add it to [attach] interfaces or \
         --interface, or take it out there"
    );
    let preset = "[[budget]]\npreset = 'aws-link-local'\n";
    assert_eq!(
        failure(preset),
        "preset 'aws-link-local' has no interface: only lo is guarded; add the one that leads to the VPC"
    );
    let preset = "[[budget]]\npreset = 'aws-link-local'\ninterfaces = ['eth0']\n";
    let compile = |facts: &Facts| config(preset).policy(facts, &SECRET).unwrap_err();
    let mut many = facts_for(&config(preset));
    let services = (0..17).map(|last| (IpAddr::from([10, 7, 0, last]), Service::Dns));
    many.services.insert("eth0".to_owned(), services.collect());
    assert_eq!(compile(&many), PolicyError::TooManyServices(17));

    let mut wide = facts();
    wide.addresses = (0..=255).map(|last| IpAddr::from([10, 7, 1, last])).collect();
    let own = config("[hygiene]\nsources = ['own']\nresolvers = ['10.7.0.2/32']\n");
    assert_eq!(own.policy(&wide, &SECRET).unwrap_err(), PolicyError::TooManyRanges(258));
}

/// Keys of a budget, right by themselves and in most cases together.
fn budget_text() -> impl Strategy<Value = String> {
    let list = |key: &'static str, words: &'static [&'static str]| {
        vec(select(words), 0..4).prop_map(move |mut words| {
            words.sort_unstable();
            words.dedup();
            let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            if words.is_empty() {
                String::new()
            } else {
                format!("{key} = [{}]\n", words.join(", "))
            }
        })
    };
    let scope = select(&[
        "scope = 'all'\n",
        "scope = 'key'\n",
        "scope = 'interface'\n",
        "scope = 'client'\n",
        "scope = 'client'\nv4_prefixes = [0, 32, 24]\nv6_prefixes = [128, 0]\n",
        "scope = 'client'\nv4_prefixes = [8]\nv6_prefixes = [127, 64, 48, 32]\n",
        "scope = 'zone'\n",
        "scope = 'zone'\nlabels = [1, 7]\n",
        "scope = 'zone'\nlabels = 3\n",
        "scope = 'destination'\n",
    ]);
    let limit = prop_oneof![
        (1..=100_000_000_u32).prop_map(|limit| format!("limit = {limit}\n")),
        (1..=6_000_000_000_u64).prop_map(|limit| format!("limit = '{limit}/min'\n")),
        (1..=360_000_000_000_u64).prop_map(|limit| format!("limit = '{limit}/h'\n")),
        (1..=100_u64).prop_map(|limit| format!("limit = '{limit}/h'\n")),
    ];
    let burst = prop_oneof![
        Just(String::new()),
        (1..=1_000_000_000_u32).prop_map(|burst| format!("burst = {burst}\n")),
        (1..=100_u32).prop_map(|burst| format!("burst = {burst}\n")),
    ];
    let words = select(&[
        "",
        "direction = 'both'\naction = 'answer'\n",
        "direction = 'out'\naction = 'count'\nmode = 'enforce'\n",
        "direction = 'in'\nmode = 'observe'\n",
    ]);
    let filters = (
        select(&[
            "",
            "",
            "zones = ['a.b.net']\n",
            "zones = ['example.org', 'a.b.net', 'com']\n",
        ]),
        list("destinations", &["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]),
        list("interfaces", &["eth0", "eth1", "eth2", "eth3", "eth4", "lo"]),
        list("types", &["A", "ANY", "TXT", "PTR", "TYPE65535"]),
    );
    (scope, limit, burst, words, filters).prop_map(|(scope, limit, burst, words, (zones, to, interfaces, types))| {
        format!("{scope}{limit}{burst}{words}{zones}{to}{interfaces}{types}")
    })
}

fn file_text() -> impl Strategy<Value = String> {
    let preset = select(&["", "[[budget]]\npreset = 'aws-link-local'\ninterfaces = ['eth5']\n"]);
    (vec(budget_text(), 1..5), preset).prop_map(|(budgets, preset)| {
        let budgets = budgets.iter().enumerate();
        let budgets = budgets.map(|(number, keys)| format!("[[budget]]\nname = 'budget {number}'\n{keys}"));
        budgets.collect::<String>() + preset
    })
}

proptest! {
    #[test]
    fn whatever_parses_compiles_to_rows_and_whatever_does_not_is_told_line_by_line(text in file_text()) {
        match file::parse("f", &text, None) {
            Ok(config) => {
                let compiled = config.policy(&facts(), &SECRET).unwrap();
                let policy = &compiled.policy;
                let rows: usize = config.budgets.iter().map(Budget::row_count).sum();
                prop_assert!(rows <= MAX_ROWS);
                prop_assert_eq!(policy.row_count() as usize, rows);
                for (place, budget) in config.budgets.iter().enumerate() {
                    let is_named = |row: &u32| compiled.rows[*row as usize].budget == place;
                    let named = (0..policy.row_count()).filter(is_named);
                    let named: Vec<_> = named.filter_map(|row| policy.row(row)).collect();
                    prop_assert_eq!(named.len(), budget.row_count());
                    prop_assert!(named.iter().all(|row| row.rate == budget.allowance.rate()));
                }
                // A query is never charged twice to the same bucket.
                for name in ["www.x.example.org", "a.b.net", "com"] {
                    for (ifindex, egress) in [(10, false), (14, true), (1, true)] {
                        let subject = Subject { ifindex, egress, ..query(policy, name) };
                        let mut charged: Vec<_> = tags(policy, &subject).into_iter().flatten().collect();
                        let count = charged.len();
                        charged.sort_unstable();
                        charged.dedup();
                        prop_assert_eq!(charged.len(), count);
                    }
                }
            }
            Err(error) => {
                for line in error.to_string().lines() {
                    let mut parts = line.splitn(4, ':');
                    prop_assert_eq!(parts.next(), Some("f"));
                    prop_assert!(parts.next().is_some_and(|part| part.parse::<u32>().is_ok()), "{}", line);
                    prop_assert!(parts.next().is_some_and(|part| part.parse::<u32>().is_ok()), "{}", line);
                    prop_assert!(parts.next().is_some_and(|part| part.contains("; allowed: ")), "{}", line);
                }
            }
        }
    }

    #[test]
    fn a_budget_by_itself_compiles_with_any_limit(packets in 1..=360_000_000_000_u64) {
        let text = format!("[[budget]]\nname = 'b'\nscope = 'key'\nlimit = '{packets}/h'\n");
        let policy = compiled(&text).policy;
        let in_a_second = (packets / 3_600).max(1);
        let fill_ns = in_a_second as f64 * 3_600e9 / packets as f64;
        let filled_ns = policy.row(0).unwrap().rate.fill_ns() as f64;
        prop_assert!((filled_ns / fill_ns - 1.0).abs() < 3e-4, "{filled_ns} {fill_ns}");
    }
}
