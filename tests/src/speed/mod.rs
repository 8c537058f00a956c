//! What a packet costs: programs run over packets by the kernel itself, many times ([`Trial`]).
//!
//! The kernel runs a program again and again over the same bytes, so a feeder goes first ([`Feed`]): it draws which
//! name is asked for, and mends what the last run did to the packet. What it takes itself is measured with a program
//! behind it that does nothing, in turn with the rest, and taken off ([`Cost`]). After each measurement, what was
//! counted and returned has to be what the packet is said to be ([`Packet`]).

mod agent;
mod cost;
mod feeder;
mod footprint;
mod limit;
mod memory;
mod packet;
mod pair;
mod peer;
mod rig;
mod run_time;
mod trial;
mod turns;

pub use agent::AgentCost;
pub use cost::{Cost, Round, Spread};
pub(crate) use feeder::empty;
pub use feeder::{Feed, filter};
pub use footprint::{MapMemory, load_time, map_memory};
pub use limit::{BUDGET_PPS, Limited};
pub use memory::{TABLES, line_of_memory};
pub use packet::{Packet, Shape};
pub use pair::Pair;
pub use peer::Peer;
pub use rig::{Rig, Run};
pub use run_time::{RunTime, Timed};
pub use trial::{Subject, Trial};
