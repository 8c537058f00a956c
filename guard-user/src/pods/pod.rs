//! What a pod is called.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// The most letters of a namespace: a label of RFC 1123.
const MAX_NAMESPACE: usize = 63;
/// The most letters of a pod's name: a subdomain of RFC 1123.
const MAX_NAME: usize = 253;

/// A pod, by its namespace and its name. Both are what Kubernetes takes for names, so they can stand anywhere: in a label,
/// on a terminal, in a page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pod {
    /// `namespace/name`
    text: Arc<str>,
    slash: usize,
}

impl Pod {
    /// With these, if they are names in Kubernetes.
    pub(crate) fn new(namespace: &[u8], name: &[u8]) -> Option<Self> {
        let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_label = |label: &[u8]| {
            label.first().is_some_and(is_edge)
                && label.last().is_some_and(is_edge)
                && label.iter().all(|byte| is_edge(byte) || *byte == b'-')
        };
        let is_namespace = namespace.len() <= MAX_NAMESPACE && is_label(namespace);
        let is_name = name.len() <= MAX_NAME && name.split(|byte| *byte == b'.').all(is_label);
        if !is_namespace || !is_name {
            return None;
        }
        let text = [namespace, b"/", name].concat();
        let text = String::from_utf8(text).ok()?.into();
        Some(Self {
            text,
            slash: namespace.len(),
        })
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.text[..self.slash]
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.text[self.slash + 1..]
    }
}

/// `namespace/name`
impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Pod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_namespace_and_name() {
        let pod = Pod::new(b"kube-system", b"kube-proxy.node-1.example").unwrap();
        assert_eq!(
            (pod.namespace(), pod.name()),
            ("kube-system", "kube-proxy.node-1.example")
        );
        assert_eq!(pod.to_string(), "kube-system/kube-proxy.node-1.example");
    }

    #[test]
    fn what_kubernetes_takes_for_no_name_is_none() {
        let long = "x".repeat(254);
        for (namespace, name) in [
            ("", "web"),
            ("default", ""),
            ("default", "Web"),
            ("default", "-web"),
            ("default", "web-"),
            ("default", "web..x"),
            ("default", ".web"),
            ("default", "a/b"),
            ("a.b", "web"),
            ("default", "\u{1b}[2J"),
            ("default", "w\"eb"),
            ("default", "wéb"),
            ("default", long.as_str()),
            (&long[..64], "web"),
        ] {
            assert_eq!(
                Pod::new(namespace.as_bytes(), name.as_bytes()),
                None,
                "{namespace}/{name}"
            );
        }
        assert_eq!(Pod::new(b"default", b"\xff"), None);
    }
}
