//! Where packets get lost before and behind DNS: the connection table, AWS's allowances, sockets and processors. Two
//! looks tell what is lost now from what was lost once.

use std::{collections::BTreeMap, thread, time::Duration};

use super::{finding::Finding, roots::Roots};
use crate::{ethtool::Statistics, link_local::AWS_LIMIT};

/// Where the counters of this thread's network are.
const NET: &str = "/proc/thread-self/net";
/// The table is called nearly full from this part on, in percent.
const NEARLY_FULL: u64 = 90;

/// A counter of lost packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    LinkLocal,
    ConntrackAllowance,
    PacketAllowance,
    Conntrack,
    ReceiveBuffer,
    SendBuffer,
    Backlog,
}

/// Every loss, with how it is told. In the order in which they are the likelier culprit where two grow alike.
const LOSSES: [Loss; 7] = [
    Loss::LinkLocal,
    Loss::Conntrack,
    Loss::ConntrackAllowance,
    Loss::PacketAllowance,
    Loss::ReceiveBuffer,
    Loss::Backlog,
    Loss::SendBuffer,
];
/// Counters of ENA and the loss that each counts.
const ALLOWANCES: [(&str, Loss); 3] = [
    ("linklocal_allowance_exceeded", Loss::LinkLocal),
    ("conntrack_allowance_exceeded", Loss::ConntrackAllowance),
    ("pps_allowance_exceeded", Loss::PacketAllowance),
];

/// Packets lost, by where; `lo` and all processors share one entry.
type Counts = BTreeMap<(Loss, String), u64>;

/// One look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    counts: Counts,
    /// Entries of the connection table, and how many it can have.
    table: Option<(u64, u64)>,
}

/// Looks twice, so many seconds apart, and says who loses packets.
pub(super) fn check(roots: &Roots, devices: &[String], statistics: &mut Statistics, seconds: u64) -> Vec<Finding> {
    let before = look(roots, devices, statistics);
    let after = if seconds == 0 {
        before.clone()
    } else {
        thread::sleep(Duration::from_secs(seconds));
        look(roots, devices, statistics)
    };
    judge(&before, &after, seconds)
}

fn look(roots: &Roots, devices: &[String], statistics: &mut Statistics) -> Look {
    let mut counts = Counts::new();
    let mut add = |loss, place: &str, count| *counts.entry((loss, place.to_owned())).or_default() += count;
    let stat = roots.read(format!("{NET}/stat/nf_conntrack")).unwrap_or_default();
    for column in ["drop", "early_drop", "insert_failed"] {
        add(Loss::Conntrack, "", column_sum(&stat, column));
    }
    let snmp = roots.read(format!("{NET}/snmp")).unwrap_or_default();
    let snmp6 = roots.read(format!("{NET}/snmp6")).unwrap_or_default();
    for (name, loss) in [
        ("RcvbufErrors", Loss::ReceiveBuffer),
        ("SndbufErrors", Loss::SendBuffer),
    ] {
        add(loss, "", udp(&snmp, name) + udp6(&snmp6, name));
    }
    let softnet = roots.read(format!("{NET}/softnet_stat")).unwrap_or_default();
    let dropped = softnet.lines().filter_map(|line| hex(line.split_whitespace().nth(1)?));
    add(Loss::Backlog, "", dropped.sum());
    for device in devices {
        // A driver that cannot be asked has nothing to say.
        let Ok(reading) = statistics.read(device) else {
            continue;
        };
        for (name, loss) in ALLOWANCES {
            if let Some(count) = reading.get(name) {
                add(loss, device, count);
            }
        }
    }
    let number = |name: &str| roots.number(format!("/proc/sys/net/netfilter/{name}")).ok();
    let table = number("nf_conntrack_count").zip(number("nf_conntrack_max"));
    Look { counts, table }
}

/// The likelier culprit, and everything else that has lost packets.
fn judge(before: &Look, after: &Look, seconds: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let growth =
        |key: &(Loss, String), now: u64| now.saturating_sub(before.counts.get(key).copied().unwrap_or_default());
    let mut growing: Vec<_> = after.counts.iter().map(|(key, now)| (key, growth(key, *now))).collect();
    growing.retain(|(_, growth)| *growth > 0);
    let rank = |loss: Loss| LOSSES.iter().position(|known| *known == loss);
    growing.sort_by_key(|((loss, _), growth)| (std::cmp::Reverse(*growth), rank(*loss)));
    let full = after
        .table
        .filter(|(count, most)| *most > 0 && count * 100 >= most * NEARLY_FULL);

    if let Some((count, most)) = full {
        findings.push(
            Finding::warn(
                "pressure.conntrack",
                format!("the connection table has {count} of {most} entries"),
            )
            .why("when it is full, new queries are dropped without a trace")
            .remedy(format!("sysctl -w net.netfilter.nf_conntrack_max={}", most * 2)),
        );
    }
    match growing.split_first() {
        Some((((loss, place), count), others)) => {
            let rest: Vec<_> = others
                .iter()
                .map(|((loss, place), growth)| format!("{} ({growth} in {seconds} s)", loss.name(place)))
                .collect();
            let beside = if rest.is_empty() {
                "nothing else loses packets now".to_owned()
            } else {
                format!("less likely: {}", rest.join(", "))
            };
            let what = format!(
                "the likelier culprit: {} grew by {count} in {seconds} s",
                loss.name(place)
            );
            findings.push(
                Finding::warn("pressure.culprit", what)
                    .why(format!("{}; {beside}", loss.meaning()))
                    .remedy(loss.remedy()),
            );
        }
        None if full.is_some() => {}
        None => findings.push(Finding::ok(
            "pressure.culprit",
            match seconds {
                0 => "whether packets are lost now was not watched (--seconds 0)".to_owned(),
                seconds => format!("no packets were lost in {seconds} s: not by conntrack, AWS, sockets or processors"),
            },
        )),
    }
    for ((loss, place), count) in &after.counts {
        let is_growing = growing.iter().any(|((known, at), _)| known == loss && at == place);
        if *count > 0 && !is_growing {
            let what = format!("{} is {count}, and does not grow now", loss.name(place));
            findings.push(Finding::info("pressure.past", what).why(loss.meaning()));
        }
    }
    findings
}

impl Loss {
    /// The counter, and where it stands.
    fn name(self, place: &str) -> String {
        match self {
            Self::LinkLocal => format!("linklocal_allowance_exceeded of {place}"),
            Self::ConntrackAllowance => format!("conntrack_allowance_exceeded of {place}"),
            Self::PacketAllowance => format!("pps_allowance_exceeded of {place}"),
            Self::Conntrack => "drops of the connection table (/proc/net/stat/nf_conntrack)".to_owned(),
            Self::ReceiveBuffer => "UDP RcvbufErrors".to_owned(),
            Self::SendBuffer => "UDP SndbufErrors".to_owned(),
            Self::Backlog => "drops of the backlog (/proc/net/softnet_stat)".to_owned(),
        }
    }

    fn meaning(self) -> String {
        match self {
            Self::LinkLocal => format!(
                "AWS drops in silence what an interface sends to DNS, IMDS and NTP above {AWS_LIMIT} packets a second"
            ),
            Self::ConntrackAllowance => "AWS drops packets of new connections: the instance tracks too many".to_owned(),
            Self::PacketAllowance => "AWS drops packets: the instance sends and receives too many a second".to_owned(),
            Self::Conntrack => {
                "two queries from one socket raced for an entry, or the table was full: the query is gone, and its client \
                 waits 5 s"
                    .to_owned()
            }
            Self::ReceiveBuffer => "a program reads its UDP socket too slowly: queries or answers are gone".to_owned(),
            Self::SendBuffer => "a program sends faster than the interface takes".to_owned(),
            Self::Backlog => "a processor has more packets than it can handle".to_owned(),
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::LinkLocal => {
                "add [[budget]] preset = \"aws-link-local\" to the configuration, and see who it is: dnsguard top"
            }
            Self::ConntrackAllowance => {
                "let security groups not track DNS (allow port 53 both ways), or take a larger instance"
            }
            Self::PacketAllowance => "take a larger instance, or see who it is: dnsguard top",
            Self::Conntrack => {
                "iptables -t raw -A PREROUTING -p udp --dport 53 -j NOTRACK && iptables -t raw -A OUTPUT -p udp --dport 53 -j \
                 NOTRACK (where DNS is not translated)"
            }
            Self::ReceiveBuffer => {
                "sysctl -w net.core.rmem_max=8388608 net.core.rmem_default=1048576, then restart the resolver"
            }
            Self::SendBuffer => {
                "sysctl -w net.core.wmem_max=8388608 net.core.wmem_default=1048576, then restart the resolver"
            }
            Self::Backlog => "sysctl -w net.core.netdev_max_backlog=10000",
        }
    }
}

/// The sum over all processors of a column of `/proc/net/stat/nf_conntrack`, whose numbers are hexadecimal.
fn column_sum(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let Some(at) = heading.split_whitespace().position(|word| word == name) else {
        return 0;
    };
    lines.filter_map(|line| hex(line.split_whitespace().nth(at)?)).sum()
}

/// A counter of UDP in `/proc/net/snmp`: names in one line, values in the next.
fn udp(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let value = pairs.find(|(word, _)| *word == name);
    value.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}

/// The same of IPv6, in `/proc/net/snmp6`: a name and a value a line.
fn udp6(text: &str, name: &str) -> u64 {
    let name = format!("Udp6{name}");
    let mut pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let value = pairs.find(|(word, _)| *word == name);
    value
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::doctor::finding::Level;

    fn with(counts: &[(Loss, &str, u64)], table: Option<(u64, u64)>) -> Look {
        let counts = counts
            .iter()
            .map(|(loss, place, count)| ((*loss, (*place).to_owned()), *count));
        Look {
            counts: counts.collect(),
            table,
        }
    }

    #[test]
    fn of_two_that_grow_the_faster_one_is_the_likelier_culprit() {
        let before = with(
            &[(Loss::LinkLocal, "ens5", 1_000), (Loss::Conntrack, "", 50)],
            Some((10, 100)),
        );
        let after = with(
            &[(Loss::LinkLocal, "ens5", 1_812), (Loss::Conntrack, "", 53)],
            Some((10, 100)),
        );
        let found = judge(&before, &after, 1);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].level, Level::Warn);
        assert_eq!(
            found[0].what,
            "the likelier culprit: linklocal_allowance_exceeded of ens5 grew by 812 in 1 s"
        );
        let why = found[0].why.as_deref().unwrap();
        assert!(
            why.contains("1024 packets") && why.contains("nf_conntrack) (3 in 1 s)"),
            "{why}"
        );
    }

    #[test]
    fn the_connection_table_is_the_culprit_where_aws_is_not() {
        let before = with(
            &[(Loss::LinkLocal, "ens5", 1_000), (Loss::Conntrack, "", 50)],
            Some((95, 100)),
        );
        let after = with(
            &[(Loss::LinkLocal, "ens5", 1_000), (Loss::Conntrack, "", 90)],
            Some((95, 100)),
        );
        let told: Vec<_> = judge(&before, &after, 2)
            .into_iter()
            .map(|found| (found.check, found.what))
            .collect();
        assert_eq!(told[0].1, "the connection table has 95 of 100 entries");
        assert!(
            told[1]
                .1
                .starts_with("the likelier culprit: drops of the connection table"),
            "{told:?}"
        );
        assert_eq!(told[2].0, "pressure.past");
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn what_was_lost_once_is_no_culprit_now() {
        let look = with(&[(Loss::ReceiveBuffer, "", 7), (Loss::Backlog, "", 0)], None);
        let found = judge(&look, &look, 1);
        assert_eq!((found[0].level, found[1].level), (Level::Ok, Level::Info));
        assert_eq!(found[1].what, "UDP RcvbufErrors is 7, and does not grow now");
        assert_eq!(found.len(), 2);
        assert!(judge(&look, &look, 0)[0].what.contains("not watched"));
    }

    #[test]
    fn a_driver_that_began_again_has_lost_nothing() {
        let before = with(&[(Loss::LinkLocal, "ens5", 1_000)], None);
        let after = with(&[(Loss::LinkLocal, "ens5", 3)], None);
        assert_eq!(judge(&before, &after, 1)[0].level, Level::Ok);
    }

    #[test]
    fn counters_are_read_from_where_the_kernel_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |path: &str| folder.path().join(path);
        fs::create_dir_all(inside("proc/net/stat")).unwrap();
        fs::create_dir_all(inside("proc/sys/net/netfilter")).unwrap();
        fs::create_dir(inside("proc/thread-self")).unwrap();
        symlink("../net", inside("proc/thread-self/net")).unwrap();
        let write = |path: &str, text: &str| fs::write(inside(path), text).unwrap();
        write(
            "proc/net/stat/nf_conntrack",
            "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error\n\
             000000ff  00000000 0 0 0 0 0 0 0 0000000a 00000001 00000000 0\n000000ff  0 0 0 0 0 0 0 0 00000010 00000000 00000002 0\n",
        );
        write(
            "proc/net/snmp",
            "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\nUdp: 9 0 5 9 5 2\n\
             UdpLite: InDatagrams\nUdpLite: 0\n",
        );
        write(
            "proc/net/snmp6",
            "Udp6InDatagrams                 \t9\nUdp6RcvbufErrors                \t3\n",
        );
        write(
            "proc/net/softnet_stat",
            "0000aaaa 00000004 00000000\n0000bbbb 0000000c 00000000\n",
        );
        write("proc/sys/net/netfilter/nf_conntrack_count", "255\n");
        write("proc/sys/net/netfilter/nf_conntrack_max", "262144\n");
        let mut statistics = Statistics::open().unwrap();
        let found = look(&Roots::below(folder.path()), &["lo".to_owned()], &mut statistics);
        let expected = with(
            &[
                (Loss::Conntrack, "", 0x1d),
                (Loss::ReceiveBuffer, "", 8),
                (Loss::SendBuffer, "", 2),
                (Loss::Backlog, "", 16),
            ],
            Some((255, 262_144)),
        );
        assert_eq!(found, expected);
    }
}
