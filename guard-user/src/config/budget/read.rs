//! `[[budget]]`, key by key, and what only shows when all of them are seen together.

use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive};

use guard_common::{
    budget::{MAX_LINKS, MAX_TYPES, Scope, ZONES},
    policy::MAX_ROWS,
    question::MAX_ZONE_LABELS,
};

use super::{Budget, Direction, Excess, Filter, LinkLocal, Prefixes, Sharing};
use crate::{
    config::{
        Attach, Cidr, MODES,
        limit::{self, Allowance, Limit},
        section::Section,
        zone::Zone,
    },
    name,
    selection::interface_name,
};

/// Packets per second of a link-local budget unless the operator says otherwise; AWS drops what is above 1024.
const LINK_LIMIT: u32 = 900;
/// The most that the kernel takes as limit and as burst of a link-local budget.
const MAX_LINK: u32 = 100_000;
/// Packets that any other bucket holds at the most.
const MAX_BURST: u32 = 1_000_000_000;
/// Labels that make a zone unless the operator says otherwise.
const ZONE_LABELS: u8 = 2;
/// Prefix lengths of a VPC (Amazon VPC user guide, "VPC CIDR blocks").
const VPC_BITS: RangeInclusive<u8> = 16..=28;
/// Characters of a name.
const MAX_NAME: usize = 40;
/// What a name may be, for messages.
const NAME: &str = "1 to 40 of a-z, 0-9, '.', '_', '-' and spaces, which neither begin nor end it";

/// Every scope and its word.
const SCOPES: [(&str, Scope); 6] = [
    ("destination", Scope::Destination),
    ("client", Scope::Client),
    ("key", Scope::Key),
    ("zone", Scope::Zone),
    ("interface", Scope::Interface),
    ("all", Scope::All),
];
/// The keys that are for one scope only.
const CLIENT_KEYS: [&str; 2] = ["v4_prefixes", "v6_prefixes"];
const ZONE_KEYS: [&str; 1] = ["labels"];
/// The keys that a preset sets, or has no use for.
const NOT_BESIDE_A_PRESET: [&str; 9] = [
    "name",
    "scope",
    "direction",
    "v4_prefixes",
    "v6_prefixes",
    "labels",
    "zones",
    "destinations",
    "types",
];

/// A budget, and where in the file it is.
pub(in crate::config) struct Placed {
    pub(in crate::config) stated: Stated,
    /// Its name, or its preset.
    pub(in crate::config) at: usize,
    /// Its interfaces, or else its name or preset.
    pub(in crate::config) interfaces_at: usize,
    /// Its destinations, or else its name.
    pub(in crate::config) destinations_at: usize,
}

/// What a `[[budget]]` states.
pub(in crate::config) enum Stated {
    Budget(Budget),
    LinkLocal(LinkLocal),
}

/// The budgets of a file that are right each by itself; notes what is wrong with them together.
pub(in crate::config) fn budgets(top: &mut Section<'_>, attach: &Attach) -> Vec<Placed> {
    let placed = top.sections("budget", placed);
    refuse_overlaps(top, attach, &placed);
    refuse_what_has_no_room(top, &placed);
    placed
}

fn placed(section: &mut Section<'_>) -> Option<Placed> {
    let (stated, key) = if section.has("preset") {
        if !is_preset(section) {
            section.pass_over_the_rest();
            return None;
        }
        (Stated::LinkLocal(link_local(section)?), "preset")
    } else {
        section.pass_over(&["preset"]);
        (Stated::Budget(budget(section)?), "name")
    };
    let at = section.place(key);
    let place_of = |key| if section.has(key) { section.place(key) } else { at };
    Some(Placed {
        stated,
        at,
        interfaces_at: place_of("interfaces"),
        destinations_at: place_of("destinations"),
    })
}

/// Whether the preset is the one there is.
fn is_preset(section: &mut Section<'_>) -> bool {
    let known = LinkLocal::NAME;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let Some(preset) = section.text("preset", |text| some(text).ok_or_else(|| known.to_owned())) else {
        return false;
    };
    if preset != known {
        let preset = preset.escape_debug();
        let at = section.place("preset");
        section.refuse_at(at, format!("unknown preset '{preset}'; allowed: {known}"));
    }
    preset == known
}

fn budget(section: &mut Section<'_>) -> Option<Budget> {
    let name = section.text("name", name_of);
    section.require("name", NAME);
    let scope = section.choice("scope", &SCOPES);
    section.require("scope", &SCOPES.map(|(word, _)| word).join(", "));
    let direction = section.choice("direction", &Direction::WORDS);
    let limit = section.number_or_text("limit", Limit::per_second, Limit::read, limit::ALLOWED);
    section.require("limit", limit::ALLOWED);
    let allowance = allowance(section, limit, limit.map(|limit| limit.in_a_second()), MAX_BURST);
    let excess = section.word("action", &Excess::WORDS, Excess::Drop);
    let sharing = sharing(section, scope);
    let filter = filter(section, scope);
    let mode = section.choice("mode", &MODES);
    section.refuse_keys(&["vpc"], "is for preset 'aws-link-local' only; leave it out");

    if let Some(Sharing::Zone(labels)) = &sharing
        && let Some(zone) = filter.zones.iter().find(|zone| *labels != [zone.labels()])
    {
        let count = zone.labels();
        section.refuse(
            "zones",
            &format!("has '{zone}' of {count} labels; allowed: in scope zone, names of as many labels as labels says"),
        );
    }
    let scope = scope?;
    Some(Budget {
        name: name?,
        sharing: sharing?,
        direction: direction.unwrap_or(if scope == Scope::Destination {
            Direction::Out
        } else {
            Direction::In
        }),
        allowance: allowance?,
        excess,
        filter,
        mode,
    })
}

fn link_local(section: &mut Section<'_>) -> Option<LinkLocal> {
    let limit = section.integer("limit", 1..=MAX_LINK, LINK_LIMIT);
    let allowance = allowance(section, Limit::per_second(limit), Some((limit / 8).max(1)), MAX_LINK);
    let excess = section.word("action", &Excess::WORDS, Excess::Drop);
    let interfaces = interfaces(section);
    if interfaces.len() > MAX_LINKS {
        let count = interfaces.len();
        section.refuse(
            "interfaces",
            &format!("has {count} names; allowed: {MAX_LINKS} at most, one more than an instance has"),
        );
    }
    let vpc = section.text("vpc", vpc);
    let mode = section.choice("mode", &MODES);
    section.refuse_keys(
        &NOT_BESIDE_A_PRESET,
        "is set by preset 'aws-link-local'; leave it out, or write a [[budget]] of its own",
    );
    Some(LinkLocal {
        allowance: allowance?,
        limit,
        excess,
        interfaces,
        vpc,
        mode,
    })
}

fn name_of(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b' ' | b'.' | b'_' | b'-');
    if text == LinkLocal::NAME {
        Err("any other name, because this is the preset's".to_owned())
    } else if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_plain) && text.trim() == text {
        Ok(text.to_owned())
    } else {
        Err(NAME.to_owned())
    }
}

fn allowance(
    section: &mut Section<'_>,
    limit: Option<Limit>,
    default_burst: Option<u32>,
    most_burst: u32,
) -> Option<Allowance> {
    let (Some(limit), Some(default_burst)) = (limit, default_burst) else {
        section.pass_over(&["burst"]);
        return None;
    };
    let burst = section.number("burst", |burst| Allowance::new(limit, burst, most_burst));
    burst.or_else(|| Allowance::new(limit, default_burst, most_burst).ok())
}

fn sharing(section: &mut Section<'_>, scope: Option<Scope>) -> Option<Sharing> {
    match scope {
        None => section.pass_over(&[CLIENT_KEYS.as_slice(), &ZONE_KEYS].concat()),
        Some(scope) => {
            if scope != Scope::Client {
                section.refuse_keys(&CLIENT_KEYS, "is for scope client only; leave it out");
            }
            if scope != Scope::Zone {
                section.refuse_keys(&ZONE_KEYS, "is for scope zone only; leave it out");
            }
        }
    }
    Some(match scope? {
        Scope::Destination => Sharing::Destination,
        Scope::Client => Sharing::Client(prefixes(section)),
        Scope::Key => Sharing::Key,
        Scope::Zone => {
            let labels = section.integer_or_integers("labels", 1..=MAX_ZONE_LABELS as u32);
            section.refuse_empty("labels", "one label count or more, such as 2");
            Sharing::Zone(descending(labels, ZONE_LABELS))
        }
        Scope::Interface => Sharing::Interface,
        Scope::All => Sharing::All,
    })
}

/// The prefix lengths of both families, the longest of the one with the longest of the other. The shorter list goes on
/// with its last: a client that is charged twice by the same length is limited by no other.
fn prefixes(section: &mut Section<'_>) -> Vec<Prefixes> {
    let v4 = section.integers("v4_prefixes", 0..=32);
    section.refuse_empty("v4_prefixes", "one prefix length or more, such as [32]");
    let v6 = section.integers("v6_prefixes", 0..=128);
    section.refuse_empty("v6_prefixes", "one prefix length or more, such as [128]");
    let (v4, v6) = (descending(v4, 32), descending(v6, 128));
    let at = |list: &[u8], index: usize| list.get(index).or_else(|| list.last()).copied();
    (0..v4.len().max(v6.len()))
        .filter_map(|index| {
            Some(Prefixes {
                v4: at(&v4, index)?,
                v6: at(&v6, index)?,
            })
        })
        .collect()
}

/// Numbers of a checked range that is within that of `u8`, the greatest first.
fn descending(numbers: Option<Vec<u32>>, default: u8) -> Vec<u8> {
    let mut numbers: Vec<_> = match numbers {
        Some(numbers) => numbers.into_iter().map(|number| number as u8).collect(),
        None => vec![default],
    };
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    numbers
}

fn filter(section: &mut Section<'_>, scope: Option<Scope>) -> Filter {
    let zones: Vec<Zone> = section.texts("zones", str::parse).unwrap_or_default();
    section.refuse_empty("zones", "one name or more; for all names, leave it out");
    let inside = zones.iter().find_map(|zone| {
        let mut others = zones.iter().filter(|other| *other != zone);
        others.find(|wide| wide.contains(zone)).map(|wide| (zone, wide))
    });
    if let Some((zone, wide)) = inside {
        section.refuse(
            "zones",
            &format!("has '{zone}', which is inside '{wide}'; allowed: only the wider of them"),
        );
    }

    let destinations: Vec<Cidr> = section.texts("destinations", str::parse).unwrap_or_default();
    section.refuse_empty("destinations", "one address range or more; for all, leave it out");
    if scope == Some(Scope::Destination) {
        section.require("destinations", "in scope destination, a list such as [\"10.0.0.2/32\"]");
    }

    let interfaces = interfaces(section);

    let types = section.texts("types", |text| {
        name::qtype_number(text).ok_or_else(|| "a type such as \"ANY\", \"TXT\" or \"TYPE65280\"".to_owned())
    });
    let types = types.unwrap_or_default();
    section.refuse_empty("types", "one type or more; for all types, leave it out");
    if types.len() > MAX_TYPES {
        let count = types.len();
        section.refuse(
            "types",
            &format!("has {count} types; allowed: {MAX_TYPES} at most, so make two budgets of it"),
        );
    }
    Filter {
        zones,
        destinations,
        interfaces,
        types,
    }
}

fn interfaces(section: &mut Section<'_>) -> Vec<String> {
    let interfaces = section.texts("interfaces", interface_name);
    section.refuse_empty(
        "interfaces",
        "one name or more; for all of [attach] interfaces, leave it out",
    );
    interfaces.unwrap_or_default()
}

fn vpc(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let range = text.parse::<Cidr>().ok().and_then(|range| range.v4());
    let (least, most) = VPC_BITS.into_inner();
    range
        .filter(|(_, bits)| VPC_BITS.contains(bits))
        .ok_or_else(|| format!("the VPC's primary IPv4 CIDR, a /{least} to /{most} such as \"10.0.0.0/16\""))
}

fn refuse_overlaps(top: &Section<'_>, attach: &Attach, placed: &[Placed]) {
    for (index, later) in placed.iter().enumerate() {
        let fault = placed[..index]
            .iter()
            .find_map(|earlier| overlap(&earlier.stated, &later.stated, attach));
        if let Some(fault) = fault {
            top.refuse_at(later.at, fault);
        }
    }
}

/// What is wrong with two budgets of a file, if there is.
fn overlap(earlier: &Stated, later: &Stated, attach: &Attach) -> Option<String> {
    let preset = LinkLocal::NAME;
    match (earlier, later) {
        (Stated::LinkLocal(_), Stated::LinkLocal(_)) => Some(format!(
            "preset '{preset}' is used twice; allowed: once, with the interfaces of both"
        )),
        (Stated::Budget(one), Stated::Budget(other)) if one.name == other.name => Some(format!(
            "[[budget]] name is '{}'; allowed: a name that no other budget has",
            one.name
        )),
        (Stated::Budget(one), Stated::Budget(other)) => one.overlaps(other).then(|| {
            format!(
                "budget '{}' counts queries that budget '{}' counts in the same way; allowed: one budget for both, or \
                 types, zones, destinations or interfaces that tell them apart",
                other.name, one.name
            )
        }),
        (Stated::LinkLocal(link), Stated::Budget(budget)) | (Stated::Budget(budget), Stated::LinkLocal(link)) => {
            link.overlaps(budget, attach).then(|| {
                format!(
                    "budget '{}' counts what leaves for the services of preset '{preset}'; allowed: only the preset, \
                     or destinations or interfaces that tell them apart",
                    budget.name
                )
            })
        }
    }
}

/// Notes the budget with which the kernel's tables run over.
fn refuse_what_has_no_room(top: &Section<'_>, placed: &[Placed]) {
    let rows = |placed: &Placed| match &placed.stated {
        Stated::Budget(budget) => budget.row_count(),
        Stated::LinkLocal(_) => 0,
    };
    let mut running = 0;
    let last = placed.iter().find(|placed| {
        running += rows(placed);
        running > MAX_ROWS
    });
    if let Some(last) = last {
        let all: usize = placed.iter().map(rows).sum();
        top.refuse_at(
            last.at,
            format!(
                "the budgets make {all} rows; allowed: {MAX_ROWS} at most, and each prefix length, label count, zone \
                 and four interfaces of a budget make one"
            ),
        );
    }

    let counts = |placed: &Placed| match &placed.stated {
        Stated::Budget(budget) => budget.label_counts().collect(),
        Stated::LinkLocal(_) => vec![LinkLocal::SHARE_LABELS],
    };
    let mut known = BTreeSet::new();
    let last = placed.iter().find(|placed| {
        known.extend(counts(placed));
        known.len() > ZONES
    });
    if let Some(last) = last {
        let all: BTreeSet<_> = placed.iter().flat_map(counts).collect();
        let list: Vec<_> = all.iter().map(u8::to_string).collect();
        top.refuse_at(
            last.at,
            format!(
                "the budgets know zones by {} label counts ({}); allowed: {ZONES} at most, and a preset takes 2",
                all.len(),
                list.join(", ")
            ),
        );
    }
}
