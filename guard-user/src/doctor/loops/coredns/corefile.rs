//! The grammar of a Corefile: words in lines, lines in blocks, and what `import` brings in.

use std::{collections::BTreeMap, path::Path};

use super::super::node::{Place, Reading};
use crate::doctor::roots::Roots;

/// Imports within imports end here.
const DEEPEST: usize = 8;

/// A line: its words, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    pub(super) place: Place,
}

/// A server block or a snippet.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    pub(super) keys: Vec<String>,
    pub(super) lines: Vec<Line>,
}

/// What is known while a Corefile is read.
pub(super) struct Corefile<'r> {
    pub(super) roots: &'r Roots,
    snippets: BTreeMap<String, Vec<Line>>,
    /// What could not be read.
    pub(super) gaps: Reading,
}

impl<'r> Corefile<'r> {
    /// Reads files from here.
    pub(super) fn new(roots: &'r Roots) -> Self {
        Self {
            roots,
            snippets: BTreeMap::new(),
            gaps: Reading::default(),
        }
    }

    /// The lines of a file that have words.
    pub(super) fn lines(&mut self, path: &Path) -> Vec<Line> {
        let text = match self.roots.read(path) {
            Ok(text) => text,
            Err(error) => {
                self.gaps.gap(Place::whole(path), error.to_string());
                return Vec::new();
            }
        };
        let lines = text.lines().enumerate().map(|(index, line)| Line {
            words: words(line),
            place: Place::line(path, index + 1),
        });
        lines.filter(|line| !line.words.is_empty()).collect()
    }

    /// Takes server blocks apart; snippets, `(name) { ... }`, are kept for `import`.
    pub(super) fn blocks(&mut self, lines: &[Line], depth_of_imports: usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        let mut keys = Vec::new();
        let mut depth = 0_usize;
        for line in lines {
            let opens = line.words.last().is_some_and(|word| word == "{");
            let closes = line.words.first().is_some_and(|word| word == "}");
            if depth == 0 {
                if line.words[0] == "import" {
                    let inner = self.import(line);
                    if depth_of_imports < DEEPEST {
                        blocks.extend(self.blocks(&inner, depth_of_imports + 1));
                    }
                    continue;
                }
                // Keys may go on over several lines, each ending in a comma.
                let names = line.words.iter().filter(|word| *word != "{" && *word != "}");
                keys.extend(names.map(|word| word.trim_end_matches(',').to_owned()));
                if opens {
                    let keys = std::mem::take(&mut keys);
                    open = Some(Block {
                        keys,
                        lines: Vec::new(),
                    });
                    depth = 1;
                }
                continue;
            }
            if closes {
                depth -= 1;
            }
            if depth == 0 {
                if let Some(block) = open.take() {
                    let snippet = block
                        .keys
                        .first()
                        .and_then(|key| key.strip_prefix('(')?.strip_suffix(')'));
                    match snippet {
                        Some(name) => drop(self.snippets.insert(name.to_owned(), block.lines)),
                        None => blocks.push(block),
                    }
                }
                continue;
            }
            if let Some(block) = &mut open {
                block.lines.push(line.clone());
            }
            if opens {
                depth += 1;
            }
        }
        if depth > 0 {
            let place = lines.last().map_or_else(|| Place::whole(""), |line| line.place.clone());
            self.gaps.gap(place, "a block is not closed");
        }
        blocks
    }

    /// The lines that an `import` stands for.
    fn import(&mut self, line: &Line) -> Vec<Line> {
        let name = line.words.get(1).cloned().unwrap_or_default();
        if let Some(lines) = self.snippets.get(&name) {
            return lines.clone();
        }
        let pattern = line.place.folder().join(&name);
        match self.roots.glob(&pattern) {
            Ok(files) => files.iter().flat_map(|file| self.lines(file)).collect(),
            Err(error) => {
                self.gaps
                    .gap(line.place.clone(), format!("{}: {error}", pattern.display()));
                Vec::new()
            }
        }
    }

    /// The lines of a block with all that they import.
    pub(super) fn imported(&mut self, lines: &[Line], depth: usize) -> Vec<Line> {
        let mut all = Vec::new();
        for line in lines {
            if line.words[0] == "import" && depth < DEEPEST {
                let inner = self.import(line);
                all.extend(self.imported(&inner, depth + 1));
            } else {
                all.push(line.clone());
            }
        }
        all
    }
}

/// The words of a line, without its comment; quotes hold blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            '#' if !quoted && word.is_empty() => break,
            letter if letter.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            letter => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
