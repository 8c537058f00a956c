//! Messages of `runtime.v1`, with the fields that are read here. What else is in them is skipped.
//!
//! What a runtime says of other people's pods is bytes here where the interface has strings: one name that is no UTF-8
//! must not cost all the others.

use std::collections::HashMap;

use prost::{Enumeration, Message};

/// Which pods there are: [`Self::METHOD`].
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxRequest {
    /// None: all.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<PodSandboxFilter>,
}

/// Which of them.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxFilter {
    /// In this state.
    #[prost(message, optional, tag = "2")]
    pub state: Option<PodSandboxStateValue>,
}

/// A state that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PodSandboxStateValue {
    /// The state.
    #[prost(enumeration = "PodSandboxState", tag = "1")]
    pub state: i32,
}

/// Whether the network of a pod is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    /// It is.
    Ready = 0,
    /// It is not, or no longer.
    NotReady = 1,
}

/// The pods.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxResponse {
    /// One each.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// A pod, as a list has it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandbox {
    /// The runtime's name for it, never used twice.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The cluster's.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// Whether its network is there.
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
}

/// What a pod is called in its cluster.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandboxMetadata {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Its UID.
    #[prost(bytes = "vec", tag = "2")]
    pub uid: Vec<u8>,
    /// Its namespace.
    #[prost(bytes = "vec", tag = "3")]
    pub namespace: Vec<u8>,
}

/// What is known of one pod: [`Self::METHOD`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandboxStatusRequest {
    /// Which.
    #[prost(bytes = "vec", tag = "1")]
    pub pod_sandbox_id: Vec<u8>,
    /// With what the interface has no field for.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// What is known of it.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusResponse {
    /// In the fields of the interface.
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
    /// In the runtime's own: under `info`, JSON.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

/// A pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandboxStatus {
    /// Whether its network is there.
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    /// Its addresses.
    #[prost(message, optional, tag = "5")]
    pub network: Option<PodSandboxNetworkStatus>,
    /// Its namespaces.
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxPodSandboxStatus>,
}

/// Its addresses.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandboxNetworkStatus {
    /// The first.
    #[prost(string, tag = "1")]
    pub ip: String,
    /// The others.
    #[prost(message, repeated, tag = "2")]
    pub additional_ips: Vec<PodIp>,
}

/// An address.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodIp {
    /// In presentation form.
    #[prost(string, tag = "1")]
    pub ip: String,
}

/// What Linux knows of it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LinuxPodSandboxStatus {
    /// Its namespaces.
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespace>,
}

/// Its namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Namespace {
    /// Whose they are.
    #[prost(message, optional, tag = "2")]
    pub options: Option<NamespaceOption>,
}

/// Whose namespaces it has.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct NamespaceOption {
    /// Of the network.
    #[prost(enumeration = "NamespaceMode", tag = "1")]
    pub network: i32,
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    /// The pod's own.
    Pod = 0,
    /// The container's own.
    Container = 1,
    /// The node's: `hostNetwork`.
    Node = 2,
    /// That of another container.
    Target = 3,
}

impl ListPodSandboxRequest {
    /// Its name in the service.
    pub const METHOD: &'static str = "ListPodSandbox";

    /// Those whose network is there.
    pub const fn ready() -> Self {
        Self {
            filter: Some(PodSandboxFilter {
                state: Some(PodSandboxStateValue {
                    state: PodSandboxState::Ready as i32,
                }),
            }),
        }
    }
}

impl PodSandboxStatusRequest {
    /// Its name in the service.
    pub const METHOD: &'static str = "PodSandboxStatus";
}

impl PodSandboxStatus {
    /// Whether it has the node's network, and so no address of its own.
    pub fn is_on_host_network(&self) -> bool {
        let options = self.linux.and_then(|linux| linux.namespaces?.options);
        options.is_some_and(|options| options.network == NamespaceMode::Node as i32)
    }
}
