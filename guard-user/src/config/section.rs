//! Reading a table of the file key by key, and noting what is wrong with it, where, and what would be right.
//!
//! Every key is named in one place, where it is read: what is left over in the table at the end is unknown, and what
//! was read is what is allowed. A fault does not end the reading, so that one look shows all of them.

use std::{cell::RefCell, ops::RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something wrong, at a byte of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The first byte it is about.
    pub(super) at: usize,
    /// What is wrong, and what is allowed.
    pub(super) message: String,
}

/// One table of the file.
pub(super) struct Section<'f> {
    /// How its name is written: `[attach]`, `[[budget]]`; empty for the top level.
    title: String,
    /// Where it begins.
    at: usize,
    /// Its entries; `None` where the file does not have it.
    table: Option<&'f DeTable<'f>>,
    /// The keys that were read.
    known: Vec<&'static str>,
    /// Keys that are not worth a word: they have had theirs, or whatever could be said depends on another fault.
    settled: Vec<&'f str>,
    faults: &'f RefCell<Vec<Fault>>,
}

impl<'f> Section<'f> {
    /// The top level of a file.
    pub(super) const fn top(table: &'f DeTable<'f>, faults: &'f RefCell<Vec<Fault>>) -> Self {
        Self {
            title: String::new(),
            at: 0,
            table: Some(table),
            known: Vec::new(),
            settled: Vec::new(),
            faults,
        }
    }

    /// A table of this one, read by `read`.
    pub(super) fn section<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = self.take(name);
        let table = value.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let message = format!("{name} is {}; allowed: a table, [{name}]", describe(other));
                self.refuse_at(value.span().start, message);
                None
            }
        });
        let at = value.map_or(0, |value| value.span().start);
        let mut section = self.inner(format!("[{name}]"), at, table);
        let read = read(&mut section);
        section.refuse_the_rest();
        read
    }

    /// The tables of an array, `[[name]]`, each read by `read`. Those that have a fault are left out.
    pub(super) fn sections<T>(&mut self, name: &'static str, mut read: impl FnMut(&mut Self) -> Option<T>) -> Vec<T> {
        let Some(value) = self.take(name) else {
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
            self.refuse_element(name, value);
            return Vec::new();
        };
        let mut list = Vec::new();
        for value in array.iter() {
            let DeValue::Table(table) = value.get_ref() else {
                self.refuse_element(name, value);
                continue;
            };
            let before = self.fault_count();
            let mut section = self.inner(format!("[[{name}]]"), value.span().start, Some(table));
            let read = read(&mut section);
            section.refuse_the_rest();
            list.extend(read.filter(|_| self.fault_count() == before));
        }
        list
    }

    fn inner(&self, title: String, at: usize, table: Option<&'f DeTable<'f>>) -> Self {
        Self {
            title,
            at,
            table,
            known: Vec::new(),
            settled: Vec::new(),
            faults: self.faults,
        }
    }

    fn refuse_element(&self, name: &str, value: &Spanned<DeValue<'_>>) {
        let found = describe(value.get_ref());
        self.refuse_at(
            value.span().start,
            format!("{name} is {found}; allowed: tables, each under its own [[{name}]]"),
        );
    }

    /// A whole number.
    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>, default: u32) -> u32 {
        self.take(key)
            .and_then(|value| self.checked(key, value, integer(value.get_ref(), &range)))
            .unwrap_or(default)
    }

    /// Yes or no.
    pub(super) fn truth(&mut self, key: &'static str, default: bool) -> bool {
        let value = self.take(key);
        let read = value.and_then(|value| {
            let truth = match value.get_ref() {
                DeValue::Boolean(truth) => Ok(*truth),
                _ => Err("true or false".to_owned()),
            };
            self.checked(key, value, truth)
        });
        read.unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], default: T) -> T {
        self.choice(key, words).unwrap_or(default)
    }

    /// One of a few words, if the key is there.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let pick = |text: &str| {
            let known = words.iter().find(|(word, _)| *word == text);
            known
                .map(|(_, value)| *value)
                .ok_or_else(|| words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))
        };
        self.text(key, pick)
    }

    /// A whole number or a string, whichever is written.
    pub(super) fn number_or_text<T>(
        &mut self,
        key: &'static str,
        number: impl Fn(u32) -> Option<T>,
        text: impl Fn(&str) -> Option<T>,
        allowed: &str,
    ) -> Option<T> {
        let value = self.take(key)?;
        let read = match value.get_ref().as_str() {
            Some(written) => text(written),
            None => integer(value.get_ref(), &(0..=u32::MAX)).ok().and_then(number),
        };
        self.checked(key, value, read.ok_or_else(|| allowed.to_owned()))
    }

    /// A string; `parse` says what is allowed if it does not like it.
    pub(super) fn text<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        self.checked(key, value, string(value.get_ref(), &parse))
    }

    /// A list of distinct whole numbers.
    pub(super) fn integers(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<Vec<u32>> {
        self.list(key, "integers", |value| integer(value, &range))
    }

    /// A whole number; `parse` says what is allowed if it does not like it, and never likes 0.
    pub(super) fn number<T>(&mut self, key: &'static str, parse: impl Fn(u32) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        let number = integer(value.get_ref(), &(0..=u32::MAX)).unwrap_or(0);
        self.checked(key, value, parse(number))
    }

    /// A whole number, or a list of distinct ones.
    pub(super) fn integer_or_integers(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<Vec<u32>> {
        match self.get(key)?.get_ref() {
            DeValue::Array(_) => self.integers(key, range),
            _ => {
                let value = self.take(key)?;
                let read = integer(value.get_ref(), &range);
                self.checked(key, value, read).map(|number| vec![number])
            }
        }
    }

    /// A list of distinct strings.
    pub(super) fn texts<T: PartialEq>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.list(key, "strings", |value| string(value, &parse))
    }

    /// Notes that the value of a key is wrong for a reason that only shows beside others.
    pub(super) fn refuse(&self, key: &'static str, message: &str) {
        if let Some(value) = self.get(key) {
            self.refuse_at(value.span().start, format!("{} {message}", self.full_name(key)));
        }
    }

    /// Notes that these keys do not belong here, where they are there.
    pub(super) fn refuse_keys(&mut self, keys: &[&'static str], message: &str) {
        let table = self.table;
        for name in table.into_iter().flat_map(DeTable::keys) {
            if let Some(key) = keys.iter().find(|key| *key == name.get_ref()) {
                self.refuse_at(name.span().start, format!("{} {message}", self.full_name(key)));
                self.settled.push(key);
            }
        }
    }

    /// Says nothing of these keys, which depend on one that is wrong.
    pub(super) fn pass_over(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Says nothing of the whole section, which depends on a key that is wrong.
    pub(super) fn pass_over_the_rest(&mut self) {
        let keys = self.table.into_iter().flat_map(DeTable::keys);
        self.settled.extend(keys.map(|name| name.get_ref().as_ref()));
    }

    /// Notes that a key is missing, if it is.
    pub(super) fn require(&self, key: &'static str, allowed: &str) {
        if !self.has(key) {
            let message = format!("{} is missing; allowed: {allowed}", self.full_name(key));
            self.refuse_at(self.at, message);
        }
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Where the value of a key is; where it is missing, the section itself.
    pub(super) fn place(&self, key: &str) -> usize {
        self.get(key).map_or(self.at, |value| value.span().start)
    }

    /// How many faults have been noted so far, in the whole file.
    pub(super) fn fault_count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Notes something wrong at a byte of the file.
    pub(super) fn refuse_at(&self, at: usize, message: String) {
        self.faults.borrow_mut().push(Fault { at, message });
    }

    /// Notes that a list is empty, if it is.
    pub(super) fn refuse_empty(&self, key: &'static str, allowed: &str) {
        if self
            .get(key)
            .and_then(|value| value.get_ref().as_array())
            .is_some_and(|list| list.is_empty())
        {
            self.refuse(key, &format!("is empty; allowed: {allowed}"));
        }
    }

    /// Notes every key that was not read.
    pub(super) fn refuse_the_rest(&self) {
        for name in self.table.into_iter().flat_map(DeTable::keys) {
            let is_known = self
                .known
                .iter()
                .chain(&self.settled)
                .any(|known| known == name.get_ref());
            if !is_known {
                let place = if self.title.is_empty() {
                    "at the top level".to_owned()
                } else {
                    format!("in {}", self.title)
                };
                let key = name.get_ref().escape_debug();
                self.refuse_at(
                    name.span().start,
                    format!("unknown key '{key}' {place}; allowed: {}", self.known.join(", ")),
                );
            }
        }
    }

    fn list<T: PartialEq>(
        &mut self,
        key: &'static str,
        kind: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            return self.checked(key, value, Err(format!("a list of {kind}")));
        };
        let mut list = Vec::new();
        for value in array.iter() {
            let Some(element) = self.checked(key, value, read(value.get_ref())) else {
                continue;
            };
            if list.contains(&element) {
                let name = self.full_name(key);
                let twice = describe(value.get_ref());
                self.refuse_at(value.span().start, format!("{name} has {twice} twice; allowed: once"));
            }
            list.push(element);
        }
        Some(list)
    }

    fn take(&mut self, key: &'static str) -> Option<&'f Spanned<DeValue<'f>>> {
        self.known.push(key);
        self.get(key)
    }

    fn get(&self, key: &str) -> Option<&'f Spanned<DeValue<'f>>> {
        self.table?
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    fn checked<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, read: Result<T, String>) -> Option<T> {
        read.map_err(|allowed| {
            let message = format!(
                "{} is {}; allowed: {allowed}",
                self.full_name(key),
                describe(value.get_ref())
            );
            self.refuse_at(value.span().start, message);
        })
        .ok()
    }

    fn full_name(&self, key: &str) -> String {
        if self.title.is_empty() {
            key.to_owned()
        } else {
            format!("{} {key}", self.title)
        }
    }
}

fn integer(value: &DeValue<'_>, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let number = value
        .as_integer()
        .and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok());
    let allowed = || format!("an integer, {} to {}", range.start(), range.end());
    number.filter(|number| range.contains(number)).ok_or_else(allowed)
}

fn string<T>(value: &DeValue<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    match value.as_str() {
        Some(text) => parse(text),
        // What a parser says of the empty string is what it allows; where that is allowed, any string will do.
        None => Err(parse("").err().unwrap_or_else(|| "a string".to_owned())),
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("'{}'", text.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
