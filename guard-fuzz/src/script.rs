//! Frames one after the other before one guard: a loop, a crowd, responses, and whatever else comes meanwhile.
//!
//! ```text
//! plan, secret (8), then for each step: how, length (2), frame
//! ```

use guard_common::{
    address::Prefix,
    budget::{Filters, Rate, Row, Scope},
    judge::Rules,
    key::Secret,
    policy::{Action, Mode, Policy},
    time::ticks_of_ms,
};
use guard_sim::random::Random;
use guard_tests::bench::{Gate, IFINDEX, WIRE};

use crate::draw::{self, Asked, Chance as _, Ends};

/// Bytes in front of the steps.
const HEAD: usize = 9;
/// Bytes in front of a frame.
const STEP_HEAD: usize = 3;
/// The longest frame: what Ethernet carries.
const MAX_FRAME: usize = 1_514;

/// The bits of a step's first byte.
const GATE: u8 = 3;
const ON_WIRE: u8 = 4;
const SPELLED: u8 = 8;

/// A frame that comes to a gate.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) gate: Gate,
    /// The interface: `lo` or a wire.
    pub(crate) device: u32,
    /// Whether its name is spelled as the last one that got a mark, if it is the same name.
    pub(crate) spelled: bool,
    pub(crate) frame: Vec<u8>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Which policy is in force.
    pub(crate) plan: u8,
    pub(crate) secret: Secret,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// Reads as many steps as there are.
    pub(crate) fn read(case: &[u8]) -> Option<Self> {
        let (plan, rest) = case.split_first()?;
        let (seed, mut rest) = rest.split_first_chunk()?;
        let mut random = Random(u64::from_be_bytes(*seed));
        let secret = Secret([random.next(), random.next(), random.next(), random.next()]);
        let mut steps = Vec::new();
        while let Some(([how, high, low], after)) = rest.split_first_chunk::<STEP_HEAD>() {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (frame, after) = after.split_at(length.min(after.len()));
            steps.push(Step {
                gate: Gate::ALL[usize::from(how & GATE) % Gate::ALL.len()],
                device: if how & ON_WIRE == 0 { IFINDEX } else { WIRE },
                spelled: how & SPELLED != 0,
                frame: frame[..frame.len().min(MAX_FRAME)].to_vec(),
            });
            rest = after;
        }
        Some(Self {
            plan: *plan,
            secret,
            steps,
        })
    }

    /// What is left of a case without some of its steps, the largest pieces first, and with a frame cut.
    pub(crate) fn smaller(case: &[u8]) -> Vec<Vec<u8>> {
        let Some((head, mut rest)) = case.split_at_checked(HEAD) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        while rest.len() >= STEP_HEAD {
            let length = usize::from(u16::from_be_bytes([rest[1], rest[2]]));
            let (step, after) = rest.split_at((STEP_HEAD + length).min(rest.len()));
            steps.push(step);
            rest = after;
        }
        let mut smaller = Vec::new();
        let mut piece = steps.len();
        while piece > 0 {
            for at in (0..steps.len()).step_by(piece) {
                let kept = steps[..at].iter().chain(&steps[(at + piece).min(steps.len())..]);
                smaller.push([head.to_vec(), kept.copied().flatten().copied().collect()].concat());
            }
            piece /= 2;
        }
        smaller
    }

    /// Makes one up.
    pub(crate) fn draw(random: &mut Random) -> Vec<u8> {
        let mut case = vec![random.next() as u8];
        case.extend_from_slice(&random.next().to_be_bytes());
        let asked = Asked {
            flags: 0x0100,
            ..Asked::draw(random)
        };
        let how = Self::how(random);
        let v6 = random.once_in(2);
        let rounds = random.below(40) as u16;
        let is_crowd = random.once_in(2);
        for round in 0..rounds {
            let (mut asked, ends) = turn(&asked, round, v6, is_crowd);
            asked.id ^= random.pick(&[0, 0, 0, 1]);
            let spelled = if is_crowd && random.once_in(2) { SPELLED } else { 0 };
            push(
                &mut case,
                how | spelled,
                &draw::frame_between(ends, &draw::message_of(&asked)),
            );
        }
        for _ in 0..random.between(4, 40) {
            let how = if random.once_in(3) { Self::how(random) } else { how };
            let (how, frame) = Self::frame(random, &asked, how, v6);
            push(&mut case, how, &frame);
        }
        case
    }

    fn how(random: &mut Random) -> u8 {
        random.below(3) as u8 | random.pick(&[0, ON_WIRE])
    }

    /// Another frame about the same question, or about something else.
    fn frame(random: &mut Random, asked: &Asked, how: u8, v6: bool) -> (u8, Vec<u8>) {
        let number = random.below(12) as u16;
        match random.below(8) {
            0 => (how, draw::any_frame(random)),
            1 | 2 => {
                // A response to one of those who asked, with the spelling that it got.
                let (asked, ends) = turn(asked, number, v6, true);
                let response = draw::response_to(&asked, random.pick(&[0, 2, 3, 5]));
                (how | SPELLED, draw::frame_between(ends.back(), &response))
            }
            3 => {
                let (asked, ends) = turn(asked, number, v6, random.once_in(2));
                (how, draw::frame_between(ends, &draw::message_of(&asked)))
            }
            4 => {
                let mut frame = draw::frame_between(turn(asked, number, v6, true).1, &draw::message_of(asked));
                draw::spoil(random, &mut frame);
                (how, frame)
            }
            _ => {
                let mut asked = asked.clone();
                asked.id = random.next() as u16;
                asked.edns = random.pick(&[None, Some(false), Some(true)]);
                if random.once_in(4) {
                    asked.name.make_ascii_uppercase();
                }
                (how, draw::frame(random, &draw::message_of(&asked)))
            }
        }
    }
}

fn push(case: &mut Vec<u8>, how: u8, frame: &[u8]) {
    let frame = &frame[..frame.len().min(MAX_FRAME)];
    case.push(how);
    case.extend_from_slice(&(frame.len() as u16).to_be_bytes());
    case.extend_from_slice(frame);
}

/// What two servers that ask each other send in turns: over two fixed sockets, or each time from a new one.
fn turn(asked: &Asked, round: u16, v6: bool, is_crowd: bool) -> (Asked, Ends) {
    let mut asked = asked.clone();
    let goes_back = round % 2 == 1;
    let port = if is_crowd {
        20_000 + round
    } else {
        40_000 + u16::from(goes_back)
    };
    asked.id = if is_crowd {
        asked.id.wrapping_add(round)
    } else {
        asked.id ^ u16::from(goes_back)
    };
    let (from, to) = if goes_back { (2, 1) } else { (1, 2) };
    let ends = Ends {
        v6,
        from: (from, port),
        to: (to, 53),
    };
    (asked, ends)
}

/// The bit of a plan under which hardly a query is shown to the agent: what is shown takes the long way through the kernel.
const HIDES: u8 = 0x80;
/// The bits of a plan with budgets: without zones, and only the one for each question.
const NO_ZONES: u8 = 0x40;
const ONE_ROW: u8 = 0x20;

/// Whether every query is shown.
pub(crate) const fn shows_all(plan: u8) -> bool {
    plan & HIDES == 0
}

/// The policy of a plan: what is done, whether queries are marked, and what limits there are.
pub(crate) fn policy(plan: u8) -> Policy {
    let hold_ticks = ticks_of_ms(60_000);
    let (mode, action) = match plan % 8 {
        0 => (Mode::Observe, Action::Answer),
        1 | 2 => (Mode::Enforce, Action::Drop),
        _ => (Mode::Enforce, Action::Answer),
    };
    let rules = Rules {
        hold_ticks,
        hold_max_ticks: 4 * hold_ticks,
        test_ticks: hold_ticks,
        // What is shed may be marked and never goes out: then nobody sees which number the mark was drawn with.
        marks: u32::from(matches!(plan % 8, 0 | 2 | 4)),
    };
    let mut policy = Policy::new(mode, action, rules);
    policy.rapid_ticks = ticks_of_ms(10_000);
    policy.rcode = [2, 3, 5][usize::from(plan / 8) % 3];
    policy.add_port(53);
    policy.add_port(8_600);
    let v4 = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, last];
    let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    policy.trust(Prefix::new(v4(0), 96 + 24));
    policy.trust(Prefix::new(v6, 32));
    policy.limit_answers(1_000, 1_000);
    match plan % 8 {
        5 => policy.limit_answers(3, 6),
        6 => {
            // One of two clients may ask for recursion, and one of two servers may be asked.
            if let Some(some) = policy.add_ranges(&[Prefix::new(v4(0), 96 + 31), Prefix::new(v6, 126)]) {
                (policy.hygiene.recursion, policy.hygiene.resolvers) = (some, some);
            }
        }
        7 => {
            if plan & NO_ZONES == 0 {
                policy.zone_labels = [1, 2, 0, 0];
            }
            for (id, scope) in [(1, Scope::Client), (2, Scope::Key), (3, Scope::Zone), (4, Scope::All)] {
                if plan & ONE_ROW != 0 && scope != Scope::Key {
                    continue;
                }
                // Of three plans, one has rows that drop where it answers.
                let action = if (plan / 8).is_multiple_of(3) {
                    Action::Drop
                } else {
                    action
                };
                let Some(rate) = Rate::new(1, 3_600, 4 * id as u32) else {
                    continue;
                };
                let row = Row::new(id, scope, (true, true), rate, action, mode);
                policy.add_row(row.with(&Filters {
                    zone_index: u8::from(scope == Scope::Zone),
                    ..Filters::default()
                }));
            }
        }
        _ => {}
    }
    policy
}
