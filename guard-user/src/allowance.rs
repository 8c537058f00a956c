//! What AWS itself dropped: the counters of the ENA driver (amzn-drivers, `ena_ethtool.c`), beside what the guard saw.
//!
//! No clock and no socket in here: the caller says what time it is and how a driver is read.

use std::{
    collections::BTreeMap,
    fmt, io,
    time::{Duration, Instant},
};

use crate::{ethtool::Reading, events::Event, link_local::AWS_LIMIT};

/// Each reading is a command to the device; they are never closer than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Drops that go on are told once in this time.
const PAUSE_TOLD: Duration = Duration::from_secs(60);
/// When a driver without these counters is asked again: it could have been replaced.
const PAUSE_WITHOUT: Duration = Duration::from_secs(600);

/// The one that link-local services draw on.
const LINKLOCAL: &str = "linklocal";
/// Allowances whose excess the driver counts, in packets since its last reset. The one for link-local services is the
/// network interface's, the others are the instance's.
const EXCEEDED: [&str; 5] = ["bw_in", "bw_out", "pps", "conntrack", LINKLOCAL];
/// Connections that can still be tracked; drivers from 2.8.1 on know.
const CONNTRACK_AVAILABLE: &str = "conntrack_allowance_available";

/// The allowances of every interface that was asked for them.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    devices: BTreeMap<String, Device>,
}

/// What is known of one interface.
#[derive(Debug, Default)]
struct Device {
    exceeded: BTreeMap<&'static str, Counter>,
    conntrack_available: Option<u64>,
    /// When the driver may be asked again.
    next: Option<Instant>,
    /// When the counters were last read.
    read: Option<Instant>,
    /// What the guard saw since then.
    seen: Option<LinkLocal>,
    told_missing: bool,
    /// When drops were told last, and those since.
    told: Option<Instant>,
    untold: u64,
    failing: bool,
}

/// A counter that a reset of the driver does not set back.
#[derive(Clone, Copy, Debug)]
struct Counter {
    total: u64,
    /// The driver's own value.
    last: u64,
}

/// What the guard let through to the link-local services by one interface, since this was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkLocal {
    /// Packets.
    pub(crate) packets: u64,
    /// The most packets of one second, in the last minute or two.
    pub(crate) peak_per_second: u64,
    /// The limit of the budget.
    pub(crate) limit_per_second: u64,
}

/// The counters of one interface, for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceAllowances {
    /// Name of the interface.
    pub(crate) device: String,
    /// Packets beyond an allowance, by its type, since the agent first read them.
    pub(crate) exceeded: Vec<(&'static str, u64)>,
    /// Connections that can still be tracked.
    pub(crate) conntrack_available: Option<u64>,
}

impl Allowances {
    /// Asks the driver of `device`, unless it is too early; returns what is worth telling. `seen` is `None` where no
    /// budget watches the link-local services.
    ///
    /// # Errors
    ///
    /// What `read` said, the first time in a row; the last values stay.
    pub(crate) fn poll<'n>(
        &mut self,
        device: &str,
        now: Instant,
        seen: Option<LinkLocal>,
        read: impl FnOnce(&str) -> io::Result<Reading<'n>>,
    ) -> io::Result<Option<Event>> {
        let state = self.devices.entry(device.to_owned()).or_default();
        state.seen = LinkLocal::sum(state.seen, seen);
        if state.next.is_some_and(|next| now < next) {
            return Ok(None);
        }
        state.next = Some(now + PAUSE);
        match read(device) {
            Ok(reading) => {
                state.failing = false;
                Ok(state.take(device, now, &reading))
            }
            Err(error) if !state.failing => {
                state.failing = true;
                Err(error)
            }
            Err(_) => Ok(None),
        }
    }

    /// Forgets all interfaces but these.
    pub(crate) fn keep(&mut self, names: &[String]) {
        self.devices.retain(|known, _| names.contains(known));
    }

    /// The counters of every interface that has some.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceAllowances> {
        let with = |state: &Device| !state.exceeded.is_empty() || state.conntrack_available.is_some();
        let devices = self.devices.iter().filter(move |(_, state)| with(state));
        devices.map(|(device, state)| DeviceAllowances {
            device: device.clone(),
            exceeded: state
                .exceeded
                .iter()
                .map(|(kind, counter)| (*kind, counter.total))
                .collect(),
            conntrack_available: state.conntrack_available,
        })
    }
}

impl Device {
    fn take(&mut self, device: &str, now: Instant, reading: &Reading<'_>) -> Option<Event> {
        let mut found = false;
        let mut dropped = 0;
        for kind in EXCEEDED {
            let Some(value) = reading.get(&format!("{kind}_allowance_exceeded")) else {
                continue;
            };
            found = true;
            let counter = self.exceeded.entry(kind).or_insert(Counter { total: 0, last: value });
            let growth = counter.advance(value);
            if kind == LINKLOCAL {
                dropped = growth;
            }
        }
        let available = reading.get(CONNTRACK_AVAILABLE);
        if !found && available.is_none() {
            self.next = Some(now + PAUSE_WITHOUT);
            self.seen = None;
            let first = !std::mem::replace(&mut self.told_missing, true);
            return first.then(|| missing(device, reading.driver));
        }
        self.conntrack_available = available;
        self.untold += dropped;
        let is_due = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= PAUSE_TOLD);
        if self.untold > 0 && !is_due {
            // What the guard sees until it is told belongs to it.
            return None;
        }
        let seen = self.seen.take();
        let elapsed = now.saturating_duration_since(self.read.replace(now).unwrap_or(now));
        if self.untold == 0 {
            return None;
        }
        self.told = Some(now);
        Some(exceeded(device, std::mem::take(&mut self.untold), elapsed, seen))
    }
}

impl Counter {
    /// Takes over the driver's value; returns by how much it grew. A value that is smaller than the last began again at
    /// 0, because the driver was reset, unless a few more packets took it over the end of its 64 bits.
    const fn advance(&mut self, value: u64) -> u64 {
        let difference = value.wrapping_sub(self.last);
        let growth = if difference <= u64::MAX / 2 { difference } else { value };
        self.last = value;
        self.total = self.total.wrapping_add(growth);
        growth
    }
}

impl LinkLocal {
    /// Both intervals as one, under the limit of the later.
    fn sum(earlier: Option<Self>, later: Option<Self>) -> Option<Self> {
        let (Some(one), Some(two)) = (earlier, later) else {
            return later.or(earlier);
        };
        Some(Self {
            packets: one.packets.saturating_add(two.packets),
            peak_per_second: one.peak_per_second.max(two.peak_per_second),
            limit_per_second: two.limit_per_second,
        })
    }

    /// Whether this is so close to the budget's limit, or to AWS's, that it explains drops: 9 tenths of either.
    /// AWS does not say over which time it measures.
    const fn is_at_the_limit(&self) -> bool {
        let limit = if self.limit_per_second < AWS_LIMIT {
            self.limit_per_second
        } else {
            AWS_LIMIT
        };
        self.peak_per_second.saturating_mul(10) >= limit.saturating_mul(9)
    }
}

fn missing(device: &str, driver: Option<&str>) -> Event {
    let reason = format!(
        "{} of {device} has no allowance counters, which is normal on anything but AWS's ENA: what AWS drops there is \
         not known",
        driver.map_or_else(|| "the driver".to_owned(), |driver| format!("the driver {driver}"))
    );
    Event::NoAllowances {
        device: device.to_owned(),
        driver: driver.map(str::to_owned),
        reason,
    }
}

/// AWS dropped packets to its link-local services: says whether the guard could have known.
fn exceeded(device: &str, dropped: u64, elapsed: Duration, seen: Option<LinkLocal>) -> Event {
    let comparison = Comparison {
        device,
        dropped,
        elapsed,
        seen,
    };
    Event::AllowanceExceeded {
        device: device.to_owned(),
        kind: LINKLOCAL,
        dropped,
        our_packets_per_second: seen.map(|seen| seen.peak_per_second),
        reason: comparison.to_string(),
    }
}

struct Comparison<'d> {
    device: &'d str,
    dropped: u64,
    elapsed: Duration,
    seen: Option<LinkLocal>,
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            dropped,
            elapsed,
            seen,
        } = self;
        let seconds = elapsed.as_secs_f64().max(1.0);
        write!(
            f,
            "AWS dropped {dropped} packets from {device} to its link-local services (DNS, IMDS, NTP) in {seconds:.0} s"
        )?;
        let Some(seen) = seen else {
            return f.write_str("; no budget watches them: add one with preset = \"aws-link-local\"");
        };
        let LinkLocal {
            packets,
            peak_per_second: peak,
            limit_per_second: limit,
        } = seen;
        let average = *packets as f64 / seconds;
        if *peak >= AWS_LIMIT && *limit < AWS_LIMIT {
            write!(
                f,
                "; the guard let up to {peak}/s through although the limit is {limit}/s: in observe mode it sheds \
                 nothing, and it never sheds IMDS and NTP; dnsguard_link_local_packets_total says which service it was"
            )
        } else if seen.is_at_the_limit() {
            write!(
                f,
                "; the guard let up to {peak}/s through ({average:.0}/s on average), and its limit is {limit}/s: \
                 lower the limit"
            )
        } else {
            write!(
                f,
                "; the guard saw only {peak}/s at most ({average:.0}/s on average) of the {AWS_LIMIT}/s that AWS lets \
                 through, so they pass it by or come in bursts shorter than a second: check that vpc is the VPC's \
                 primary CIDR, and what else sends by {device} from another interface or network namespace (`tcpdump \
                 -ni {device} udp port 53`)"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);
    const QUIET: LinkLocal = LinkLocal {
        packets: 500,
        peak_per_second: 120,
        limit_per_second: 900,
    };

    /// A driver with these statistics, and the interface `ens5` that it drives, read every five seconds.
    struct Bench {
        allowances: Allowances,
        now: Instant,
        reads: u32,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                allowances: Allowances::default(),
                now: Instant::now(),
                reads: 0,
            }
        }

        fn poll(&mut self, statistics: &[(&str, u64)]) -> Option<Event> {
            self.poll_beside(Some(QUIET), statistics)
        }

        fn poll_beside(&mut self, seen: Option<LinkLocal>, statistics: &[(&str, u64)]) -> Option<Event> {
            let names: Vec<_> = statistics.iter().map(|(name, _)| (*name).to_owned()).collect();
            let reading = Reading {
                driver: Some("ena"),
                names: &names,
                values: statistics.iter().map(|(_, value)| *value).collect(),
            };
            self.now += PERIOD;
            let reads = &mut self.reads;
            let read = |device: &str| {
                assert_eq!(device, "ens5");
                *reads += 1;
                Ok(reading)
            };
            self.allowances.poll("ens5", self.now, seen, read).unwrap()
        }

        fn fail(&mut self) -> io::Result<Option<Event>> {
            self.now += PERIOD;
            let read = |_: &str| Err(io::Error::other("admin queue is stuck"));
            self.allowances.poll("ens5", self.now, Some(QUIET), read)
        }

        fn exceeded(&self, kind: &str) -> Option<u64> {
            let device = self.allowances.devices().next()?;
            device
                .exceeded
                .iter()
                .find(|(known, _)| *known == kind)
                .map(|(_, total)| *total)
        }
    }

    fn linklocal(value: u64) -> [(&'static str, u64); 1] {
        [("linklocal_allowance_exceeded", value)]
    }

    fn reason(event: Option<Event>) -> String {
        match event {
            Some(Event::AllowanceExceeded { reason, .. } | Event::NoAllowances { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_dropped_before_the_start_is_not_ours() {
        let mut bench = Bench::new();
        assert_eq!(bench.poll(&linklocal(70_000)), None);
        assert_eq!(bench.exceeded("linklocal"), Some(0));
        let event = bench.poll(&linklocal(70_012)).unwrap();
        assert!(
            matches!(event, Event::AllowanceExceeded { dropped: 12, .. }),
            "{event:?}"
        );
        assert_eq!(bench.exceeded("linklocal"), Some(12));
        assert_eq!(bench.poll(&linklocal(70_012)), None);
    }

    #[test]
    fn a_reset_of_the_driver_sets_no_counter_back() {
        let mut bench = Bench::new();
        for value in [100, 150, 0, 20, 5] {
            bench.poll(&linklocal(value));
        }
        assert_eq!(bench.exceeded("linklocal"), Some(50 + 20 + 5));
    }

    #[test]
    fn a_counter_that_runs_over_goes_on() {
        let mut bench = Bench::new();
        bench.poll(&linklocal(u64::MAX - 4));
        bench.poll(&linklocal(3));
        assert_eq!(bench.exceeded("linklocal"), Some(8));
    }

    #[test]
    fn each_allowance_is_counted_under_its_type_wherever_it_stands() {
        let mut bench = Bench::new();
        let first = [
            ("queue_0_tx_cnt", 1),
            ("bw_in_allowance_exceeded", 1),
            ("bw_out_allowance_exceeded", 1),
            ("pps_allowance_exceeded", 1),
            ("conntrack_allowance_exceeded", 1),
            ("linklocal_allowance_exceeded", 1),
            ("conntrack_allowance_available", 136_812),
        ];
        bench.poll(&first);
        // More queues, and they stand in front.
        let mut second = vec![("queue_0_tx_cnt", 9), ("queue_1_tx_cnt", 9)];
        second.extend(first[1..6].iter().zip(10..).map(|((name, _), value)| (*name, value)));
        second.push(("conntrack_allowance_available", 99));
        bench.poll(&second);
        let expected = DeviceAllowances {
            device: "ens5".to_owned(),
            exceeded: vec![
                ("bw_in", 9),
                ("bw_out", 10),
                ("conntrack", 12),
                ("linklocal", 13),
                ("pps", 11),
            ],
            conntrack_available: Some(99),
        };
        assert_eq!(bench.allowances.devices().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn a_driver_without_counters_says_so_once_and_is_left_alone() {
        let mut bench = Bench::new();
        let none = [("peer_ifindex", 7)];
        let event = bench.poll(&none).unwrap();
        assert_eq!(event.word(), "no_allowance_counters");
        assert!(
            event.to_string().starts_with("the driver ena of ens5 has no"),
            "{event}"
        );
        for _ in 0..240 {
            assert_eq!(bench.poll(&none), None);
        }
        assert_eq!(bench.reads, 3, "asked every ten minutes, over twenty");
        assert_eq!(bench.allowances.devices().count(), 0);
        // The driver was replaced.
        for value in 0..=120 {
            bench.poll(&linklocal(value));
        }
        assert!(bench.exceeded("linklocal") > Some(0));
    }

    #[test]
    fn a_driver_is_never_asked_twice_in_a_second() {
        let mut bench = Bench::new();
        bench.poll(&linklocal(1));
        let early = bench.now + PAUSE - Duration::from_nanos(1);
        let asked = |_: &str| panic!("asked too early");
        assert_eq!(bench.allowances.poll("ens5", early, None, asked).unwrap(), None);
    }

    #[test]
    fn an_error_is_told_once_and_keeps_the_last_values() {
        let mut bench = Bench::new();
        bench.poll(&linklocal(1));
        bench.poll(&linklocal(4));
        assert_eq!(bench.fail().unwrap_err().to_string(), "admin queue is stuck");
        assert_eq!(bench.fail().unwrap(), None);
        assert_eq!(bench.exceeded("linklocal"), Some(3));
        // What was dropped meanwhile is told a minute after the last time, with the time it took, and with what the
        // guard saw in all of it.
        assert_eq!(bench.poll(&linklocal(8)), None);
        bench.now += PAUSE_TOLD;
        let text = reason(bench.poll(&linklocal(10)));
        assert!(text.contains("dropped 6 packets") && text.contains("in 80 s"), "{text}");
        assert!(text.contains("120/s at most (25/s on average)"), "{text}");
        assert!(bench.fail().is_err(), "told again after it had worked");
    }

    #[test]
    fn the_sentence_says_whose_packets_they_were() {
        let at = |peak_per_second, limit_per_second| {
            Some(LinkLocal {
                packets: 4_000,
                peak_per_second,
                limit_per_second,
            })
        };
        for (seen, expected) in [
            (
                at(1_400, 900),
                "up to 1400/s through although the limit is 900/s: in observe mode",
            ),
            (
                at(1_400, 5_000),
                "up to 1400/s through (800/s on average), and its limit is 5000/s: lower",
            ),
            (
                at(905, 900),
                "up to 905/s through (800/s on average), and its limit is 900/s: lower the limit",
            ),
            (at(810, 900), "lower the limit"),
            (
                at(809, 900),
                "the guard saw only 809/s at most (800/s on average) of the 1024/s",
            ),
            (at(0, 5_000), "check that vpc is the VPC's primary CIDR"),
            (None, "no budget watches them: add one with preset = \"aws-link-local\""),
        ] {
            let mut bench = Bench::new();
            bench.poll_beside(None, &linklocal(1));
            let text = reason(bench.poll_beside(seen, &linklocal(8)));
            let start = "AWS dropped 7 packets from ens5 to its link-local services (DNS, IMDS, NTP) in 5 s; ";
            assert!(text.starts_with(start) && text.contains(expected), "{seen:?}: {text}");
        }
    }
}
