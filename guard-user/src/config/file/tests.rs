use std::path::PathBuf;

use guard_common::policy::Mode;

use super::*;
use crate::{
    config::{
        AtStop,
        hygiene::{Hygiene, Source},
    },
    selection::Preset,
};

fn error(text: &str) -> String {
    parse("dnsguard.toml", text, None).unwrap_err().to_string()
}

const TEMPLATE: &str = include_str!("../../../dnsguard.example.toml");

#[test]
fn the_template_shows_every_default() {
    assert_eq!(
        parse("dnsguard.example.toml", TEMPLATE, None).unwrap(),
        Config::default()
    );
    // A key that the template left out would have its default as well.
    let keys = TEMPLATE
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#'))
        .count();
    assert_eq!(keys, 32);
}

#[test]
fn the_samples_of_the_template_are_right_and_show_every_key() {
    // What is prose has a space after its number sign; a sample has none.
    let is_sample = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    let samples: Vec<_> = TEMPLATE.lines().filter(is_sample).map(|line| &line[1..]).collect();
    let config = parse("samples", &samples.join("\n"), None).unwrap();
    assert!(config.link_local.is_some() && config.budgets.len() > 1);
    assert_eq!(config.hygiene.mode, Some(Mode::Observe));
    assert!(
        [
            config.hygiene.resolvers.len(),
            config.hygiene.sources.len(),
            config.hygiene.recursion.len()
        ]
        .iter()
        .all(|length| *length > 0)
    );
    // Those that are known beside a preset, and those that are known in each scope.
    let unknown = |keys: &str| error(&format!("[[budget]]\n{keys}\nno-such = 1\n"));
    let [preset, client, zone] = [
        "preset = 'aws-link-local'",
        "name = 'b'\nlimit = 1\nscope = 'client'",
        "name = 'b'\nlimit = 1\nscope = 'zone'",
    ]
    .map(unknown);
    for message in [preset, client, zone] {
        let (_, keys) = message.split_once("; allowed: ").unwrap();
        for key in keys.split(", ") {
            let shown = samples.iter().any(|line| line.starts_with(&format!("{key} = ")));
            assert!(shown, "{key}");
        }
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("dnsguard.toml", "", None).unwrap(), Config::default());
}

#[test]
fn every_key_is_read() {
    let text = "mode = 'enforce'\nmarks = false\nobserve_marks = true\nports = [53, 8600]\nallow = ['X.consul ds']\n\
        [control]\nsocket = ''\ngroup = 'adm'\n\
        [attach]\ninterfaces = ['eth*']\nexclude = ['eth9']\npreset = 'calico'\nnamespaces = ['auto', '/run/netns/blue']\nxdp = 'driver'\ntc = 'clsact'\ntcx_order = 'last'\npin_dir = '/sys/fs/bpf/x'\nat_stop = 'stay'\n\
        [breaker]\nhold_ms = 500\nhold_max_ms = 0x1000\ntest_ms = 1_000\n\
        [answer]\naction = 'drop'\nrcode = 'NXDOMAIN'\nper_client = 1\nper_hold = 2\ntrusted = ['10.0.0.0/8']\n\
        [lease]\nseconds = 5\n[metrics]\nlisten = ''\ntop = 3\n[page]\nlisten = '[::1]:80'\n\
        [hygiene]\nresolvers = ['10.0.0.2/32']\nsources = ['own', '10.1.0.0/16']\nrecursion = ['10.0.0.0/8']\n\
        interfaces = ['eth0']\n\
        mode = 'observe'\n[search]\nsuffixes = ['Corp.example']\n[probe]\nexcept = ['10.0.0.0/8', '::1']\n\
        [pods]\nsource = 'cri'\nsocket = '/run/crio/crio.sock'\n";
    let expected = Config {
        pods: Pods {
            source: PodSource::Cri,
            socket: Some("/run/crio/crio.sock".into()),
        },
        mode: Mode::Enforce,
        marks: false,
        observe_marks: true,
        ports: vec![53, 8_600],
        attach: Attach {
            selection: Selection {
                include: vec![Pattern::parse("eth*").unwrap()],
                exclude: vec![Pattern::literal("eth9")],
                preset: Some(Preset::Calico),
            },
            namespaces: Namespaces {
                resolvers: true,
                paths: vec![PathBuf::from("/run/netns/blue")],
            },
            xdp: Xdp::Driver,
            tc: Tc::Clsact,
            tcx_order: TcxOrder::Last,
            pin_dir: PathBuf::from("/sys/fs/bpf/x"),
            at_stop: AtStop::Stay,
        },
        breaker: Breaker {
            hold_ms: 500,
            hold_max_ms: 4_096,
            test_ms: 1_000,
        },
        answer: Answer {
            action: Action::Drop,
            rcode: Rcode::NxDomain,
            per_client: 1,
            per_hold: 2,
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
        },
        lease: Duration::from_secs(5),
        metrics: Metrics { listen: None, top: 3 },
        page: Page {
            listen: Some("[::1]:80".parse().unwrap()),
        },
        search_suffixes: vec!["corp.example.".to_owned()],
        hygiene: Hygiene {
            resolvers: vec!["10.0.0.2/32".parse().unwrap()],
            sources: vec![Source::Own, Source::Range("10.1.0.0/16".parse().unwrap())],
            recursion: vec!["10.0.0.0/8".parse().unwrap()],
            interfaces: vec!["eth0".to_owned()],
            mode: Some(Mode::Observe),
        },
        probe: Probe {
            except: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        },
        control: Control {
            socket: None,
            group: Some("adm".to_owned()),
        },
        allow: vec![Question::new("x.consul.", "DS").unwrap()],
        // Those have tests of their own.
        budgets: Vec::new(),
        link_local: None,
    };
    assert_eq!(parse("dnsguard.toml", text, None).unwrap(), expected);
}

#[test]
fn an_unknown_key_is_named_with_the_allowed_ones() {
    assert_eq!(
        error("mode = 'observe'\n\n\n\n\n[attach]\ninterfces = ['lo']\n"),
        "dnsguard.toml:7:1: unknown key 'interfces' in [attach]; allowed: interfaces, exclude, preset, namespaces, xdp, tc, tcx_order, pin_dir, at_stop"
    );
    assert_eq!(
        error("[brake]\n"),
        "dnsguard.toml:1:2: unknown key 'brake' at the top level; \
         allowed: mode, marks, observe_marks, ports, attach, breaker, answer, lease, metrics, page, budget, hygiene, search, probe, control, pods, allow"
    );
}

#[test]
fn a_bad_value_is_shown_with_what_is_allowed() {
    let listen = "address and port such as \"127.0.0.1:9533\" or \"[::1]:9533\", or \"\" to switch it off";
    let name = "1 to 15 bytes, no '/', ':' or space, as 'ip link' shows it";
    let pin_dir = "an absolute path below a BPF file system, such as /sys/fs/bpf/dnsguard";
    for (text, expected) in [
        (
            "[pods]\nsource = 'kubelet'",
            "2:10: [pods] source is 'kubelet'; allowed: off, cri".to_owned(),
        ),
        (
            "[pods]\nsocket = 'containerd.sock'",
            "2:10: [pods] socket is 'containerd.sock'; allowed: an absolute path of 107 bytes at most, such as \
             \"/run/containerd/containerd.sock\", or \"\" to try those of containerd, CRI-O and k3s"
                .to_owned(),
        ),
        (
            "mode = 'enforced'",
            "1:8: mode is 'enforced'; allowed: observe, enforce".to_owned(),
        ),
        ("mode = 1", "1:8: mode is 1; allowed: observe, enforce".to_owned()),
        ("ports = 53", "1:9: ports is 53; allowed: a list of integers".to_owned()),
        (
            "ports = []",
            "1:9: ports is empty; allowed: one port or more, such as [53]".to_owned(),
        ),
        (
            "ports = [53, 0]",
            "1:14: ports is 0; allowed: an integer, 1 to 65535".to_owned(),
        ),
        (
            "ports = [70000]",
            "1:10: ports is 70000; allowed: an integer, 1 to 65535".to_owned(),
        ),
        (
            "ports = [-1]",
            "1:10: ports is -1; allowed: an integer, 1 to 65535".to_owned(),
        ),
        ("ports = [53, 53]", "1:14: ports has 53 twice; allowed: once".to_owned()),
        ("attach = 1", "1:10: attach is 1; allowed: a table, [attach]".to_owned()),
        (
            "[attach]\ninterfaces = ['a b']",
            format!("2:15: [attach] interfaces is 'a b'; allowed: {name}"),
        ),
        (
            "[attach]\ninterfaces = [7]",
            format!("2:15: [attach] interfaces is 7; allowed: {name}"),
        ),
        (
            "[attach]\npin_dir = 'x'",
            format!("2:11: [attach] pin_dir is 'x'; allowed: {pin_dir}"),
        ),
        (
            "[breaker]\nhold_ms = 0",
            "2:11: [breaker] hold_ms is 0; allowed: an integer, 100 to 300000".to_owned(),
        ),
        (
            "[lease]\nseconds = 1.5",
            "2:11: [lease] seconds is 1.5; allowed: an integer, 5 to 300".to_owned(),
        ),
        (
            "[lease]\nseconds = 301",
            "2:11: [lease] seconds is 301; allowed: an integer, 5 to 300".to_owned(),
        ),
        (
            "[breaker]\nhold_ms = 5000\nhold_max_ms = 4000",
            "3:15: [breaker] hold_max_ms is 4000; allowed: not less than hold_ms, which is 5000".to_owned(),
        ),
        (
            "[answer]\ntrusted = ['10.1.0.0/8']",
            "2:12: [answer] trusted is '10.1.0.0/8'; allowed: no bits behind the prefix length: 10.0.0.0/8".to_owned(),
        ),
        (
            "[metrics]\nlisten = 'localhost'",
            format!("2:10: [metrics] listen is 'localhost'; allowed: {listen}"),
        ),
    ] {
        assert_eq!(error(text), format!("dnsguard.toml:{expected}"));
    }
}

#[test]
fn the_page_is_shown_to_nobody_but_this_host() {
    let allowed = "address and port of this host alone, such as \"127.0.0.1:9534\" or \"[::1]:9534\", or \"\" to switch it \
                   off";
    for elsewhere in [
        "0.0.0.0:9534",
        "[::]:9534",
        "10.0.0.1:9534",
        "169.254.1.1:80",
        "localhost:9534",
        "9534",
    ] {
        assert_eq!(
            error(&format!("[page]\nlisten = '{elsewhere}'")),
            format!("dnsguard.toml:2:10: [page] listen is '{elsewhere}'; allowed: {allowed}")
        );
    }
    for here in ["127.0.0.1:9534", "127.1.2.3:80", "[::1]:9534"] {
        let config = parse("dnsguard.toml", &format!("[page]\nlisten = '{here}'"), None).unwrap();
        assert_eq!(config.page.listen, Some(here.parse().unwrap()));
        assert!(
            config.to_string().ends_with(&format!("; page at http://{here}/")),
            "{config}"
        );
    }
}

#[test]
fn a_bad_rule_of_hygiene_is_shown_with_what_is_allowed() {
    let range = "an address range such as 10.0.0.0/8 or fc00::/7";
    for (text, expected) in [
        (
            "[hygiene]\nresolvers = ['10.0.0.2']",
            format!("2:14: [hygiene] resolvers is '10.0.0.2'; allowed: {range}"),
        ),
        (
            "[hygiene]\nsources = ['mine']",
            format!("2:12: [hygiene] sources is 'mine'; allowed: \"own\", or {range}"),
        ),
        (
            "[hygiene]\nsources = ['own', 'own']",
            "2:19: [hygiene] sources has 'own' twice; allowed: once".to_owned(),
        ),
        (
            "[hygiene]\nrecursion = '10.0.0.0/8'",
            "2:13: [hygiene] recursion is '10.0.0.0/8'; allowed: a list of strings".to_owned(),
        ),
        (
            "[hygiene]\ninterfaces = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i']",
            "2:14: [hygiene] interfaces has 9 interfaces; allowed: 8 at most, or leave the key out for all".to_owned(),
        ),
        (
            "[hygiene]\nmode = 'off'",
            "2:8: [hygiene] mode is 'off'; allowed: observe, enforce".to_owned(),
        ),
        (
            "[search]\nsuffixes = ['.']",
            "2:13: [search] suffixes is '.'; allowed: a name such as svc.cluster.local".to_owned(),
        ),
    ] {
        assert_eq!(error(text), format!("dnsguard.toml:{expected}"));
    }
}

#[test]
fn ranges_without_room_are_counted_over_budgets_and_hygiene() {
    let ranges = |count: u32| {
        let ranges: Vec<_> = (0..count)
            .map(|number| format!("'10.{}.{}.0/24'", number / 256, number % 256))
            .collect();
        ranges.join(", ")
    };
    let text = |count: u32| {
        format!(
            "[hygiene]\nresolvers = [{}]\nsources = ['own']\n[[budget]]\nname = 'b'\nlimit = 1\n\
             scope = 'destination'\ndestinations = [{}]\n",
            ranges(100),
            ranges(count)
        )
    };
    assert!(parse("dnsguard.toml", &text(155), None).is_ok());
    assert_eq!(
        error(&text(156)),
        "dnsguard.toml:8:16: budgets and hygiene name 257 address ranges; allowed: 256 at most, so merge some"
    );
}

/// What the check against a host says in which only `ens5` has an address.
fn checked(text: &str) -> Result<Config, String> {
    let live = |interface: &str, vpc: Option<(Ipv4Addr, u8)>| {
        let is_known = interface == "ens5" || vpc.is_some();
        is_known
            .then_some(())
            .ok_or_else(|| format!("interface {interface} has no address"))
    };
    parse("f", text, Some(&live)).map_err(|error| error.to_string())
}

#[test]
fn budgets_are_about_guarded_interfaces() {
    let budget = "[[budget]]\nname = 'b'\nlimit = 1\nscope = 'all'\ninterfaces = ['lo', 'eth7']\n";
    assert_eq!(
        checked(budget).unwrap_err(),
        "f:5:14: [[budget]] interfaces has eth7, which [attach] interfaces has not; allowed: those it has, lo"
    );
    assert!(checked(&format!("[attach]\ninterfaces = ['eth7', 'lo']\n{budget}")).is_ok());
    // Flags can change which interfaces are guarded: the file alone is not wrong.
    assert!(parse("f", budget, None).is_ok());
    // Nothing can be said where the guarded interfaces are not known.
    assert_eq!(
        checked(&format!("attach = 1\n{budget}")).unwrap_err().lines().count(),
        1
    );
}

#[test]
fn the_preset_needs_an_interface_with_an_address() {
    let with = |attach: &str, keys: &str| {
        checked(&format!(
            "[attach]\ninterfaces = [{attach}]\n[[budget]]\npreset = 'aws-link-local'\n{keys}"
        ))
    };
    assert!(with("'lo', 'ens5'", "").is_ok());
    assert_eq!(
        with("'lo', 'ens6', 'ens5'", "").unwrap_err(),
        "f:4:10: preset 'aws-link-local': interface ens6 has no address"
    );
    assert_eq!(
        with("'ens6', 'ens5'", "interfaces = ['ens6']").unwrap_err(),
        "f:5:14: preset 'aws-link-local': interface ens6 has no address"
    );
    assert!(with("'ens6'", "vpc = '10.0.0.0/16'").is_ok());
    assert_eq!(
        with("'lo'", "").unwrap_err(),
        "f:4:10: preset 'aws-link-local' has no interface, because [attach] interfaces has only lo; allowed: one that \
         leads to the VPC, such as \"ens5\", in [attach] interfaces"
    );
}

#[test]
fn more_ranges_than_the_kernel_has_room_for_are_refused() {
    let ranges: Vec<_> = (0..33).map(|number| format!("'10.{number}.0.0/16'")).collect();
    let text = format!("[answer]\ntrusted = [{}]", ranges.join(", "));
    let expected = "dnsguard.toml:2:11: [answer] trusted has 33 ranges; allowed: 32 at most, so merge some";
    assert_eq!(error(&text), expected);
}

#[test]
fn all_faults_are_shown_in_the_order_of_the_file() {
    let shown = error("ports = [0]\nmodes = 'x'\n[lease]\nseconds = 1\n");
    let places: Vec<_> = shown.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(
        places,
        ["dnsguard.toml:1:10", "dnsguard.toml:2:1", "dnsguard.toml:4:11"]
    );
}

#[test]
fn what_is_not_toml_is_located() {
    let shown = error("mode = 'observe'\nports = [53\n[lease]\n");
    assert!(
        shown.starts_with("dnsguard.toml:3:") || shown.starts_with("dnsguard.toml:2:"),
        "{shown}"
    );
    assert!(shown.contains("this is not TOML: "), "{shown}");
    assert!(error("mode = 'observe'\nmode = 'enforce'\n").starts_with("dnsguard.toml:2:1: this is not TOML: "));
}

#[test]
fn columns_count_characters() {
    assert_eq!(position("é = 1\nüü = 2", "é = 1\nüü".len()), (2, 3));
}

#[test]
fn a_missing_file_is_named() {
    let shown = Config::load(Path::new("/nonexistent/dnsguard.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        shown.starts_with("cannot read /nonexistent/dnsguard.toml: No such file or directory"),
        "{shown}"
    );
}
