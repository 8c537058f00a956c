//! What an interface is called by: its name, a glob, or a regular expression.

use std::fmt;

use regex::Regex;
use wildmatch::WildMatch;

/// Bytes of an interface's name, without the end (IFNAMSIZ of include/uapi/linux/if.h).
const MAX_NAME: usize = 15;

/// Which names are meant.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Literal,
    Glob(WildMatch),
    Regex(Regex),
}

impl Pattern {
    /// Reads `eth0`, `veth*` (`*` is any letters, `?` one), or `/^ens[0-9]+$/`, which matches anywhere unless it says
    /// otherwise.
    ///
    /// # Errors
    ///
    /// What is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let kind = match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Some(expression) if !expression.is_empty() => {
                let last = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().to_owned();
                let regex = Regex::new(expression);
                Kind::Regex(regex.map_err(|error| format!("a regular expression between slashes ({})", last(error)))?)
            }
            _ if text.contains(['*', '?']) => {
                let plain: String = text.chars().filter(|letter| !matches!(letter, '*' | '?')).collect();
                if !plain.is_empty() {
                    literal(&plain)?;
                }
                Kind::Glob(WildMatch::new(text))
            }
            _ => {
                literal(text)?;
                Kind::Literal
            }
        };
        let text = text.to_owned();
        Ok(Self { text, kind })
    }

    /// The interface of this name alone.
    pub(crate) fn literal(name: &str) -> Self {
        Self {
            text: name.to_owned(),
            kind: Kind::Literal,
        }
    }

    /// The name, if it is one.
    pub(crate) fn as_literal(&self) -> Option<&str> {
        matches!(self.kind, Kind::Literal).then_some(self.text.as_str())
    }

    /// Whether an interface of this name is meant.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Literal => self.text == name,
            Kind::Glob(glob) => glob.matches(name),
            Kind::Regex(regex) => regex.is_match(name),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// As it was written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads the name of an interface, by the kernel's rules (`dev_valid_name` in `net/core/dev.c`).
pub(crate) fn interface_name(text: &str) -> Result<String, String> {
    literal(text).map(|()| text.to_owned())
}

fn literal(text: &str) -> Result<(), String> {
    let is_valid = (1..=MAX_NAME).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if is_valid {
        Ok(())
    } else {
        Err("1 to 15 bytes, no '/', ':' or space, as 'ip link' shows it".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_the_kernels() {
        for good in ["lo", "eth0", "br-0123456789ab", "eth0.100", "é"] {
            assert!(interface_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "a\n", "sixteen-bytes-xx"] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_is_a_name_a_glob_or_an_expression() {
        let matches = |pattern: &str, name| Pattern::parse(pattern).unwrap().matches(name);
        assert!(matches("eth0", "eth0") && !matches("eth0", "eth01"));
        assert!(matches("veth*", "veth12ab") && !matches("veth*", "eth0"));
        assert!(matches("ens?", "ens5") && !matches("ens?", "ens55") && matches("*", "anything"));
        assert!(matches("/^(eth|ens)[0-9]+$/", "ens5") && !matches("/^(eth|ens)[0-9]+$/", "veth5"));
        assert!(matches("/eth/", "veth5"), "anywhere unless it says otherwise");
        assert_eq!(Pattern::parse("eth0").unwrap().as_literal(), Some("eth0"));
        assert_eq!(Pattern::parse("eth*").unwrap().as_literal(), None);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "/", "//", "/eth0", "eth0/", "a b*", "eth/*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        let error = Pattern::parse("/[/").unwrap_err();
        assert!(
            error.starts_with("a regular expression between slashes (error: "),
            "{error}"
        );
    }
}
