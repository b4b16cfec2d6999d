//! What judges a cluster from outside, for drills and for the simulator.
#![forbid(unsafe_code)]

pub mod linearizability;
