//! weir-tests: what the suite and the benches are made of.

pub mod load;
mod load_answer;

pub mod process;
