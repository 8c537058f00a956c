use super::*;

fn link(ifindex: u32, name: &str, kind: &str) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        kind: kind.to_owned(),
        link_type: if name == "lo" { 772 } else { 1 },
        ..Link::default()
    }
}

fn port(ifindex: u32, name: &str, master: u32) -> Link {
    Link {
        master,
        leads_elsewhere: true,
        ..link(ifindex, name, "veth")
    }
}

fn selection(include: &[&str], exclude: &[&str], preset: Option<Preset>) -> Selection {
    let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    Selection {
        include: patterns(include),
        exclude: patterns(exclude),
        preset,
    }
}

/// Names and reasons; the interface of index 2 has the default route.
fn chosen(selection: &Selection, links: &[Link]) -> Vec<String> {
    let chosen = selection.choose(links, &BTreeSet::from([2]));
    let words = chosen.iter().map(|one| format!("{}: {}", one.device.name, one.why));
    words.collect()
}

#[test]
fn what_is_excluded_is_not_guarded_whatever_else_is_said() {
    let links = [
        link(1, "lo", ""),
        link(2, "up0", "veth"),
        link(3, "veth1", "veth"),
        link(4, "veth2", "veth"),
    ];
    let of = |include: &[&str], exclude: &[&str]| chosen(&selection(include, exclude, None), &links);
    assert_eq!(of(&["lo", "veth*"], &["veth2"]), ["lo: ", "veth1: matches veth*"]);
    assert_eq!(of(&["/^v/"], &["/2$/"]), ["veth1: matches /^v/"]);
    assert_eq!(of(&["lo"], &["*"]), [""; 0]);
    let preset = selection(&["lo"], &["lo", "up*"], Some(Preset::Host));
    assert_eq!(chosen(&preset, &links), [""; 0]);
}

#[test]
fn a_plain_host_has_its_loopback_and_what_leads_outward() {
    let links = [
        link(1, "lo", ""),
        link(2, "up0", "veth"),
        link(3, "docker0", "bridge"),
        port(4, "vethab12cd3", 3),
        link(5, "bond0", "bond"),
        link(6, "dummy0", "dummy"),
    ];
    let host = selection(&["other"], &[], Some(Preset::Host));
    let expected = [
        "lo: preset host: loopback",
        "up0: preset host: leads outward",
        "bond0: preset host: leads outward",
    ];
    assert_eq!(chosen(&host, &links), expected);
    let auto = selection(&["lo"], &[], Some(Preset::Auto));
    let expected = [
        "lo: ",
        "up0: preset auto, host: leads outward",
        "bond0: preset auto, host: leads outward",
    ];
    assert_eq!(chosen(&auto, &links), expected);
}

#[test]
fn a_network_plugin_is_recognised_by_its_links() {
    let plugins = [
        (
            vec![
                link(3, "eni0123456789a", "veth"),
                link(4, "vlan0123456789a", "veth"),
                link(5, "enix", "veth"),
            ],
            vec![
                "eni0123456789a: preset auto, aws-vpc: a pod's link",
                "vlan0123456789a: preset auto, aws-vpc: a pod's link",
            ],
        ),
        (
            vec![link(3, "cali0123456789a", "veth"), link(4, "vxlan.calico", "vxlan")],
            vec![
                "cali0123456789a: preset auto, calico: a pod's link",
                "vxlan.calico: preset auto, calico: an overlay",
            ],
        ),
        (
            vec![
                link(3, "cilium_net", "veth"),
                link(4, "cilium_host", "veth"),
                link(5, "cilium_vxlan", "vxlan"),
                link(6, "lxc1", "veth"),
                link(7, "lxc2", "netkit"),
            ],
            vec![
                "cilium_vxlan: preset auto, cilium: an overlay",
                "lxc1: preset auto, cilium: a pod's link",
            ],
        ),
        (
            vec![
                link(3, "cni0", "bridge"),
                port(4, "veth0123abcd", 3),
                link(5, "flannel.1", "vxlan"),
            ],
            vec![
                "veth0123abcd: preset auto, flannel: a pod's link",
                "flannel.1: preset auto, flannel: an overlay",
            ],
        ),
        (
            vec![link(3, "cni0", "bridge"), port(4, "veth0123abcd", 3)],
            vec!["veth0123abcd: preset auto, bridge: a pod's link"],
        ),
        (
            vec![port(3, "veth0123abcd", 0), port(4, "vethnothash", 0)],
            vec!["veth0123abcd: preset auto, bridge: a pod's link"],
        ),
    ];
    for (mut links, expected) in plugins {
        links.push(link(1, "lo", ""));
        let auto = selection(&["lo"], &[], Some(Preset::Auto));
        let mut found = chosen(&auto, &links);
        found.retain(|one| one != "lo: ");
        assert_eq!(found, expected);
    }
}

#[test]
fn what_is_named_is_there_and_carries_ethernet() {
    let mut tunnel = link(3, "tunl0", "ipip");
    tunnel.link_type = 768;
    let links = [link(1, "lo", ""), tunnel];
    let faults = |include: &[&str], exclude: &[&str]| {
        let faults = selection(include, exclude, None).faults(&links);
        faults.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(faults(&["lo", "veth*"], &[]), [""; 0]);
    assert!(faults(&["eth9"], &[])[0].starts_with("there is no interface eth9"));
    assert!(faults(&["tunl0"], &[])[0].contains("carries no Ethernet frames (link type 768)"));
    assert_eq!(faults(&["eth9"], &["eth*"]), [""; 0]);
    assert_eq!(chosen(&selection(&["*"], &[], None), &links), ["lo: matches *"]);
}

#[test]
fn a_name_may_come_later_where_a_pattern_or_preset_chooses() {
    let may = |selection: &Selection, name| selection.may_choose(name);
    let closed = selection(&["lo", "eth0"], &[], None);
    assert!(closed.is_closed() && may(&closed, "eth0") && !may(&closed, "eth1"));
    let open = selection(&["lo", "eth*"], &["eth9"], None);
    assert!(!open.is_closed() && may(&open, "eth1") && !may(&open, "eth9") && !may(&open, "ens5"));
    let preset = selection(&["lo"], &["eth9"], Some(Preset::Auto));
    assert!(!preset.is_closed() && may(&preset, "ens5") && !may(&preset, "eth9"));
    assert_eq!(preset.words(), "lo, preset auto, but not eth9");
}
