//! What the operator wants, from all that he says it by: the file, the flags of the command line over it, and what was set
//! by hand over both.

use std::{fs, path::PathBuf};

use guard_common::policy::Mode;
use toml_edit::DocumentMut;

use crate::{
    config::{AtStop, Config, ConfigError, EditError, Edits, has_key, mode_word},
    selection::{Pattern, Preset},
};

/// The flags of `dnsguard run` that are keys of the file as well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// `--mode`
    pub(crate) mode: Option<Mode>,
    /// `--interface`; one named twice counts once.
    pub(crate) interfaces: Vec<Pattern>,
    /// `--exclude`
    pub(crate) exclude: Vec<Pattern>,
    /// `--preset`
    pub(crate) preset: Option<Preset>,
    /// `--pin-dir`
    pub(crate) pin_dir: Option<PathBuf>,
    /// `--socket`
    pub(crate) socket: Option<PathBuf>,
    /// `--at-stop`
    pub(crate) at_stop: Option<AtStop>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    file: Option<PathBuf>,
    flags: Edits,
    by_hand: Edits,
}

/// A configuration, and the text of the file that it came from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// What is to be in force.
    pub(crate) config: Config,
    /// The file as it was read.
    file: DocumentMut,
}

/// Where the value of a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// The file.
    File,
    /// A flag of the command line.
    Flag,
    /// A command.
    Hand,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Edit(#[from] EditError),
    /// The file is right, and with what was laid over it it is not.
    #[error("{0}")]
    Together(String),
}

impl Origin {
    /// Its word in messages.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Flag => "flag",
            Self::Hand => "by hand",
        }
    }
}

impl Settings {
    /// A file, if there is one, and flags.
    pub(crate) fn new(file: Option<PathBuf>, flags: &Flags) -> Result<Self, SettingsError> {
        let mut edits = Edits::default();
        if let Some(mode) = flags.mode {
            edits.set("mode", mode_word(mode))?;
        }
        for (key, patterns) in [
            ("attach.interfaces", &flags.interfaces),
            ("attach.exclude", &flags.exclude),
        ] {
            let mut different: Vec<String> = Vec::new();
            for text in patterns.iter().map(ToString::to_string) {
                if !different.contains(&text) {
                    different.push(text);
                }
            }
            if !different.is_empty() {
                let list: toml_edit::Array = different.into_iter().collect();
                edits.set(key, &list.to_string())?;
            }
        }
        if let Some(preset) = flags.preset {
            edits.set_text("attach.preset", preset.word())?;
        }
        if let Some(at_stop) = flags.at_stop {
            edits.set("attach.at_stop", at_stop.word())?;
        }
        for (key, path) in [("attach.pin_dir", &flags.pin_dir), ("control.socket", &flags.socket)] {
            if let Some(path) = path {
                edits.set_text(key, &path.display().to_string())?;
            }
        }
        Ok(Self {
            file,
            flags: edits,
            by_hand: Edits::default(),
        })
    }

    /// The file.
    pub(crate) const fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }

    /// What was set by hand.
    pub(crate) const fn by_hand(&self) -> &Edits {
        &self.by_hand
    }

    /// To be changed by hand.
    pub(crate) const fn by_hand_mut(&mut self) -> &mut Edits {
        &mut self.by_hand
    }

    /// Reads the file, lays flags and what was set by hand over it, and checks it whole.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is wrong, or it is with what was laid over it.
    pub(crate) fn load(&self) -> Result<Loaded, SettingsError> {
        let (name, text) = match &self.file {
            Some(path) => {
                let name = path.display().to_string();
                let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
                    file: name.clone(),
                    source,
                })?;
                (name, text)
            }
            None => (String::new(), String::new()),
        };
        // What is wrong in the file has its place there.
        let config = Config::parse(&name, &text)?;
        let file: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| SettingsError::Together(error.message().to_owned()))?;
        if self.flags.is_empty() && self.by_hand.is_empty() {
            return Ok(Loaded { config, file });
        }
        let mut together = file.clone();
        self.flags.apply(&mut together)?;
        self.by_hand.apply(&mut together)?;
        let config = Config::parse("", &together.to_string()).map_err(|error| match error {
            ConfigError::Wrong(wrong) => {
                let messages: Vec<_> = wrong.iter().map(|wrong| wrong.message()).collect();
                SettingsError::Together(messages.join("; "))
            }
            unreadable @ ConfigError::Unreadable { .. } => unreadable.into(),
        })?;
        Ok(Loaded { config, file })
    }

    /// Where the value of a key comes from.
    pub(crate) fn origin(&self, loaded: &Loaded, key: &str) -> Origin {
        if self.by_hand.has(key) {
            Origin::Hand
        } else if self.flags.has(key) {
            Origin::Flag
        } else if has_key(&loaded.file, key) {
            Origin::File
        } else {
            Origin::Default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, flags: &Flags) -> (tempfile::NamedTempFile, Settings) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let settings = Settings::new(Some(file.path().to_owned()), flags).unwrap();
        (file, settings)
    }

    #[test]
    fn flags_win_over_the_file_and_the_hand_over_both() {
        let flags = Flags {
            mode: Some(Mode::Enforce),
            interfaces: ["eth0", "lo", "eth0"].map(Pattern::literal).to_vec(),
            exclude: vec![Pattern::literal("eth9")],
            preset: Some(Preset::Host),
            pin_dir: Some("/sys/fs/bpf/other".into()),
            socket: None,
            at_stop: Some(AtStop::Stay),
        };
        let (_file, mut settings) = settings("mode = \"observe\"\nports = [53, 8600]\n", &flags);
        let loaded = settings.load().unwrap();
        assert_eq!(loaded.config.mode, Mode::Enforce);
        assert_eq!(
            loaded.config.attach.selection.words(),
            "eth0, lo, preset host, but not eth9"
        );
        assert_eq!(loaded.config.attach.pin_dir, PathBuf::from("/sys/fs/bpf/other"));
        assert_eq!(loaded.config.attach.at_stop, AtStop::Stay);
        assert_eq!(settings.origin(&loaded, "mode"), Origin::Flag);
        settings.by_hand_mut().set("mode", "observe").unwrap();
        let loaded = settings.load().unwrap();
        assert_eq!(loaded.config.mode, Mode::Observe);
        let origins = ["mode", "attach.interfaces", "ports", "breaker.hold_ms"];
        let origins = origins.map(|key| settings.origin(&loaded, key));
        assert_eq!(origins, [Origin::Hand, Origin::Flag, Origin::File, Origin::Default]);
    }

    #[test]
    fn without_a_file_everything_has_its_default() {
        let settings = Settings::new(None, &Flags::default()).unwrap();
        assert_eq!(settings.load().unwrap().config, Config::default());
    }

    #[test]
    fn what_is_wrong_in_the_file_has_its_place_and_what_was_laid_over_it_has_none() {
        let (file, mut settings) = settings("ports = [0]\n", &Flags::default());
        let error = settings.load().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}:1:10: ports is 0", file.path().display())),
            "{error}"
        );
        fs::write(file.path(), "ports = [53]\n").unwrap();
        settings.by_hand_mut().set("breaker.hold_ms", "1").unwrap();
        let error = settings.load().unwrap_err().to_string();
        assert_eq!(error, "[breaker] hold_ms is 1; allowed: an integer, 100 to 300000");
    }
}
