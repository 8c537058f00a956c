//! What a fleet is given: the files under test.

use std::path::{Path, PathBuf};

pub(crate) const ALERTS: &str = include_str!("../../../deploy/helm/dnsguard/files/alerts.yaml");
pub(crate) const RECORDING: &str = include_str!("../../../deploy/helm/dnsguard/files/recording.yaml");
pub(crate) const DASHBOARD: &str = include_str!("../../../deploy/helm/dnsguard/files/dashboard.json");

/// Documents that runbooks point into.
pub(crate) const DOCUMENTS: [(&str, &str); 2] = [
    ("docs/OPERATING.md", include_str!("../../../docs/OPERATING.md")),
    ("docs/METRICS.md", include_str!("../../../docs/METRICS.md")),
];

/// What node_exporter and an agent say on a host with an ENA driver, and nowhere else.
pub(crate) const ENA: &str = include_str!("../../fixtures/ena.prom");

/// A path in the checkout.
pub(crate) fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
