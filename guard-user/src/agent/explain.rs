//! What the guard thinks of a key, and why.

use std::net::SocketAddr;

use guard_common::{
    judge::{Evidence, Insight, Phase, Rules},
    policy::Mode,
    time::{Ticks, ms_of_ticks},
};

use super::{Agent, monotonic_ns};
use crate::{
    config::{Budget, Config, Zone, mode_word},
    control::{
        api::{Explanation, SCHEMA, Scores, StateView},
        ask::{Answer, Refusal},
    },
    name::{self, Name},
    question::Question,
    snapshot::{Allowed, Standing},
    view::LoopRow,
};

/// What is known of a key.
struct Known<'a> {
    question: &'a Question,
    mode: Mode,
    insight: Option<Insight>,
    breaker: Option<LoopRow>,
    allowed: Option<&'a Allowed>,
    standing: Option<&'a Standing>,
    config: &'a Config,
}

impl Agent {
    /// What is thought of a key.
    pub(super) fn explain(&self, question: &Question) -> Answer<Explanation> {
        let failed = |error: String| Refusal::Failed(error);
        let key = question.key(&self.kernel.secret().map_err(|error| failed(error.to_string()))?);
        let state = self.kernel.state(key).map_err(|error| failed(error.to_string()))?;
        let now_ns = monotonic_ns().map_err(|error| failed(error.to_string()))?;
        let config = self.host.config();
        let compiled = self
            .host
            .compile(&self.kernel)
            .map_err(|error| failed(format!("{error:#}")))?;
        let rules: Rules = compiled.policy.rules;
        let snapshot = self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let shown_key = format!("{:016x}", key.0);
        let (shown_name, shown_type) = (question.name(), name::qtype(question.qtype()));
        let standing = snapshot.top.keys.iter();
        let known = Known {
            question,
            mode: config.mode,
            insight: state.map(|state| state.insight(Ticks::from_ns(now_ns), &rules)),
            breaker: snapshot.loop_rows().find(|row| row.key == shown_key),
            allowed: snapshot.allowed.iter().find(|allowed| allowed.key == key.0),
            standing: standing
                .into_iter()
                .find(|found| found.name == shown_name && found.qtype == shown_type),
            config,
        };
        let mut explanation = known.explain();
        explanation.key = shown_key;
        Ok(explanation)
    }
}

impl Known<'_> {
    fn explain(self) -> Explanation {
        let verdict = self.verdict();
        Explanation {
            schema: SCHEMA,
            name: self.question.name(),
            qtype: name::qtype(self.question.qtype()).into_owned(),
            key: String::new(),
            mode: mode_word(self.mode).to_owned(),
            verdict: verdict.to_owned(),
            summary: self.summary(verdict),
            state: self.insight.as_ref().map(state_view),
            reasons: self.reasons(),
            budgets: self.budgets(),
            remedies: self.remedies(),
            breaker: self.breaker,
        }
    }

    /// What becomes of the next query.
    fn verdict(&self) -> &'static str {
        let only_watched = self.mode == Mode::Observe || self.allowed.is_some();
        match self.insight.map(|insight| insight.phase) {
            Some(Phase::Open) if only_watched => "would_hold",
            Some(Phase::Open) => "held",
            Some(Phase::Test) => "test",
            Some(Phase::Closed | Phase::Suspect) | None => "pass",
        }
    }

    fn summary(&self, verdict: &str) -> String {
        let question = self.question;
        let left = self.insight.map_or(0, |insight| ms_of_ticks(insight.left_ticks));
        let left = format!("{}.{} s", left / 1_000, left % 1_000 / 100);
        match verdict {
            "held" => format!("queries for {question} are held for {left} more, because they go round"),
            "would_hold" => format!("queries for {question} go round; they pass, because they are only watched"),
            "test" => {
                format!("the hold of {question} is over: one query is let through to see whether it still goes round")
            }
            _ => format!("queries for {question} pass"),
        }
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.mode == Mode::Observe {
            reasons.push("the mode is observe: no packet is touched".to_owned());
        }
        if let Some(allowed) = self.allowed {
            let by = if allowed.by_hand {
                "by hand"
            } else {
                "by the configuration"
            };
            reasons.push(format!("it is allowed {by}: it is only watched, whatever the mode"));
        }
        if let Some(breaker) = &self.breaker {
            let server = |server: &SocketAddr| match breaker.pods.get(&server.ip()) {
                Some(pod) => format!("{server} (pod {pod})"),
                None => server.to_string(),
            };
            let servers: Vec<_> = breaker.servers.iter().map(server).collect();
            let among = if servers.is_empty() {
                String::new()
            } else {
                format!(", among {}", servers.join(", "))
            };
            reasons.push(format!(
                "its breaker opened {}.{} s ago on {}: {} by {}{among}; {} queries held since",
                breaker.age_ms / 1_000,
                breaker.age_ms % 1_000 / 100,
                breaker.device,
                breaker.proof,
                breaker.evidence,
                breaker.held,
            ));
        }
        match &self.insight {
            None => reasons.push(
                "the kernel remembers nothing of it: it was not asked for, or not lately, or was released".to_owned(),
            ),
            Some(insight) => reasons.extend(weigh(insight)),
        }
        if let Some(standing) = self.standing {
            reasons.push(format!(
                "it is asked for {:.1} times a second, {:.1} % of all queries",
                standing.per_second,
                standing.share * 100.0
            ));
        }
        reasons
    }

    /// The budgets that its queries are charged to, for all that is known: not by whom, and not where to.
    fn charged(&self) -> impl Iterator<Item = &Budget> {
        let (name, qtype) = (Name::read(self.question.wire()), self.question.qtype());
        self.config.budgets.iter().filter(move |budget| {
            let filter = &budget.filter;
            let is_in = |zones: &[Zone]| {
                name.as_ref()
                    .is_some_and(|name| zones.iter().any(|zone| zone.holds(name)))
            };
            (filter.types.is_empty() || filter.types.contains(&qtype))
                && (filter.zones.is_empty() || is_in(&filter.zones))
        })
    }

    /// The same in sentences, and the link-local budget.
    fn budgets(&self) -> Vec<String> {
        let link_local = self.config.link_local.iter().map(ToString::to_string);
        self.charged().map(ToString::to_string).chain(link_local).collect()
    }

    fn remedies(&self) -> Vec<String> {
        let question = self.question;
        let (name, qtype) = (question.name(), name::qtype(question.qtype()));
        let mut remedies = Vec::new();
        if matches!(self.verdict(), "held" | "would_hold" | "test") {
            remedies.push(format!(
                "mend the configuration that sends it round; dnsguard doctor names those it can read, and \
                 dnsguard probe --type {qtype} {name} shows the servers"
            ));
            remedies.push("an answer to the test query after the hold closes the breaker by itself".to_owned());
            remedies.push(format!(
                "dnsguard loops release {name} {qtype}  closes it now; it opens again if it still goes round"
            ));
        }
        if self.verdict() == "held" {
            remedies.push(format!(
                "dnsguard loops allow {name} {qtype}  lets it go on, and only watches it"
            ));
        }
        if let Some(allowed) = self.allowed.filter(|allowed| allowed.by_hand) {
            remedies.push(format!(
                "dnsguard loops disallow {name} {qtype}  ends what {} is allowed",
                allowed.question
            ));
        }
        if let Some(budget) = self.charged().next() {
            let key = format!("budget.\"{}\".limit", budget.name);
            remedies.push(format!(
                "dnsguard policy set '{key}' N  changes what that budget has room for"
            ));
        }
        remedies
    }
}

/// What the judge has seen, in sentences.
fn weigh(insight: &Insight) -> Vec<String> {
    let mut sentences = Vec::new();
    let idle = ms_of_ticks(insight.idle_ticks);
    sentences.push(format!(
        "it was last seen {}.{} s ago",
        idle / 1_000,
        idle % 1_000 / 100
    ));
    if insight.hops == 0 {
        sentences.push("no query of it waits for an answer".to_owned());
    } else {
        sentences.push(format!(
            "{} hops wait for an answer, {} of them went to a server that already had the question",
            insight.hops, insight.recirculated
        ));
    }
    let [pace, echo, ladder] = insight.scores;
    if pace != 0 || echo != 0 || ladder != 0 {
        sentences.push(format!(
            "what speaks for a loop: pace {pace}, identity and direction {echo}, ladder {ladder}; {} of one is a trip",
            Insight::TRIP
        ));
    }
    if insight.phase == Phase::Suspect {
        sentences.push(format!(
            "one of its queries is marked; {} bits of proof have come back so far",
            insight.bits
        ));
    }
    if matches!(insight.phase, Phase::Open | Phase::Test) && insight.evidence != Evidence::None {
        let doubled = insight.level;
        let since = match doubled {
            0 => "no test has failed since".to_owned(),
            1 => "one test has failed since, which doubled the hold".to_owned(),
            _ => format!("{doubled} tests have failed since, each of which doubled the hold"),
        };
        sentences.push(format!("it tripped by {}; {since}", insight.evidence.word()));
    }
    if insight.unmarkable {
        sentences.push("its name has too few letters for a mark: it is told by its looks alone".to_owned());
    }
    if insight.spelled_at_random {
        sentences.push("somebody on its way spells names at random: a proof takes more bits".to_owned());
    }
    sentences
}

fn state_view(insight: &Insight) -> StateView {
    let [pace, echo, ladder] = insight.scores;
    StateView {
        phase: insight.phase.word().to_owned(),
        hops: insight.hops,
        recirculated: insight.recirculated,
        evidence: insight.evidence.word().to_owned(),
        scores: Scores {
            pace,
            echo,
            ladder,
            trip: Insight::TRIP,
        },
        bits: insight.bits,
        level: insight.level,
        held: insight.held,
        idle_ms: ms_of_ticks(insight.idle_ticks),
        hold_left_ms: ms_of_ticks(insight.left_ticks),
        server_ports: insight.ports.iter().copied().filter(|port| *port != 0).collect(),
    }
}
