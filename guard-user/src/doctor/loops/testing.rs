//! Configurations as trees of files, and readings as lines, for the tests of every reader.

use std::fs;

use tempfile::TempDir;

use super::node::{Action, Reading};
use crate::doctor::roots::Roots;

/// Files below a directory that goes with it.
#[derive(Debug)]
pub(super) struct Tree(TempDir);

impl Tree {
    /// Paths from the root on, each with its text.
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    pub(super) fn roots(&self) -> Roots {
        Roots::below(self.0.path())
    }
}

/// Every rule in a line.
pub(super) fn told(reading: &Reading) -> Vec<String> {
    let lines = reading.rules.iter().map(|rule| {
        let action = match &rule.action {
            Action::Answer if rule.except_ds => "answered but for DS".to_owned(),
            Action::Answer => "answered".to_owned(),
            Action::Forward(targets) => format!("-> {}", targets[0]),
        };
        format!("{} {action} ({})", rule.zone, rule.place)
    });
    lines.collect()
}
