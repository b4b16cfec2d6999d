//! Consensus as a service: a replicated store that any replica can write to and read from. `Replica` is all of it; it
//! knows nothing of Kubernetes.
#![forbid(unsafe_code)]

mod audit;
mod barrier;
mod config;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod host;
mod identity;
mod level;
mod lock;
mod log;
mod machine;
mod membership;
mod metrics;
mod peer;
mod proposer;
mod quorum;
mod recover;
mod replica;
mod restore;
mod route;
#[cfg(test)]
mod simulation;
mod space;
mod strand;
mod types;
mod verify;
pub mod watch;

pub use audit::Divergence;
pub use barrier::BarrierError;
pub use config::{Config, Limits, Reads, StartError, Timing};
pub use identity::Invitation;
pub use lock::lock;
pub use membership::{ManageError, MemberInfo, Operation, Refusal};
pub use peer::{MEMBER_DNS_NAME, MEMBER_ORGANIZATION, NotMember, PeerTls, member_common_name, member_name};
pub use proposer::ProposeError;
pub use recover::Survivor;
pub use replica::{Announced, Replica, ReplicaStatus, Role, TransferError, Unreachable};
pub use restore::{Restore, RestoreError, Restored, restore};
pub use route::{Leader, Leadership};
pub use types::{LEVEL, Member, NodeId};
pub use verify::{Verified, verify};
