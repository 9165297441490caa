//! Candidates and loads: which backends may serve an exchange, and what is known of each.
//!
//! Nothing here does I/O or reads a clock: times are milliseconds of one monotonic clock of
//! the caller's choice. Everything that must survive a reload hangs on [`Backend`], which a
//! [`Fleet`] hands from one configuration generation to the next.

mod fleet;

mod backend;
mod candidates;
mod cluster;
mod health;
mod load;

pub use backend::{Backend, EjectionPolicy, Reservation};
pub use candidates::{Candidate, CandidateSet};
pub use cluster::{Cluster, ClusterSpec};
pub use fleet::Fleet;
pub use health::{Health, HealthState};
pub use load::{Figure, Load, Report};
