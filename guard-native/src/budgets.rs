//! Hygiene, budgets and the link-local budget on the tables: what `guard_ebpf::bench` does with a query that is not held.

use guard_common::{
    budget::{self, Service},
    case::Case,
    counter::link_index,
    flow::Place,
    remedy::{Reason, Shed},
    time::Ticks,
};

use crate::door::Door;

/// The place of what is pending, which is no packet's sighting.
const PENDING: Place = Place::from_number(0);

/// A link-local budget that a packet is charged to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) service: Service,
}

impl Link {
    /// The number that stands for it in a tag.
    const fn number(self) -> u32 {
        1 << 31 | self.index << 8 | self.service as u32
    }
}

impl Door {
    /// Asks the rules of hygiene, the budgets and the link-local budget, until one sheds the query.
    pub(crate) fn sheds(&mut self, case: &Case, link: Option<Link>, tests: bool) -> Shed {
        let mut shed = Shed::NOTHING;
        if !self.policy.hygiene.is_empty() && self.breaches(case, &mut shed) {
            return shed;
        }
        if !tests && self.exceeds_rows(case, &mut shed) {
            return shed;
        }
        if let Some(link) = link {
            self.exceeds_link(case, link, tests, &mut shed);
        }
        shed
    }

    /// What happens to a packet that is not shed, whatever it is.
    pub(crate) fn charge(&mut self, link: Option<Link>, ifindex: u32, packets: u32, now_ns: u64) {
        if let Some(link) = link {
            self.tables.link(link.index).charge(&self.policy.link, now_ns, packets);
            self.count_link(link, ifindex, packets);
        }
    }

    pub(crate) fn count_link(&mut self, link: Link, ifindex: u32, packets: u32) {
        self.tables.count_at(ifindex, link_index(link.service), packets.into());
    }

    fn breaches(&self, case: &Case, shed: &mut Shed) -> bool {
        let breach = self.policy.hygiene.breach(
            &case.subject,
            case.wants_recursion(),
            case.same_host,
            |ranges, address| self.policy.holds(ranges, address),
        );
        breach.is_some_and(|breach| shed.decide(breach))
    }

    fn exceeds_rows(&mut self, case: &Case, shed: &mut Shed) -> bool {
        for index in 0..self.policy.row_count() {
            let Some(row) = self.policy.row(index) else { break };
            let Some(tag) = row.tag(&case.subject, &self.secret) else {
                continue;
            };
            let destinations = row.destinations();
            if !destinations.is_empty() && !self.policy.holds(destinations, &case.subject.server) {
                continue;
            }
            let meters = self.tables.meters(tag);
            let is_empty = meters.is_known_empty(tag, &row.rate, case.now_ns, case.packets);
            if !is_empty && meters.charge(tag, &row.rate, case.now_ns, case.packets) {
                self.tables.row(index).within += 1;
                continue;
            }
            let by = Shed {
                row: index,
                reason: Reason::Budget,
                action: row.action(),
                observes: row.observes(),
            };
            self.tables.row(index).over += 1;
            if shed.decide(by) {
                return true;
            }
        }
        false
    }

    /// What the link-local budget does with a query, or with a packet that opens a connection; what is `exempt` is charged
    /// and passes.
    pub(crate) fn exceeds_link(&mut self, case: &Case, link: Link, exempt: bool, shed: &mut Shed) {
        let rules = &self.policy.link;
        if exempt {
            self.tables.link(link.index).charge(rules, case.now_ns, case.packets);
            return;
        }
        let now = Ticks::from_ns(case.now_ns);
        let level = self.tables.link(link.index).level(rules, case.now_ns);
        let is_query = case.name_len != 0;
        let pending = case.pending(&self.secret);
        let repeats = is_query && self.tables.flow(pending).is_pending(pending as u32, now);
        let (source, zone) = budget::share_tags(&case.subject, link.number(), &self.secret);
        let tables = std::cell::RefCell::new(&mut self.tables);
        let share = |tag, limit| tables.borrow_mut().meters(tag).share(tag, limit, now, case.packets);
        let why = budget::sheds(rules, level, repeats, |limit| {
            budget::exceeds_share(limit, |limit| share(source, limit), |limit| share(zone, limit))
        });
        let reason = match why {
            Some(reason) => reason,
            None if self.tables.link(link.index).take(rules, case.now_ns, case.packets) => {
                if is_query {
                    let flow = self.tables.flow(pending);
                    flow.sight(pending as u32, PENDING, false, now, 0);
                }
                return;
            }
            None => Reason::Exhausted,
        };
        shed.decide(Shed {
            row: Shed::NO_ROW,
            reason,
            action: rules.action(),
            observes: rules.observes(),
        });
    }
}
