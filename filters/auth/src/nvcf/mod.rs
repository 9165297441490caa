//! Credentials that an NVCF control plane knows.
//!
//! Rooms in reading order: `check` (from a credential to an admission, by what is kept or by asking),
//! `admission` (what an answer means), `message` (the answer's form), `status` (what a refusal means).

mod admission;
mod check;
mod message;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use check::Nvcf;
