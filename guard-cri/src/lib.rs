//! A client of the Container Runtime Interface, version 1: gRPC over the runtime's Unix socket.
//!
//! The kubelet asks containerd, CRI-O and others for pods through it; so can anybody who may open the socket.
//! [`message`] has the few messages that say which pods there are; others can be declared where they are needed, and
//! sent with [`Client::call`]. The interface is `pkg/apis/runtime/v1/api.proto` of kubernetes/cri-api.

#![forbid(unsafe_code)]

mod client;
pub mod message;

pub use client::{CallError, Client};
pub use prost;
