//! `docs/METRICS.md` against the code: every family is there with its type and labels, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Format, Metrics, tests::snapshot};
use crate::pods::SourceState;

const GUIDE: &str = include_str!("../../../docs/METRICS.md");
/// Documents that name metrics, and what asks Prometheus for them.
const DOCUMENTS: [&str; 9] = [
    GUIDE,
    include_str!("../../../docs/OPERATING.md"),
    include_str!("../../../docs/EVENTS.md"),
    include_str!("../../../docs/LIMITATIONS.md"),
    include_str!("../../../docs/ARCHITECTURE.md"),
    include_str!("../../../README.md"),
    include_str!("../../../deploy/helm/dnsguard/files/alerts.yaml"),
    include_str!("../../../deploy/helm/dnsguard/files/dashboard.json"),
    include_str!("../../../deploy/helm/dnsguard/files/recording.yaml"),
];
/// Labels whose values are all known; of the others, what there is depends on host and configuration.
const CLOSED: [&str; 9] = [
    "action", "family", "kind", "mode", "outcome", "reason", "result", "service", "stage",
];

/// A family: its type, and the values of each of its labels.
#[derive(Debug, Default, PartialEq)]
struct Family {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The families of the guide. Below a heading with the name stands a paragraph with type and labels, and behind each
/// label its values in brackets, if they are known.
fn documented() -> BTreeMap<String, Family> {
    let mut found = BTreeMap::new();
    for part in GUIDE.split("\n### `").skip(1) {
        let (name, rest) = part.split_once('`').unwrap();
        let paragraph = rest.trim_start().split("\n\n").next().unwrap().replace('\n', " ");
        let kind: String = paragraph.chars().take_while(|letter| letter.is_alphabetic()).collect();
        let mut family = Family {
            kind: kind.to_lowercase(),
            labels: BTreeMap::new(),
        };
        let mut label = "";
        let mut in_brackets = false;
        for (index, piece) in paragraph.split('`').enumerate() {
            if index % 2 == 0 {
                in_brackets = match (piece.rfind('('), piece.rfind(')')) {
                    (None, None) => in_brackets,
                    (open, close) => open > close,
                };
            } else if in_brackets {
                family.labels.get_mut(label).unwrap().insert(piece.to_owned());
            } else {
                label = piece;
                family.labels.insert(piece.to_owned(), BTreeSet::new());
            }
        }
        assert!(found.insert(name.to_owned(), family).is_none(), "{name} twice");
        assert!(
            rest.contains("\nAction: ") || rest.contains("| what to do |"),
            "{name} asks for nothing"
        );
    }
    found
}

/// The families of a scrape of an agent that has everything.
fn scraped() -> BTreeMap<String, Family> {
    let mut snapshot = snapshot();
    snapshot.pods.source = Some(SourceState::default());
    let exposition = Metrics::new(move || snapshot.clone()).render(Format::Text).unwrap();
    let mut found: BTreeMap<String, Family> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            found.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            // Names of zones and budgets may hold anything but a quote that is not escaped.
            let rest = rest.replace("\\\\", "").replace("\\\"", "");
            for (key, value) in rest.split("\",").filter_map(|label| label.split_once("=\"")) {
                let value = value.split('"').next().unwrap();
                let labels = &mut found.get_mut(name).unwrap().labels;
                labels.entry(key.to_owned()).or_default().insert(value.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_family_is_documented_with_its_type_and_labels_and_no_other() {
    let (scraped, documented) = (scraped(), documented());
    let names: Vec<_> = documented.keys().collect();
    assert_eq!(scraped.keys().collect::<Vec<_>>(), names);
    for (name, family) in &documented {
        let real = &scraped[name];
        assert_eq!(real.kind, family.kind, "the type of {name}");
        let labels: Vec<_> = family.labels.keys().collect();
        assert_eq!(real.labels.keys().collect::<Vec<_>>(), labels, "the labels of {name}");
        for (label, values) in &family.labels {
            let seen = &real.labels[label];
            if CLOSED.contains(&label.as_str()) {
                assert_eq!(seen, values, "the values of {label} of {name}");
            } else if !values.is_empty() {
                assert!(
                    seen.is_subset(values),
                    "{label} of {name} is {seen:?}; documented: {values:?}"
                );
            }
        }
    }
}

#[test]
fn no_document_names_a_metric_that_there_is_not() {
    let known = scraped();
    for document in DOCUMENTS {
        for (index, start) in document.match_indices("dnsguard_") {
            // What a recording rule makes is called `level:metric:operation`, and is Prometheus's to check.
            if document[..index].ends_with(':') {
                continue;
            }
            let rest = document[index + start.len()..]
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_');
            let name = format!("dnsguard_{}", rest.collect::<String>());
            // `dnsguard_top_*` stands for several.
            let is_known = known.contains_key(&name)
                || known
                    .keys()
                    .any(|family| name.ends_with('_') && family.starts_with(&name));
            assert!(is_known, "{name}");
        }
    }
}
