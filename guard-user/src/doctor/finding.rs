//! What a check found: one line that says it, why it matters, and what to do.

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing to mend.
    Info,
    /// Somebody should look at it.
    Warn,
    /// It stops dnsguard from working, or it can take DNS down.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Which check: its group, a dot, its name. Stable.
    pub(super) check: &'static str,
    /// How much it matters.
    pub(super) level: Level,
    /// What was found, in one line.
    pub(super) what: String,
    /// Why that matters, if it is not plain.
    pub(super) why: Option<String>,
    /// A command to paste, or a sentence.
    pub(super) remedy: Option<String>,
}

impl Level {
    /// Its word in tables and in JSON.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, what)
    }

    /// Worth knowing.
    pub(super) fn info(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Level::Info, what)
    }

    /// To be looked at.
    pub(super) fn warn(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Level::Warn, what)
    }

    /// Broken.
    pub(super) fn fail(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Level::Fail, what)
    }

    /// At a level that is worked out.
    pub(super) fn new(check: &'static str, level: Level, what: impl Into<String>) -> Self {
        Self {
            check,
            level,
            what: what.into(),
            why: None,
            remedy: None,
        }
    }

    /// With the reason.
    pub(super) fn why(self, why: impl Into<String>) -> Self {
        let why = Some(why.into());
        Self { why, ..self }
    }

    /// With what to do.
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { remedy, ..self }
    }

    /// The group of its check.
    pub(super) fn group(&self) -> &'static str {
        self.check.split('.').next().unwrap_or(self.check)
    }
}
