//! Changes to the text of a configuration: what flags and commands lay over the file.
//!
//! A key is written as TOML writes it: `breaker.hold_ms`, and for budgets `budget."per client".limit`.

use thiserror::Error;
use toml_edit::{DocumentMut, Item, Key, TableLike, Value};

/// The array of budgets, whose elements go by their names.
const BUDGETS: &str = "budget";

/// Why a change cannot be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum EditError {
    #[error("'{}' is no key; allowed: one such as mode, breaker.hold_ms or budget.\"per client\".limit", .0.escape_debug())]
    Key(String),
    #[error("no budget is called '{}'; there are: {known}", name.escape_debug())]
    Budget { name: String, known: String },
    #[error("'{}' is set in a place that is no table; set the table's key instead", .0.escape_debug())]
    NoTable(String),
}

/// Keys and their values; a key is there once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Edits(Vec<(String, String)>);

impl Edits {
    /// Sets a key, in place of what it was set to before. What is no TOML value is taken for a text.
    ///
    /// # Errors
    ///
    /// The key is none.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), EditError> {
        let key = path(key)?.iter().map(Key::to_string).collect::<Vec<_>>().join(".");
        let value = match value.trim().parse::<Value>() {
            Ok(parsed) => parsed.to_string(),
            Err(_) => Value::from(value).to_string(),
        };
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, value.trim().to_owned()));
        Ok(())
    }

    /// Sets a key to a text, whatever it looks like.
    ///
    /// # Errors
    ///
    /// The key is none.
    pub(crate) fn set_text(&mut self, key: &str, value: &str) -> Result<(), EditError> {
        self.set(key, &Value::from(value).to_string())
    }

    /// Whether nothing is set.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a key back. False if it was not set.
    ///
    /// # Errors
    ///
    /// The key is none.
    pub(crate) fn unset(&mut self, key: &str) -> Result<bool, EditError> {
        let key = path(key)?.iter().map(Key::to_string).collect::<Vec<_>>().join(".");
        let before = self.0.len();
        self.0.retain(|(known, _)| *known != key);
        Ok(self.0.len() < before)
    }

    /// Takes all keys back.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keys and values, as TOML writes them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether this key is set.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    /// Lays the changes over a document.
    ///
    /// # Errors
    ///
    /// A budget that is meant is not there, or a key leads through something that is no table.
    pub(crate) fn apply(&self, document: &mut DocumentMut) -> Result<(), EditError> {
        for (key, value) in &self.0 {
            // Both were made by `set`.
            let (Ok(path), Ok(value)) = (path(key), value.parse::<Value>()) else {
                continue;
            };
            put(document, key, &path, value)?;
        }
        Ok(())
    }
}

/// Whether a document has this key.
pub(crate) fn has_key(document: &DocumentMut, key: &str) -> bool {
    let mut item = Some(document.as_item());
    for part in key.split('.') {
        item = item.and_then(Item::as_table_like).and_then(|table| table.get(part));
    }
    item.is_some()
}

fn path(key: &str) -> Result<Vec<Key>, EditError> {
    let path = Key::parse(key).map_err(|_| EditError::Key(key.to_owned()))?;
    let is_budget = path.first().is_some_and(|first| first.get() == BUDGETS);
    if is_budget && path.len() != 3 {
        return Err(EditError::Key(key.to_owned()));
    }
    Ok(path)
}

fn put(document: &mut DocumentMut, key: &str, path: &[Key], value: Value) -> Result<(), EditError> {
    let no_table = || EditError::NoTable(key.to_owned());
    let Some((last, tables)) = path.split_last() else {
        return Ok(());
    };
    let table: &mut dyn TableLike = match tables {
        [budgets, name] if budgets.get() == BUDGETS => budget(document, name.get())?,
        _ => {
            let mut item = document.as_item_mut();
            for part in tables {
                let table = item.as_table_like_mut().ok_or_else(no_table)?;
                item = table.entry(part.get()).or_insert_with(toml_edit::table);
            }
            item.as_table_like_mut().ok_or_else(no_table)?
        }
    };
    table.insert(last.get(), Item::Value(value));
    Ok(())
}

fn budget<'d>(document: &'d mut DocumentMut, name: &str) -> Result<&'d mut dyn TableLike, EditError> {
    let name_of = |table: &toml_edit::Table| {
        let text = |key| table.get(key).and_then(Item::as_str).map(str::to_owned);
        text("name").or_else(|| text("preset"))
    };
    let budgets = document.get_mut(BUDGETS).and_then(Item::as_array_of_tables_mut);
    let mut known = Vec::new();
    for table in budgets.into_iter().flat_map(|budgets| budgets.iter_mut()) {
        match name_of(table) {
            Some(found) if found == name => return Ok(table),
            found => known.extend(found),
        }
    }
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let name = name.to_owned();
    Err(EditError::Budget { name, known })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "mode = \"observe\" # for now\n[breaker]\nhold_ms = 1000\n[[budget]]\nname = \"per client\"\n\
                        scope = \"client\"\nlimit = 200\n[[budget]]\npreset = \"aws-link-local\"\n";

    fn edited(changes: &[(&str, &str)]) -> Result<String, EditError> {
        let mut edits = Edits::default();
        for (key, value) in changes {
            edits.set(key, value)?;
        }
        let mut document: DocumentMut = FILE.parse().unwrap();
        edits.apply(&mut document)?;
        Ok(document.to_string())
    }

    #[test]
    fn what_is_set_stands_where_the_file_had_it() {
        let text = edited(&[
            ("mode", "enforce"),
            ("breaker.hold_ms", "2000"),
            ("lease.seconds", "60"),
        ])
        .unwrap();
        assert!(text.contains("mode = \"enforce\""), "{text}");
        assert!(
            text.contains("hold_ms = 2000") && text.contains("[lease]\nseconds = 60"),
            "{text}"
        );
    }

    #[test]
    fn budgets_go_by_their_names() {
        let changes = [
            ("budget.\"per client\".limit", "\"30/min\""),
            ("budget.aws-link-local.limit", "800"),
        ];
        let text = edited(&changes).unwrap();
        assert!(
            text.contains("limit = \"30/min\"") && text.contains("limit = 800"),
            "{text}"
        );
        let error = edited(&[("budget.nobody.limit", "1")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no budget is called 'nobody'; there are: per client, aws-link-local"
        );
    }

    #[test]
    fn a_key_is_set_once_and_can_be_taken_back() {
        let mut edits = Edits::default();
        edits.set("mode", "enforce").unwrap();
        edits.set(" mode ", "observe").unwrap();
        assert_eq!(edits.iter().collect::<Vec<_>>(), [("mode", "\"observe\"")]);
        assert!(edits.has("mode") && edits.unset("mode").unwrap() && !edits.unset("mode").unwrap());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "a..b", "budget", "budget.x", "[a]", "mode = 1"] {
            assert!(Edits::default().set(bad, "1").is_err(), "{bad}");
        }
        assert!(matches!(edited(&[("mode.x", "1")]), Err(EditError::NoTable(_))));
    }

    #[test]
    fn a_document_has_what_it_states() {
        let document: DocumentMut = FILE.parse().unwrap();
        assert!(has_key(&document, "mode") && has_key(&document, "breaker.hold_ms"));
        assert!(!has_key(&document, "breaker.test_ms") && !has_key(&document, "answer.rcode"));
    }
}
