//! Reading a table of the file key by key, and noting what is wrong with it, where, and what would be right.
//!
//! Every key is named in one place, where it is read: what is left over in the table at the end is unknown, and what
//! was read is what is allowed. A fault does not end the reading, so that one look shows all of them.

use std::{
    cell::RefCell,
    ops::{Range, RangeInclusive},
};

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
    /// Its name; empty for the top level.
    name: &'static str,
    /// Its entries; `None` where the file does not have it.
    table: Option<&'f DeTable<'f>>,
    /// The keys that were read.
    known: Vec<&'static str>,
    faults: &'f RefCell<Vec<Fault>>,
}

impl<'f> Section<'f> {
    /// The top level of a file.
    pub(super) const fn top(table: &'f DeTable<'f>, faults: &'f RefCell<Vec<Fault>>) -> Self {
        Self {
            name: "",
            table: Some(table),
            known: Vec::new(),
            faults,
        }
    }

    /// A table of this one, read by `read`.
    pub(super) fn section<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        let table = self.take(name).and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.fault(
                    value.span(),
                    format!("{name} is {}; allowed: a table, [{name}]", describe(other)),
                );
                None
            }
        });
        let mut section = Self {
            name,
            table,
            known: Vec::new(),
            faults: self.faults,
        };
        let read = read(&mut section);
        section.refuse_the_rest();
        read
    }

    /// A whole number.
    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>, default: u32) -> u32 {
        self.take(key)
            .and_then(|value| self.checked(key, value, integer(value.get_ref(), &range)))
            .unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], default: T) -> T {
        let pick = |text: &str| {
            let known = words.iter().find(|(word, _)| *word == text);
            known
                .map(|(_, value)| *value)
                .ok_or_else(|| words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))
        };
        self.text(key, pick).unwrap_or(default)
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
            self.fault(value.span(), format!("{} {message}", self.full_name(key)));
        }
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
            if self.known.iter().all(|known| known != name.get_ref()) {
                let place = if self.name.is_empty() {
                    "at the top level".to_owned()
                } else {
                    format!("in [{}]", self.name)
                };
                let key = name.get_ref().escape_debug();
                self.fault(
                    name.span(),
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
                self.fault(
                    value.span(),
                    format!("{name} has {} twice; allowed: once", describe(value.get_ref())),
                );
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
            self.fault(value.span(), message);
        })
        .ok()
    }

    fn full_name(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("[{}] {key}", self.name)
        }
    }

    fn fault(&self, span: Range<usize>, message: String) {
        self.faults.borrow_mut().push(Fault {
            at: span.start,
            message,
        });
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
