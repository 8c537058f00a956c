use super::*;
use crate::config::{Config, file};

fn parsed(text: &str) -> Config {
    match file::parse("f", text, None) {
        Ok(config) => config,
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn budget(keys: &str) -> Budget {
    parsed(&format!("[[budget]]\n{keys}")).budgets.remove(0)
}

fn error(text: &str) -> String {
    file::parse("f", text, None).unwrap_err().to_string()
}

/// Keys that a budget has to have.
const BASE: &str = "name = 'b'\nscope = 'all'\nlimit = 100\n";

#[test]
fn every_key_is_read() {
    let read = budget(
        "name = 'per client'\nscope = 'client'\ndirection = 'both'\nlimit = '90/min'\nburst = 400\naction = 'answer'\n\
         v4_prefixes = [24, 32]\nv6_prefixes = [128, 64, 48]\nzones = ['Example.com']\ndestinations = ['10.0.0.2/32']\n\
         interfaces = ['eth0']\ntypes = ['ANY', 'txt', 'TYPE65280']\nmode = 'observe'\n",
    );
    let limit = crate::config::limit::Limit::read("90/min").unwrap();
    let prefixes = [(32, 128), (24, 64), (24, 48)].map(|(v4, v6)| Prefixes { v4, v6 });
    let expected = Budget {
        name: "per client".to_owned(),
        sharing: Sharing::Client(prefixes.to_vec()),
        direction: Direction::Both,
        allowance: Allowance::new(limit, 400, 1_000).unwrap(),
        excess: Excess::Answer,
        filter: Filter {
            zones: vec!["example.com.".parse().unwrap()],
            destinations: vec!["10.0.0.2/32".parse().unwrap()],
            interfaces: vec!["eth0".to_owned()],
            types: vec![255, 16, 65_280],
        },
        mode: Some(Mode::Observe),
    };
    assert_eq!(read, expected);
}

#[test]
fn what_is_left_out_has_its_default() {
    let read = budget("name = 'b'\nscope = 'client'\nlimit = 200\n");
    assert_eq!(read.sharing, Sharing::Client(vec![Prefixes { v4: 32, v6: 128 }]));
    assert_eq!(
        (read.direction, read.excess, read.mode),
        (Direction::In, Excess::Drop, None)
    );
    assert_eq!(read.allowance.burst, 200);
    assert_eq!(read.filter, Filter::default());
    assert_eq!(
        budget("name = 'b'\nscope = 'zone'\nlimit = '1/h'").sharing,
        Sharing::Zone(vec![2])
    );
    assert_eq!(budget("name = 'b'\nscope = 'zone'\nlimit = '1/h'").allowance.burst, 1);
    let destination = budget("name = 'b'\nscope = 'destination'\nlimit = 1\ndestinations = ['10.0.0.2/32']");
    assert_eq!(destination.direction, Direction::Out);
}

#[test]
fn a_preset_needs_nothing_but_its_name() {
    let link_local = parsed("[[budget]]\npreset = 'aws-link-local'\n").link_local.unwrap();
    assert_eq!((link_local.limit, link_local.allowance.burst), (900, 112));
    assert_eq!(
        (link_local.excess, link_local.mode, link_local.vpc),
        (Excess::Drop, None, None)
    );
    let text = "[attach]\ninterfaces = ['lo', 'ens5', 'ens6']\n[[budget]]\npreset = 'aws-link-local'\n";
    let config = parsed(text);
    let link_local = config.link_local.as_ref().unwrap();
    assert_eq!(
        link_local.interfaces(&config.attach).collect::<Vec<_>>(),
        ["ens5", "ens6"]
    );
}

#[test]
fn every_key_of_a_preset_is_read() {
    let text = "[[budget]]\npreset = 'aws-link-local'\nlimit = 1000\nburst = 7\naction = 'count'\ninterfaces = ['lo']\n\
                vpc = '10.4.0.0/14'\nmode = 'observe'\n";
    let fault = "f:7:7: [[budget]] vpc is '10.4.0.0/14'; allowed: the VPC's primary IPv4 CIDR, a /16 to /28 such as \
                 \"10.0.0.0/16\"";
    assert_eq!(error(text), fault);
    let config = parsed(&text.replace("/14", "/16"));
    let link_local = config.link_local.as_ref().unwrap();
    assert_eq!((link_local.limit, link_local.allowance.burst), (1_000, 7));
    assert_eq!(
        (link_local.excess, link_local.mode),
        (Excess::Count, Some(Mode::Observe))
    );
    assert_eq!(link_local.vpc, Some((Ipv4Addr::new(10, 4, 0, 0), 16)));
    assert_eq!(link_local.interfaces(&config.attach).collect::<Vec<_>>(), ["lo"]);
}

#[test]
fn counting_is_watching() {
    assert_eq!(Excess::Count.in_mode(Some(Mode::Enforce)).1, Mode::Observe);
    assert_eq!(Excess::Answer.in_mode(None), (Action::Answer, Mode::Enforce));
    assert_eq!(Excess::Drop.in_mode(Some(Mode::Observe)), (Action::Drop, Mode::Observe));
}

#[test]
fn a_budget_is_shown_in_one_line() {
    let show = |keys: &str| budget(keys).to_string();
    assert_eq!(
        show("name = 'per client'\nscope = 'client'\nlimit = 200\nburst = 400\nv4_prefixes = [32, 24]"),
        "budget per client: client /32+/128 /24+/128, in, 200/s with 400 at once, drop, 2 rows"
    );
    assert_eq!(
        show("name = 'z'\nscope = 'zone'\nlimit = '30/min'\nlabels = [2, 3]\naction = 'count'\nmode = 'observe'"),
        "budget z: zone of 3 and 2 labels, in, 30/min with 1 at once, count (observe), 2 rows"
    );
    assert_eq!(show(BASE), "budget b: all, in, 100/s with 100 at once, drop, 1 row");
    let preset = parsed("[[budget]]\npreset = 'aws-link-local'\ninterfaces = ['ens5']");
    assert_eq!(
        preset.limits().collect::<Vec<_>>(),
        ["budget aws-link-local: destination, out, 900/s with 112 at once, drop, on ens5"]
    );
}

/// What is wrong with a budget of these keys, whose own lines are the second and on.
fn fault(keys: &str) -> String {
    error(&format!("[[budget]]\n{keys}"))
}

#[test]
fn a_bad_value_is_shown_with_what_is_allowed() {
    let limit = "packets per second, 1 to 100000000, or less often such as \"30/min\" or \"10/h\"";
    let name = "1 to 40 of a-z, 0-9, '.', '_', '-' and spaces, which neither begin nor end it";
    let zone = "a name such as example.com, labels of 1 to 63 ASCII characters each";
    let qtype = "a type such as \"ANY\", \"TXT\" or \"TYPE65280\"";
    let is_set = "is set by preset 'aws-link-local'; leave it out, or write a [[budget]] of its own";
    let long_name = "n".repeat(41);
    for (keys, expected) in [
        // Missing.
        ("scope = 'all'\nlimit = 1", format!("f:1:1: [[budget]] name is missing; allowed: {name}")),
        (
            "name = 'b'\nlimit = 1",
            "f:1:1: [[budget]] scope is missing; allowed: destination, client, key, zone, interface, all".to_owned(),
        ),
        ("name = 'b'\nscope = 'all'", format!("f:1:1: [[budget]] limit is missing; allowed: {limit}")),
        (
            "name = 'b'\nscope = 'destination'\nlimit = 1",
            "f:1:1: [[budget]] destinations is missing; allowed: in scope destination, a list such as \
             [\"10.0.0.2/32\"]"
                .to_owned(),
        ),
        // Names.
        ("name = ''\nscope = 'all'\nlimit = 1", format!("f:2:8: [[budget]] name is ''; allowed: {name}")),
        ("name = 'B'\nscope = 'all'\nlimit = 1", format!("f:2:8: [[budget]] name is 'B'; allowed: {name}")),
        ("name = ' b'\nscope = 'all'\nlimit = 1", format!("f:2:8: [[budget]] name is ' b'; allowed: {name}")),
        (
            &format!("name = '{long_name}'\nscope = 'all'\nlimit = 1"),
            format!("f:2:8: [[budget]] name is '{long_name}'; allowed: {name}"),
        ),
        (
            "name = 'aws-link-local'\nscope = 'all'\nlimit = 1",
            "f:2:8: [[budget]] name is 'aws-link-local'; allowed: any other name, because this is the \
             preset's"
                .to_owned(),
        ),
        // Words.
        (
            "name = 'b'\nscope = 'host'\nlimit = 1\nlabels = 2",
            "f:3:9: [[budget]] scope is 'host'; allowed: destination, client, key, zone, interface, all".to_owned(),
        ),
        (
            &format!("{BASE}direction = 'up'"),
            "f:5:13: [[budget]] direction is 'up'; allowed: in, out, both".to_owned(),
        ),
        (
            &format!("{BASE}action = 'reject'"),
            "f:5:10: [[budget]] action is 'reject'; allowed: answer, drop, count".to_owned(),
        ),
        (&format!("{BASE}mode = 'off'"), "f:5:8: [[budget]] mode is 'off'; allowed: observe, enforce".to_owned()),
        // Limits.
        ("name = 'b'\nscope = 'all'\nlimit = 0", format!("f:4:9: [[budget]] limit is 0; allowed: {limit}")),
        ("name = 'b'\nscope = 'all'\nlimit = -1", format!("f:4:9: [[budget]] limit is -1; allowed: {limit}")),
        ("name = 'b'\nscope = 'all'\nlimit = 1.5", format!("f:4:9: [[budget]] limit is 1.5; allowed: {limit}")),
        ("name = 'b'\nscope = 'all'\nlimit = [1]", format!("f:4:9: [[budget]] limit is a list; allowed: {limit}")),
        (
            "name = 'b'\nscope = 'all'\nlimit = 100000001\nburst = 0",
            format!("f:4:9: [[budget]] limit is 100000001; allowed: {limit}"),
        ),
        ("name = 'b'\nscope = 'all'\nlimit = '0/h'", format!("f:4:9: [[budget]] limit is '0/h'; allowed: {limit}")),
        ("name = 'b'\nscope = 'all'\nlimit = '1/d'", format!("f:4:9: [[budget]] limit is '1/d'; allowed: {limit}")),
        (&format!("{BASE}burst = 0"), "f:5:9: [[budget]] burst is 0; allowed: 1 to 8640000 packets, because a full \
                                       bucket takes a day at the most to fill".to_owned()),
        (
            &format!("{BASE}burst = 'all'"),
            "f:5:9: [[budget]] burst is 'all'; allowed: 1 to 8640000 packets, because a full bucket takes a day at the \
             most to fill"
                .to_owned(),
        ),
        (
            "name = 'b'\nscope = 'all'\nlimit = '10/h'\nburst = 241",
            "f:5:9: [[budget]] burst is 241; allowed: 1 to 240 packets, because a full bucket takes a day at the most \
             to fill"
                .to_owned(),
        ),
        (
            "name = 'b'\nscope = 'all'\nlimit = 1000000\nburst = 1000000001",
            "f:5:9: [[budget]] burst is 1000000001; allowed: 1 to 1000000000 packets".to_owned(),
        ),
        // Keys of one scope.
        (&format!("{BASE}labels = 2"), "f:5:1: [[budget]] labels is for scope zone only; leave it out".to_owned()),
        (
            &format!("{BASE}v6_prefixes = [64]"),
            "f:5:1: [[budget]] v6_prefixes is for scope client only; leave it out"
                .to_owned(),
        ),
        (
            &format!("{BASE}vpc = '10.0.0.0/16'"),
            "f:5:1: [[budget]] vpc is for preset 'aws-link-local' only; leave it out"
                .to_owned(),
        ),
        (
            "name = 'b'\nscope = 'client'\nlimit = 1\nv4_prefixes = [33]",
            "f:5:16: [[budget]] v4_prefixes is 33; allowed: an integer, 0 to 32".to_owned(),
        ),
        (
            "name = 'b'\nscope = 'client'\nlimit = 1\nv6_prefixes = [129]",
            "f:5:16: [[budget]] v6_prefixes is 129; allowed: an integer, 0 to 128".to_owned(),
        ),
        (
            "name = 'b'\nscope = 'client'\nlimit = 1\nv4_prefixes = []",
            "f:5:15: [[budget]] v4_prefixes is empty; allowed: one prefix length or more, such as [32]".to_owned(),
        ),
        (
            "name = 'b'\nscope = 'client'\nlimit = 1\nv4_prefixes = [24, 24]",
            "f:5:20: [[budget]] v4_prefixes has 24 twice; allowed: once".to_owned(),
        ),
        (
            "name = 'b'\nscope = 'zone'\nlimit = 1\nlabels = 8",
            "f:5:10: [[budget]] labels is 8; allowed: an integer, 1 to 7".to_owned(),
        ),
        (
            "name = 'b'\nscope = 'zone'\nlimit = 1\nlabels = [0]",
            "f:5:11: [[budget]] labels is 0; allowed: an integer, 1 to 7".to_owned(),
        ),
        (
            "name = 'b'\nscope = 'zone'\nlimit = 1\nlabels = 3\nzones = ['example.com']",
            "f:6:9: [[budget]] zones has 'example.com.' of 2 labels; allowed: in scope zone, names of as many labels \
             as labels says"
                .to_owned(),
        ),
        // Filters.
        (&format!("{BASE}zones = ['a..b']"), format!("f:5:10: [[budget]] zones is 'a..b'; allowed: {zone}")),
        (
            &format!("{BASE}zones = ['.']"),
            "f:5:10: [[budget]] zones is '.'; allowed: a name below the root; for all names, leave the list \
             out"
                .to_owned(),
        ),
        (
            &format!("{BASE}zones = ['a.b.c.d.e.f.g.h']"),
            "f:5:10: [[budget]] zones is 'a.b.c.d.e.f.g.h'; allowed: names of 7 labels at most, which is what the \
             kernel reads"
                .to_owned(),
        ),
        (
            &format!("{BASE}zones = ['www.example.com', 'example.com']"),
            "f:5:9: [[budget]] zones has 'www.example.com.', which is inside 'example.com.'; allowed: only the wider \
             of them"
                .to_owned(),
        ),
        (
            &format!("{BASE}zones = ['example.com', 'Example.COM.']"),
            "f:5:25: [[budget]] zones has 'Example.COM.' twice; allowed: once".to_owned(),
        ),
        (
            &format!("{BASE}zones = []"),
            "f:5:9: [[budget]] zones is empty; allowed: one name or more; for all names, leave it out"
                .to_owned(),
        ),
        (
            &format!("{BASE}destinations = ['10.0.0.2']"),
            "f:5:17: [[budget]] destinations is '10.0.0.2'; allowed: an address range such as 10.0.0.0/8 or fc00::/7"
                .to_owned(),
        ),
        (&format!("{BASE}types = ['TYPE0']"), format!("f:5:10: [[budget]] types is 'TYPE0'; allowed: {qtype}")),
        (
            &format!("{BASE}types = ['A', 'AAAA', 'TXT', 'PTR', 'MX']"),
            "f:5:9: [[budget]] types has 5 types; allowed: 4 at most, so make two budgets of it".to_owned(),
        ),
        (
            &format!("{BASE}typos = 1"),
            "f:5:1: unknown key 'typos' in [[budget]]; allowed: preset, name, scope, direction, limit, burst, action, \
             zones, destinations, interfaces, types, mode"
                .to_owned(),
        ),
        // Presets.
        ("preset = 'gcp'\nscope = 1\nfoo = 2", "f:2:10: unknown preset 'gcp'; allowed: aws-link-local".to_owned()),
        ("preset = 7", "f:2:10: [[budget]] preset is 7; allowed: aws-link-local".to_owned()),
        ("preset = 'aws-link-local'\nname = 'b'", format!("f:3:1: [[budget]] name {is_set}")),
        ("preset = 'aws-link-local'\nscope = 'all'", format!("f:3:1: [[budget]] scope {is_set}")),
        ("preset = 'aws-link-local'\ndirection = 'in'", format!("f:3:1: [[budget]] direction {is_set}")),
        ("preset = 'aws-link-local'\nzones = ['com']", format!("f:3:1: [[budget]] zones {is_set}")),
        ("preset = 'aws-link-local'\ntypes = ['A']", format!("f:3:1: [[budget]] types {is_set}")),
        (
            "preset = 'aws-link-local'\nlimit = 0",
            "f:3:9: [[budget]] limit is 0; allowed: an integer, 1 to 100000".to_owned(),
        ),
        (
            "preset = 'aws-link-local'\nlimit = '30/min'",
            "f:3:9: [[budget]] limit is '30/min'; allowed: an integer, 1 to 100000".to_owned(),
        ),
        (
            "preset = 'aws-link-local'\nburst = 100001",
            "f:3:9: [[budget]] burst is 100001; allowed: 1 to 100000 packets".to_owned(),
        ),
        (
            "preset = 'aws-link-local'\nlimit = 1\nburst = 86401",
            "f:4:9: [[budget]] burst is 86401; allowed: 1 to 86400 packets, because a full bucket takes a day at the \
             most to fill"
                .to_owned(),
        ),
        (
            "preset = 'aws-link-local'\nfoo = 1",
            "f:3:1: unknown key 'foo' in [[budget]]; allowed: preset, limit, burst, action, interfaces, vpc, \
             mode"
                .to_owned(),
        ),
        (
            "preset = 'aws-link-local'\nvpc = 'fd00::/16'",
            "f:3:7: [[budget]] vpc is 'fd00::/16'; allowed: the VPC's primary IPv4 CIDR, a /16 to /28 such as \
             \"10.0.0.0/16\""
                .to_owned(),
        ),
    ] {
        assert_eq!(fault(keys), expected, "{keys}");
    }
}

#[test]
fn what_is_no_array_of_tables_is_told_how_it_is_written() {
    let allowed = "allowed: tables, each under its own [[budget]]";
    assert_eq!(error("budget = 1"), format!("f:1:10: budget is 1; {allowed}"));
    assert_eq!(
        error("[budget]\nname = 'b'"),
        format!("f:1:1: budget is a table; {allowed}")
    );
    assert_eq!(error("budget = [1]"), format!("f:1:11: budget is 1; {allowed}"));
}

#[test]
fn a_fault_of_the_second_budget_is_at_the_second_budget() {
    let text = format!("[[budget]]\n{BASE}\n  [[budget]]\n  scope = 'key'\n  limit = 0\n");
    let shown = error(&text);
    let places: Vec<_> = shown.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["f:6:3", "f:8:11"]);
}

fn two(one: &str, other: &str) -> String {
    format!("[[budget]]\nname = 'one'\nlimit = 9\n{one}\n[[budget]]\nname = 'other'\nlimit = 9\n{other}\n")
}

#[test]
fn budgets_that_count_the_same_queries_in_the_same_way_are_refused() {
    for (one, other) in [
        ("scope = 'all'", "scope = 'all'"),
        ("scope = 'all'", "scope = 'all'\ndirection = 'both'"),
        ("scope = 'all'\ntypes = ['ANY']", "scope = 'all'\nzones = ['org']"),
        (
            "scope = 'key'\nzones = ['example.com']",
            "scope = 'key'\nzones = ['www.example.com', 'org']",
        ),
        ("scope = 'client'", "scope = 'client'\nv6_prefixes = [64]"),
        (
            "scope = 'client'\nv4_prefixes = [24, 16]\nv6_prefixes = [64]",
            "scope = 'client'\nv4_prefixes = [16]",
        ),
        ("scope = 'zone'\nlabels = [2, 3]", "scope = 'zone'\nlabels = 3"),
        (
            "scope = 'destination'\ndestinations = ['10.0.0.0/8']",
            "scope = 'destination'\ndestinations = ['10.2.0.0/16', '192.168.0.0/16']",
        ),
        (
            "scope = 'all'\ntypes = ['ANY', 'TXT']",
            "scope = 'all'\ntypes = ['TXT', 'A']",
        ),
    ] {
        let text = two(one, other);
        let line = text.lines().position(|line| line == "name = 'other'").unwrap() + 1;
        assert_eq!(
            error(&text),
            format!(
                "f:{line}:8: budget 'other' counts queries that budget 'one' counts in the same way; allowed: one \
                 budget for both, or types, zones, destinations or interfaces that tell them apart"
            )
        );
    }
}

#[test]
fn budgets_that_something_tells_apart_go_together() {
    for (one, other) in [
        ("scope = 'all'", "scope = 'key'"),
        ("scope = 'all'\ndirection = 'in'", "scope = 'all'\ndirection = 'out'"),
        ("scope = 'all'\ntypes = ['ANY']", "scope = 'all'\ntypes = ['TXT']"),
        (
            "scope = 'all'\nzones = ['example.com']",
            "scope = 'all'\nzones = ['example.org', 'ample.com']",
        ),
        ("scope = 'key'\ninterfaces = ['a']", "scope = 'key'\ninterfaces = ['b']"),
        (
            "scope = 'client'",
            "scope = 'client'\nv4_prefixes = [24]\nv6_prefixes = [64]",
        ),
        ("scope = 'zone'\nlabels = 2", "scope = 'zone'\nlabels = [3, 4]"),
        (
            "scope = 'destination'\ndestinations = ['10.0.0.0/9']",
            "scope = 'destination'\ndestinations = ['10.128.0.0/9']",
        ),
        (
            "scope = 'client'\ndestinations = ['10.0.0.0/9']",
            "scope = 'client'\ndestinations = ['fd00::/8']",
        ),
        // One within the other.
        ("scope = 'client'", "scope = 'client'\ntypes = ['ANY', 'TXT']"),
        ("scope = 'zone'", "scope = 'zone'\nzones = ['example.com']"),
        (
            "scope = 'all'\nzones = ['com', 'org']\ninterfaces = ['b']",
            "scope = 'all'\nzones = ['example.org']\ninterfaces = ['b']\ntypes = ['A']",
        ),
        (
            "scope = 'destination'\ndestinations = ['10.0.0.0/8']",
            "scope = 'destination'\ndestinations = ['10.0.0.0/8']\ntypes = ['TXT']",
        ),
        (
            "scope = 'interface'\ninterfaces = ['a', 'b']",
            "scope = 'interface'\ninterfaces = ['b']",
        ),
    ] {
        assert_eq!(parsed(&two(one, other)).budgets.len(), 2);
    }
}

#[test]
fn two_budgets_have_two_names() {
    let text = format!("[[budget]]\n{BASE}[[budget]]\n{BASE}");
    assert_eq!(
        error(&text),
        "f:6:8: [[budget]] name is 'b'; allowed: a name that no other budget has"
    );
    let preset = "[[budget]]\npreset = 'aws-link-local'\n";
    assert_eq!(
        error(&preset.repeat(2)),
        "f:4:10: preset 'aws-link-local' is used twice; allowed: once, with the interfaces of both"
    );
}

#[test]
fn the_services_of_the_preset_have_no_second_budget() {
    let preset = "[attach]\ninterfaces = ['lo', 'ens5']\n[[budget]]\npreset = 'aws-link-local'\nvpc = '10.7.0.0/16'\n";
    let with = |keys: &str| {
        let keys = format!("[[budget]]\nname = 'b'\nscope = 'destination'\nlimit = 1\n{keys}");
        file::parse("f", &format!("{preset}{keys}"), None).map_err(|error| error.to_string())
    };
    let fault = "f:7:8: budget 'b' counts what leaves for the services of preset 'aws-link-local'; allowed: only the \
                 preset, or destinations or interfaces that tell them apart";
    for keys in [
        "destinations = ['169.254.169.254/32']",
        "destinations = ['0.0.0.0/0']",
        "destinations = ['fd00:ec2::/64']\ndirection = 'both'",
        "destinations = ['10.7.0.2/32']",
        "destinations = ['10.7.0.2/32']\ninterfaces = ['ens5']",
    ] {
        assert_eq!(with(keys).unwrap_err(), fault, "{keys}");
    }
    for keys in [
        "destinations = ['169.254.169.254/32']\ndirection = 'in'",
        "destinations = ['10.7.0.3/32']",
        "destinations = ['10.7.0.2/32']\ninterfaces = ['lo']",
    ] {
        assert!(with(keys).is_ok(), "{keys}");
    }
}

#[test]
fn rows_without_room_are_counted() {
    let interfaces: Vec<_> = (0..5).map(|number| format!("'eth{number}'")).collect();
    let zones: Vec<_> = (0..16).map(|number| format!("'z{number}.example'")).collect();
    let (interfaces, zones) = (interfaces.join(", "), zones.join(", "));
    let wide = |name: &str, scope: &str| {
        format!(
            "[[budget]]\nname = '{name}'\nlimit = 1\nscope = '{scope}'\ninterfaces = [{interfaces}]\nzones = \
             [{zones}]\n"
        )
    };
    let fits = format!("{}{}", wide("b", "all"), wide("c", "key"));
    let rows: usize = parsed(&fits).budgets.iter().map(Budget::row_count).sum();
    assert_eq!(rows, 64);
    let one_more = format!("{fits}[[budget]]\nname = 'd'\nlimit = 1\nscope = 'interface'\n");
    assert_eq!(
        error(&one_more),
        "f:14:8: the budgets make 65 rows; allowed: 64 at most, and each prefix length, label count, zone and four \
         interfaces of a budget make one"
    );
}

#[test]
fn label_counts_without_room_are_listed() {
    let zones = "[[budget]]\nname = 'z'\nlimit = 1\nscope = 'zone'\nlabels = [1, 3, 4, 5]\n";
    assert_eq!(parsed(zones).budgets.len(), 1);
    assert_eq!(
        error(&format!("{zones}[[budget]]\npreset = 'aws-link-local'\n")),
        "f:7:10: the budgets know zones by 5 label counts (1, 2, 3, 4, 5); allowed: 4 at most, and a preset takes 2"
    );
}
