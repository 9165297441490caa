//! `weir function`: the functions API from the command line, in the spirit of NVCF's own tool.
//!
//! In reading order: [`commands`] (names and flags), [`payload`] (flags made into what is sent),
//! [`spec`] (`--llm-model "name=...,..."`), [`call`] (one request), [`table`] (the answer for people).

mod call;
mod commands;
mod payload;
mod spec;
mod table;

pub(crate) use commands::{FunctionCommand, run};
