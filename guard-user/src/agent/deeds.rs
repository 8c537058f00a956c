//! What commands have the agent do with breakers: release, allow, disallow.

use guard_common::{key::Key, policy::MAX_ALLOWED};
use tokio::sync::oneshot;

use super::{Agent, monotonic_ns, reload::Trigger};
use crate::{
    config::Config,
    control::{
        api::{Done, SCHEMA, Which},
        ask::{Answer, Ask, Deed, Refusal},
        socket::Peer,
    },
    datapath::Kernel,
    events::{Allowance, Event},
    name,
    question::Question,
    snapshot::Allowed,
};

/// The longest time for which something can be allowed by hand, in seconds: 30 days.
const MOST_SECONDS: u64 = 30 * 86_400;

/// What the operator has allowed by hand.
#[derive(Debug, Default)]
pub(super) struct Allowing(Vec<(Question, Option<u64>)>);

impl Allowing {
    /// All that is allowed, by the configuration and by hand; nothing twice.
    pub(super) fn questions(&self, config: &Config) -> Vec<Question> {
        let mut questions = config.allow.clone();
        for (question, _) in &self.0 {
            if !questions.contains(question) {
                questions.push(question.clone());
            }
        }
        questions
    }

    /// The same, for the snapshot.
    pub(super) fn shown(&self, config: &Config, kernel: &Kernel) -> Vec<Allowed> {
        let Ok(secret) = kernel.secret() else {
            return Vec::new();
        };
        let questions = self.questions(config).into_iter();
        let allowed = questions.map(|question| {
            let by_configuration = config.allow.contains(&question);
            let by_hand = self.0.iter().find(|(known, _)| *known == question);
            Allowed {
                key: question.key(&secret).0,
                by_hand: !by_configuration,
                until_ns: by_hand
                    .filter(|_| !by_configuration)
                    .and_then(|(_, until_ns)| *until_ns),
                question,
            }
        });
        allowed.collect()
    }
}

impl Agent {
    /// Does what a command asks for.
    pub(super) fn answer(&mut self, ask: Ask) {
        // Whoever asked may be gone.
        match ask {
            Ask::Explain(question, reply) => drop(reply.send(self.explain(&question))),
            Ask::Do(Deed::Release(which), peer, reply) => self.reply(reply, |agent| agent.release(&which, peer)),
            Ask::Do(Deed::Allow(which), peer, reply) => self.reply(reply, |agent| agent.allow(&which, peer)),
            Ask::Do(Deed::Disallow(which), peer, reply) => self.reply(reply, |agent| agent.disallow(&which, peer)),
            Ask::Do(Deed::Set(change), peer, reply) => self.change(&change, false, peer, reply),
            Ask::Do(Deed::Reset(change), peer, reply) => self.change(&change, true, peer, reply),
            Ask::Do(Deed::Reload, peer, reply) => self.reload(Trigger::Command(peer), Some(reply)),
        }
    }

    fn reply(
        &mut self,
        reply: oneshot::Sender<Answer<Done>>,
        deed: impl FnOnce(&mut Self) -> Result<Vec<String>, Refusal>,
    ) {
        let done = deed(self).map(|done| self.done(done));
        let _ = reply.send(done);
    }

    /// What a command has done, in sentences.
    pub(super) const fn done(&self, done: Vec<String>) -> Done {
        Done {
            schema: SCHEMA,
            done,
            policy_generation: self.generation,
        }
    }

    /// Closes breakers, and forgets what led to them.
    fn release(&mut self, which: &Which, peer: Peer) -> Result<Vec<String>, Refusal> {
        let keys = self.meant(which)?;
        let now_ns = monotonic_ns().map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut done = Vec::new();
        for (key, shown) in keys {
            let forgot = self.kernel.forget(key);
            let forgot = forgot.map_err(|error| Refusal::Failed(error.to_string()))?;
            match self.loops.forget(key, &peer.words(), now_ns) {
                Some(event) => {
                    self.teller.tell(&event);
                    done.push(format!(
                        "{shown} is released: its queries pass, and are weighed from the beginning"
                    ));
                }
                None if forgot => done.push(format!("{shown} was not held; what was remembered of it is forgotten")),
                None => {
                    return Err(Refusal::Missing(format!(
                        "{shown} is not held; dnsguard loops list shows what is"
                    )));
                }
            }
        }
        self.show_settings();
        Ok(done)
    }

    /// Only watches a key from now on.
    fn allow(&mut self, which: &Which, peer: Peer) -> Result<Vec<String>, Refusal> {
        if which
            .seconds
            .is_some_and(|seconds| !(1..=MOST_SECONDS).contains(&seconds))
        {
            return Err(Refusal::Bad(format!("a time is 1 to {MOST_SECONDS} s")));
        }
        let now_ns = monotonic_ns().map_err(|error| Refusal::Failed(error.to_string()))?;
        let until_ns = which.seconds.map(|seconds| now_ns + seconds * 1_000_000_000);
        let questions = self.questions(which)?;
        let mut all = self.allowing.questions(self.host.config());
        all.extend(
            questions
                .iter()
                .filter(|question| !all.contains(question))
                .cloned()
                .collect::<Vec<_>>(),
        );
        if all.len() > MAX_ALLOWED {
            return Err(Refusal::Failed(format!(
                "{MAX_ALLOWED} names and types can be allowed; disallow some first"
            )));
        }
        let mut done = Vec::new();
        for question in questions {
            let time = which.seconds.map_or_else(
                || "until the agent ends".to_owned(),
                |seconds| format!("for {seconds} s"),
            );
            done.push(format!(
                "{question} is allowed {time}: its loops are told, and no packet of it is touched"
            ));
            let reason = format!(
                "query {question} is allowed by {} {time}: it is only watched",
                peer.words()
            );
            self.teller.tell(&Event::Allow(allowance(&question, reason)));
            self.allowing.0.retain(|(known, _)| *known != question);
            self.allowing.0.push((question, until_ns));
        }
        self.follow_allowances()?;
        Ok(done)
    }

    /// Takes that back.
    fn disallow(&mut self, which: &Which, peer: Peer) -> Result<Vec<String>, Refusal> {
        let meant = |question: &Question| {
            which.all
                || which.name.as_deref().and_then(name::wire).as_deref() == Some(question.wire())
                    && which
                        .qtype
                        .as_deref()
                        .is_none_or(|qtype| name::qtype_number(qtype) == Some(question.qtype()))
        };
        let ended: Vec<_> = self
            .allowing
            .0
            .extract_if(.., |(question, _)| meant(question))
            .collect();
        if ended.is_empty() {
            let in_file = self.host.config().allow.iter().any(meant);
            let remedy = if in_file {
                "the configuration allows it: change allow there, or dnsguard policy set allow"
            } else {
                "nothing like that is allowed; dnsguard loops list shows what is"
            };
            return Err(Refusal::Missing(remedy.to_owned()));
        }
        let mut done = Vec::new();
        for (question, _) in ended {
            let reason = format!("query {question} is no longer allowed, by {}", peer.words());
            self.teller.tell(&Event::Disallow(allowance(&question, reason)));
            done.push(format!("{question} is no longer allowed: it is held like any other"));
        }
        self.follow_allowances()?;
        Ok(done)
    }

    /// Takes back what was allowed for a time that is over.
    pub(super) fn end_allowances(&mut self, now_ns: u64) {
        let is_over = |until_ns: &Option<u64>| until_ns.is_some_and(|until_ns| until_ns <= now_ns);
        let ended: Vec<_> = self
            .allowing
            .0
            .extract_if(.., |(_, until_ns)| is_over(until_ns))
            .collect();
        if ended.is_empty() {
            return;
        }
        for (question, _) in ended {
            let reason = format!("query {question} is no longer allowed: its time is over");
            self.teller.tell(&Event::Disallow(allowance(&question, reason)));
        }
        if let Err(error) = self.follow_allowances() {
            tracing::warn!("{error}");
        }
    }

    /// Puts the policy in force with what is allowed now.
    fn follow_allowances(&mut self) -> Result<(), Refusal> {
        self.host.allow(self.allowing.questions(self.host.config()));
        let compiled = self.host.compile(&self.kernel);
        let switched = compiled.and_then(|compiled| Ok(self.kernel.switch(&compiled.policy)?));
        self.generation = switched.map_err(|error| Refusal::Failed(format!("{error:#}")))?;
        self.note_allowed();
        self.show_settings();
        Ok(())
    }

    /// Has the sentences of loops know what is allowed.
    pub(super) fn note_allowed(&mut self) {
        if let Ok(secret) = self.kernel.secret() {
            let questions = self.allowing.questions(self.host.config());
            self.loops
                .allow(questions.iter().map(|question| question.key(&secret)).collect());
        }
    }

    /// The keys that are meant, and how to show them.
    fn meant(&self, which: &Which) -> Result<Vec<(Key, String)>, Refusal> {
        if let (Some(name), Some(qtype)) = (&which.name, &which.qtype) {
            let question = Question::new(name, qtype).map_err(Refusal::Bad)?;
            let secret = self.kernel.secret();
            let secret = secret.map_err(|error| Refusal::Failed(error.to_string()))?;
            return Ok(vec![(question.key(&secret), question.to_string())]);
        }
        let rows = self.open_rows(which)?;
        let shown = |name: &str, qtype: &str| format!("{name} {qtype}");
        Ok(rows
            .into_iter()
            .map(|(key, name, qtype)| (Key(key), shown(&name, &qtype)))
            .collect())
    }

    /// The questions that are meant.
    fn questions(&self, which: &Which) -> Result<Vec<Question>, Refusal> {
        if let (Some(name), Some(qtype)) = (&which.name, &which.qtype) {
            return Ok(vec![Question::new(name, qtype).map_err(Refusal::Bad)?]);
        }
        let rows = self.open_rows(which)?;
        let questions = rows.iter().map(|(_, name, qtype)| Question::new(name, qtype));
        questions.collect::<Result<_, _>>().map_err(Refusal::Bad)
    }

    /// Key, name and type of the open breakers that are meant by a name or by `all`.
    fn open_rows(&self, which: &Which) -> Result<Vec<(u64, String, String)>, Refusal> {
        let wanted = match (&which.name, which.all) {
            (Some(name), false) => {
                let wire = name::wire(name).ok_or_else(|| Refusal::Bad(format!("'{name}' is no name")))?;
                Some(name::text(&wire))
            }
            (None, true) => None,
            _ => return Err(Refusal::Bad("either a name, or all".to_owned())),
        };
        let rows = self.loops.rows().into_iter();
        let rows = rows.filter(|row| wanted.as_ref().is_none_or(|wanted| *wanted == row.name));
        let rows: Vec<_> = rows.map(|row| (row.key, row.name, row.qtype)).collect();
        if rows.is_empty() {
            return Err(Refusal::Missing(match wanted {
                Some(name) => format!("no breaker of {name} is open; give a type as well, or see dnsguard loops list"),
                None => "no breaker is open".to_owned(),
            }));
        }
        Ok(rows)
    }
}

fn allowance(question: &Question, reason: String) -> Allowance {
    Allowance {
        name: question.name(),
        qtype: name::qtype(question.qtype()).into_owned(),
        reason,
    }
}
