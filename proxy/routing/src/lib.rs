//! Candidates and loads: which backends may serve an exchange, and what is known of each.
//!
//! Nothing here does I/O or reads a clock: times are milliseconds of one monotonic clock of
//! the caller's choice. Everything that must survive a reload hangs on [`Backend`], which a
//! [`Fleet`] hands from one configuration generation to the next.

mod fleet;

mod backend;
mod ejection;
mod health;
mod pending;
mod report;
mod reservation;
mod throughput;

mod cluster;
mod signal;

mod candidate;
mod candidates;
mod least;
mod load;
mod prediction;
mod prefixed_hash;
mod rendezvous;
mod ring;
mod tails;
mod xxh3;

mod last_domain;

pub use backend::Backend;
pub use candidate::{Candidate, Member};
pub use candidates::{CandidateSet, KeyHashes, Total};
pub use cluster::{Cluster, ClusterSpec, MemberSpec};
pub use ejection::EjectionPolicy;
pub use fleet::Fleet;
pub use health::{Health, HealthState};
pub use last_domain::{LastDomains, Session};
pub use load::{Figure, Load};
pub use prediction::{Demand, Outlook};
pub use rendezvous::Weighting;
pub use report::{QueueTimes, Report};
pub use reservation::Reservation;
pub use signal::{NextTurn, Waiting};
