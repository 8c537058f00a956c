//! A configuration as a list of keys and values, and which of them an agent takes up while it runs.

use std::net::SocketAddr;

use guard_common::policy::Action;

use super::{Config, Namespaces, PodSource, Tc, TcxOrder, Xdp, mode_word};
use crate::selection::Preset;

/// A key, as it stands in the file, and its value, as TOML writes it.
pub(crate) type Setting = (&'static str, String);

impl Config {
    /// Every key but those of budgets and hygiene, for which there is [`Self::limits`].
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings = vec![
            ("mode", text(mode_word(self.mode))),
            ("marks", self.marks.to_string()),
            ("observe_marks", self.observe_marks.to_string()),
            ("ports", list(self.ports.iter().map(u16::to_string))),
            ("allow", list(self.allow.iter().map(text))),
        ];
        let selection = &self.attach.selection;
        settings.extend([
            ("attach.interfaces", list(selection.include.iter().map(text))),
            ("attach.exclude", list(selection.exclude.iter().map(text))),
            ("attach.preset", text(selection.preset.map_or("", Preset::word))),
        ]);
        settings.extend(self.fixed());
        settings.extend([
            ("attach.at_stop", text(self.attach.at_stop.word())),
            ("breaker.hold_ms", self.breaker.hold_ms.to_string()),
            ("breaker.hold_max_ms", self.breaker.hold_max_ms.to_string()),
            ("breaker.test_ms", self.breaker.test_ms.to_string()),
            (
                "answer.action",
                text(match self.answer.action {
                    Action::Answer => "answer",
                    Action::Drop => "drop",
                }),
            ),
            ("answer.rcode", text(self.answer.rcode.word())),
            ("answer.per_client", self.answer.per_client.to_string()),
            ("answer.per_hold", self.answer.per_hold.to_string()),
            ("answer.trusted", list(self.answer.trusted.iter().map(text))),
            ("lease.seconds", self.lease.as_secs().to_string()),
            ("metrics.top", self.metrics.top.to_string()),
            ("search.suffixes", list(self.search_suffixes.iter().map(text))),
            ("probe.except", list(self.probe.except.iter().map(text))),
        ]);
        settings
    }

    /// The keys of another configuration that differ from this one's in what an agent takes up at its start alone.
    pub(crate) fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let both = self.fixed().into_iter().zip(other.fixed());
        both.filter(|(ours, theirs)| ours != theirs)
            .map(|((key, _), _)| key)
            .collect()
    }

    fn fixed(&self) -> [Setting; 11] {
        let xdp = match self.attach.xdp {
            Xdp::Auto => "auto",
            Xdp::Driver => "driver",
            Xdp::Generic => "generic",
            Xdp::Off => "off",
        };
        let tc = match self.attach.tc {
            Tc::Auto => "auto",
            Tc::Tcx => "tcx",
            Tc::Clsact => "clsact",
        };
        let tcx_order = match self.attach.tcx_order {
            TcxOrder::First => "first",
            TcxOrder::Last => "last",
        };
        let address = |listen: Option<SocketAddr>| text(listen.map_or_else(String::new, |listen| listen.to_string()));
        let socket = self.control.socket.as_deref().map(|path| path.display().to_string());
        let source = match self.pods.source {
            PodSource::Off => "off",
            PodSource::Cri => "cri",
        };
        let runtime = self.pods.socket.as_deref().map(|path| path.display().to_string());
        let Namespaces { resolvers, paths } = &self.attach.namespaces;
        let namespaces = resolvers.then(|| text("auto")).into_iter();
        let namespaces = namespaces.chain(paths.iter().map(|path| text(path.display())));
        [
            ("attach.namespaces", list(namespaces)),
            ("attach.xdp", text(xdp)),
            ("attach.tc", text(tc)),
            ("attach.tcx_order", text(tcx_order)),
            ("attach.pin_dir", text(self.attach.pin_dir.display())),
            ("metrics.listen", address(self.metrics.listen)),
            ("page.listen", address(self.page.listen)),
            ("control.socket", text(socket.unwrap_or_default())),
            ("control.group", text(self.control.group.as_deref().unwrap_or_default())),
            ("pods.source", text(source)),
            ("pods.socket", text(runtime.unwrap_or_default())),
        ]
    }
}

fn text(value: impl ToString) -> String {
    toml_edit::Value::from(value.to_string()).to_string()
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Pattern;

    /// Neither budgets nor hygiene.
    const TEMPLATE: &str = include_str!("../../dnsguard.example.toml");

    #[test]
    fn every_key_of_the_template_is_listed_with_its_value() {
        let document: toml_edit::DocumentMut = TEMPLATE.parse().unwrap();
        let mut keys = Vec::new();
        for (name, item) in document.as_table() {
            match item.as_table() {
                Some(table) => keys.extend(table.iter().map(|(key, item)| (format!("{name}.{key}"), item.clone()))),
                None => keys.push((name.to_owned(), item.clone())),
            }
        }
        let settings = Config::default().settings();
        assert_eq!(settings.len(), keys.len());
        for (key, item) in keys {
            let (_, value) = settings
                .iter()
                .find(|(known, _)| *known == key)
                .unwrap_or_else(|| panic!("{key} is missing"));
            assert_eq!(*value, item.to_string().trim(), "{key}");
        }
    }

    #[test]
    fn what_is_fixed_is_told_by_its_key() {
        let config = Config::default();
        let mut other = config.clone();
        other.breaker.hold_ms = 500;
        assert!(config.fixed_differences(&other).is_empty());
        other.attach.selection.include = vec![Pattern::literal("eth0")];
        assert!(config.fixed_differences(&other).is_empty());
        other.attach.xdp = Xdp::Off;
        other.metrics.listen = None;
        assert_eq!(config.fixed_differences(&other), ["attach.xdp", "metrics.listen"]);
    }
}
