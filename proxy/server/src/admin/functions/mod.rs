//! The functions API, in the words of NVIDIA Cloud Functions: `/v2/nvcf/functions`.
//!
//! In reading order: [`api`] (paths and answers), [`payload`] (what is sent, checked), [`plan`]
//! (what a request changes), [`document`] (the change in the text of a file), [`view`] (a function
//! as it is shown), [`refusal`].

mod api;
mod document;
mod payload;
mod plan;
#[cfg(test)]
mod plan_tests;
mod refusal;
mod view;

pub(crate) use api::{PATH, Request, serve};
