use super::*;
use crate::doctor::loops::{
    consul, coredns, dnsmasq,
    node::{Program, Reading},
    resolved, sentence,
    testing::Tree,
    unbound,
};

/// One network for all of them.
const HERE: u64 = 1;

fn node(program: Program, reading: Reading) -> Node {
    Node {
        program,
        pid: Some(100 + program as u32),
        network: HERE,
        listens: reading.listens,
        rules: reading.rules,
    }
}

/// The resolvers that a tree of configurations makes, in the order of their programs.
fn nodes(files: &[(&str, &str)]) -> Vec<Node> {
    let tree = Tree::new(files);
    let roots = tree.roots();
    let mut nodes = Vec::new();
    let has = |part: &str| files.iter().any(|(path, _)| path.contains(part));
    if has("consul.d") {
        nodes.push(node(Program::Consul, consul::read(&roots, &[])));
    }
    for reading in coredns::read(&roots, &[], None) {
        nodes.push(node(Program::CoreDns, reading));
    }
    for name in ["dnsmasq.conf", "dnsmasq2.conf", "dnsmasq3.conf"] {
        if has(&format!("etc/{name}")) {
            let reading = dnsmasq::read(&roots, &[format!("--conf-file=/etc/{name}")]);
            nodes.push(node(Program::Dnsmasq, reading));
        }
    }
    if has("resolved.conf") {
        nodes.push(node(Program::Resolved, resolved::read(&roots)));
    }
    if has("unbound.conf") {
        nodes.push(node(Program::Unbound, unbound::read(&roots, &[])));
    }
    nodes
}

/// The host has one address beside loopback.
fn is_own(ip: IpAddr) -> bool {
    ip == IpAddr::from([10, 0, 0, 1])
}

/// Each circle in a line: its programs and its queries.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let nodes = nodes(files);
    let circles = circles(&nodes, &is_own);
    let told = circles.iter().map(|circle| {
        let names: Vec<_> = circle.hops.iter().map(|hop| nodes[hop.node].program.word()).collect();
        let ds = if circle.only_ds { "DS " } else { "" };
        let also: String = circle.also.iter().map(|zone| format!(" {zone}")).collect();
        format!("{} {ds}{}{also}", names.join(">"), circle.zone)
    });
    told.collect()
}

const TO_CONSUL: (&str, &str) = (
    "etc/dnsmasq.conf",
    "no-resolv\nserver=10.0.0.2\nserver=/consul/127.0.0.1#8600\n",
);
const BACK: (&str, &str) = ("etc/consul.d/a.json", "{\"recursors\": [\"127.0.0.1\"]}");

#[test]
fn the_incident_is_a_loop_of_ds_queries() {
    assert_eq!(found(&[TO_CONSUL, BACK]), ["consul>dnsmasq DS consul."]);
    let nodes = nodes(&[TO_CONSUL, BACK]);
    let finding = sentence::circle(&circles(&nodes, &is_own)[0], &nodes, HERE);
    assert_eq!(
        finding.what,
        "a loop as written: consul (pid 100) -> dnsmasq (pid 103) -> consul (pid 100), for DS queries in consul."
    );
    let why = finding.why.unwrap();
    for part in [
        "dnsmasq sends consul. to 127.0.0.1:8600 (/etc/dnsmasq.conf:3)",
        "consul sends everything else to 127.0.0.1:53 (/etc/consul.d/a.json:1)",
        "before 1.19",
        "dnsguard probe --type DS --server 127.0.0.1:8600 '*.consul.'",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let remedy = finding.remedy.unwrap();
    assert!(
        remedy.starts_with("take 127.0.0.1:53 out of consul's recursors (/etc/consul.d/a.json:1)"),
        "{remedy}"
    );
}

#[test]
fn every_known_loop_is_found() {
    let stub = ("etc/resolv.conf", "nameserver 127.0.0.53\n");
    let second = |rule: &'static str| ("etc/dnsmasq2.conf", rule);
    for (files, expected) in [
        // By the host's own address.
        (
            vec![TO_CONSUL, ("etc/consul.d/a.hcl", "recursors = [\"10.0.0.1\"]")],
            vec!["consul>dnsmasq DS consul."],
        ),
        // dnsmasq sends reverse names to consul, which has only some of them.
        (
            vec![
                (
                    "etc/dnsmasq.conf",
                    "no-resolv\nserver=10.0.0.2\nrev-server=10.0.0.0/8,127.0.0.1#8600\n",
                ),
                BACK,
            ],
            vec!["consul>dnsmasq 10.in-addr.arpa."],
        ),
        // Everything goes to consul.
        (
            vec![("etc/dnsmasq.conf", "no-resolv\nserver=127.0.0.1#8600\n"), BACK],
            vec!["consul>dnsmasq ."],
        ),
        // Two dnsmasq that send a domain to each other.
        (
            vec![
                (
                    "etc/dnsmasq.conf",
                    "no-resolv\nlisten-address=127.0.0.1\nserver=/a/127.0.0.2\n",
                ),
                second("no-resolv\nlisten-address=127.0.0.2\nserver=/a/127.0.0.1\n"),
            ],
            vec!["dnsmasq>dnsmasq a."],
        ),
        // A ring of three.
        (
            vec![
                (
                    "etc/dnsmasq.conf",
                    "no-resolv\nlisten-address=127.0.0.1\nserver=127.0.0.2\n",
                ),
                second("no-resolv\nlisten-address=127.0.0.2\nserver=127.0.0.3\n"),
                (
                    "etc/dnsmasq3.conf",
                    "no-resolv\nlisten-address=127.0.0.3\nserver=127.0.0.1\n",
                ),
            ],
            vec!["dnsmasq>dnsmasq>dnsmasq ."],
        ),
        // A subdomain that one of them sends elsewhere does not save the domain.
        (
            vec![
                (
                    "etc/dnsmasq.conf",
                    "no-resolv\nlisten-address=127.0.0.1\nserver=/a/127.0.0.2\nserver=/b.a/10.0.0.2\n",
                ),
                second("no-resolv\nlisten-address=127.0.0.2\nserver=/a/127.0.0.1\n"),
            ],
            vec!["dnsmasq>dnsmasq a."],
        ),
        // CoreDNS in a pod with the node's resolv.conf.
        (
            vec![("Corefile", ".:53 {\n  forward . /etc/resolv.conf\n  loop\n}\n"), stub],
            vec!["coredns> ."],
        ),
        // dnsmasq asks the stub, which asks dnsmasq.
        (
            vec![
                ("etc/dnsmasq.conf", "listen-address=127.0.0.1\n"),
                stub,
                ("etc/systemd/resolved.conf", "[Resolve]\nDNS=127.0.0.1\n"),
            ],
            vec!["dnsmasq>systemd-resolved ."],
        ),
        // consul behind systemd-resolved, with the stub as its recursor.
        (
            vec![
                ("etc/consul.d/a.json", "{\"recursors\": [\"127.0.0.53\"]}"),
                (
                    "etc/systemd/resolved.conf",
                    "[Resolve]\nDNS=127.0.0.1:8600\nDomains=~consul\n",
                ),
            ],
            vec!["consul>systemd-resolved ."],
        ),
        // unbound may ask loopback, and consul asks it.
        (
            vec![
                ("etc/consul.d/a.json", "{\"recursors\": [\"127.0.0.1\"]}"),
                (
                    "etc/unbound/unbound.conf",
                    "server:\n do-not-query-localhost: no\nforward-zone:\n name: \"dc1.consul\"\n forward-addr: 127.0.0.1@8600\n",
                ),
            ],
            vec!["consul>unbound DS dc1.consul."],
        ),
        // unbound forwards everything to itself.
        (
            vec![(
                "etc/unbound/unbound.conf",
                "server:\n do-not-query-localhost: no\nforward-zone:\n name: .\n forward-addr: 127.0.0.1\n",
            )],
            vec!["unbound> ."],
        ),
        // CoreDNS and dnsmasq, each for the other's domain's parent.
        (
            vec![
                ("Corefile", "corp {\n  bind 127.0.0.2\n  forward . 127.0.0.1\n}\n"),
                (
                    "etc/dnsmasq.conf",
                    "no-resolv\nlisten-address=127.0.0.1\nserver=/x.corp/127.0.0.2\n",
                ),
            ],
            vec!["coredns>dnsmasq x.corp."],
        ),
    ] {
        let expected: Vec<_> = expected.iter().map(|line| line.replace("> ", " ")).collect();
        assert_eq!(found(&files), expected, "{files:?}");
    }
}

#[test]
fn a_sound_configuration_is_no_loop() {
    let real = ("etc/resolv.conf", "nameserver 10.0.0.2\n");
    let stub = ("etc/resolv.conf", "nameserver 127.0.0.53\n");
    let second = |rule: &'static str| ("etc/dnsmasq2.conf", rule);
    for files in [
        // The incident, mended.
        vec![TO_CONSUL, ("etc/consul.d/a.json", "{\"recursors\": [\"10.0.0.2\"]}")],
        // consul without recursors.
        vec![TO_CONSUL, ("etc/consul.d/a.json", "{}")],
        // Another port.
        vec![
            TO_CONSUL,
            ("etc/consul.d/a.json", "{\"recursors\": [\"127.0.0.1:54\"]}"),
        ],
        // dnsmasq does not send to itself.
        vec![
            ("etc/dnsmasq.conf", "listen-address=127.0.0.1\n"),
            ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
        ],
        // The stub before real servers.
        vec![
            ("etc/dnsmasq.conf", "listen-address=127.0.0.1\n"),
            stub,
            ("etc/systemd/resolved.conf", "[Resolve]\nDNS=10.0.0.2\n"),
        ],
        // A domain goes one way, everything else the other.
        vec![
            (
                "etc/dnsmasq.conf",
                "no-resolv\nlisten-address=127.0.0.1\nserver=/a/127.0.0.2\nserver=10.0.0.2\n",
            ),
            second("no-resolv\nlisten-address=127.0.0.2\nserver=127.0.0.1\nlocal=/a/\n"),
        ],
        // Each has a domain of the other's, and answers its own.
        vec![
            (
                "etc/dnsmasq.conf",
                "no-resolv\nlisten-address=127.0.0.1\nserver=/a/127.0.0.2\nlocal=/b/\n",
            ),
            second("no-resolv\nlisten-address=127.0.0.2\nserver=/b/127.0.0.1\naddress=/a/10.0.0.9\n"),
        ],
        // CoreDNS with real upstreams, and with the stub's file.
        vec![("Corefile", ". {\n  forward . /etc/resolv.conf\n}\n"), real],
        vec![
            ("Corefile", ". {\n  bind 127.0.0.2\n  forward . /etc/resolv.conf\n}\n"),
            stub,
            ("etc/systemd/resolved.conf", "[Resolve]\nDNS=10.0.0.2\n"),
        ],
        // unbound never asks loopback unless it may.
        vec![
            ("etc/consul.d/a.json", "{\"recursors\": [\"127.0.0.1\"]}"),
            (
                "etc/unbound/unbound.conf",
                "forward-zone:\n name: consul\n forward-addr: 127.0.0.1@8600\n",
            ),
        ],
        // An address of another host is not this one's wildcard.
        vec![TO_CONSUL, ("etc/consul.d/a.json", "{\"recursors\": [\"10.0.0.7\"]}")],
        // CoreDNS hands on all but the domain that would come back.
        vec![
            (
                "Corefile",
                ". {\n  bind 127.0.0.2\n  forward . 127.0.0.1 {\n    except corp\n  }\n}\n",
            ),
            (
                "etc/dnsmasq.conf",
                "no-resolv\nlisten-address=127.0.0.1\nserver=/corp/127.0.0.2\n",
            ),
        ],
    ] {
        assert_eq!(found(&files), [""; 0], "{files:?}");
    }
}

#[test]
fn the_same_loop_in_two_networks_is_two_loops() {
    let files = [
        (
            "etc/dnsmasq.conf",
            "no-resolv\nlisten-address=127.0.0.1\nserver=/a/127.0.0.2\n",
        ),
        (
            "etc/dnsmasq2.conf",
            "no-resolv\nlisten-address=127.0.0.2\nserver=/a/127.0.0.1\n",
        ),
    ];
    let mut all = nodes(&files);
    all.extend(nodes(&files).into_iter().map(|node| Node {
        network: HERE + 1,
        ..node
    }));
    let circles = circles(&all, &is_own);
    let hops: Vec<Vec<_>> = circles
        .iter()
        .map(|circle| circle.hops.iter().map(|hop| hop.node).collect())
        .collect();
    assert_eq!(hops, [[0, 1], [2, 3]]);
}

#[test]
fn an_installed_resolver_does_not_hide_one_that_runs() {
    let mut nodes = nodes(&[TO_CONSUL, BACK]);
    nodes.insert(
        0,
        Node {
            pid: None,
            listens: vec!["127.0.0.1:53".parse().unwrap()],
            rules: Vec::new(),
            ..nodes[0].clone()
        },
    );
    assert_eq!(circles(&nodes, &is_own).len(), 1);
    // Without the one that runs, the other would have the address.
    nodes.pop();
    assert!(circles(&nodes, &is_own).is_empty());
}

#[test]
fn networks_of_their_own_do_not_meet() {
    let mut nodes = nodes(&[TO_CONSUL, BACK]);
    nodes[0].network = HERE + 1;
    assert!(circles(&nodes, &is_own).is_empty());
}

#[test]
fn who_listens_on_just_that_address_goes_before_who_listens_on_all() {
    let of = |listens: &[&str]| {
        let listens = listens.iter().map(|listen| listen.parse().unwrap());
        let reading = Reading {
            listens: listens.collect(),
            ..Reading::default()
        };
        node(Program::Dnsmasq, reading)
    };
    let nodes = [of(&["0.0.0.0:53"]), of(&["127.0.0.53:53"]), of(&["[::]:5353"])];
    let at = |target: &str| listener(&nodes, HERE, target.parse().unwrap(), &is_own);
    assert_eq!(at("127.0.0.53:53"), Some(1));
    assert_eq!(at("127.0.0.1:53"), Some(0));
    assert_eq!(at("10.0.0.1:53"), Some(0));
    assert_eq!(at("10.0.0.2:53"), None, "it is another host's");
    assert_eq!(at("0.0.0.0:53"), Some(0));
    assert_eq!(at("127.0.0.1:5353"), Some(2), "a socket for all of IPv6 hears IPv4");
    assert_eq!(at("[::1]:53"), None);
}
