//! The lab: real kernels, real resolvers, real packets, for tests, `cargo xtask demo` and `cargo xtask bench`.
//!
//! **Invariant: nothing outlives this process.** A [`Namespace`] has no name, only threads that are in it; its
//! files lie on a tmpfs that only it mounts; its children die with the thread that spawned them. So even a
//! SIGKILL leaves no namespace, link, pin, file or process behind.
//!
//! Read in this order: [`namespace`] (where things run), [`process`] (what runs), [`resolver`] (the real
//! programs), [`topology`] (how they are wired into loops), [`load`] (traffic that is no loop), [`storm`] (a node of a
//! cloud, and a sweep that takes all it may send), [`flood`] (one query as fast as it goes), [`siege`] (a node under a
//! flood, whose parts break one after the other), [`guard`] (the agent under test), [`prober`] (a good client and what
//! it got), [`tcpdump`] (what passed meanwhile), [`terminal`] and [`mod@browser`] (who looks at what the agent shows),
//! [`mod@prometheus`] (who collects it from all nodes), [`containerd`] (pods), [`Podman`] (the agent as a container).
//! Apart from all that stands [`mod@bench`]: the kernel object, packet by packet; [`simulated`] puts it into a simulated
//! network, [`speed`] measures what it costs, [`soak`] wears it; [`vm`] boots other kernels.

#![deny(unsafe_code)]

mod assembly;
pub mod bench;
pub mod browser;
pub mod client;
pub mod cni;
pub mod containerd;
pub mod debian;
pub mod flood;
pub mod foreign;
pub mod frame;
pub mod guard;
pub mod hooks;
mod http;
pub mod kernel_log;
mod knob;
pub mod load;
pub mod names;
pub mod namespace;
pub mod package;
mod podman;
pub mod prober;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod question;
pub mod resolver;
pub mod scribe;
pub mod siege;
pub mod simulated;
pub mod soak;
pub mod speed;
pub mod storm;
mod sys;
pub mod tcpdump;
pub mod terminal;
pub mod topology;
pub mod traces;
pub mod upstream;
pub mod veth;
pub mod vm;
mod wait;

pub use browser::Browser;
pub use knob::knob;
pub use namespace::Namespace;
pub use podman::Podman;
pub use prober::{Prober, Report};
pub use process::Process;
pub use prometheus::Prometheus;
pub use question::Question;
pub use terminal::Terminal;
pub use wait::wait;
