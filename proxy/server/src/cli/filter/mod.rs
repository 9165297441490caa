//! The commands for those who write filters.

mod commands;

mod build;
mod new;

mod inspect;
mod measure;

mod case_run;
mod cases;
mod expect;
mod prepared;
mod request;
mod test;

mod module_file;

pub(crate) use commands::{FilterCommand, run};
