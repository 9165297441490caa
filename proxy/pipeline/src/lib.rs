//! One exchange as values, and the chain of filters that decides it; knows neither Wasm nor sockets.
//!
//! Rooms in reading order: [`view`] (what a phase call carries), [`principal`], [`facts`] (everything
//! a filter may read), [`settings`], [`attributes`], [`intern`], [`edits`] (what a filter may change), [`verdict`]
//! (what a phase returns), [`ledger`] (claims settled when the exchange ends), [`notice`] (what the caller
//! is told of them), [`correction`] (what estimates learn), [`filter`] (the trait), [`chain`] (the walk).

mod affinity_memory;
pub mod attributes;
pub mod chain;
pub mod correction;
pub mod edits;
pub mod facts;
pub mod filter;
pub mod intern;
pub mod ledger;
pub mod notice;
pub mod principal;
pub mod settings;
pub mod verdict;
pub mod view;
