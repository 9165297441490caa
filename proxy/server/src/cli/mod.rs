//! The commands of the binary, one file each; `command_line` says what they are called.

mod command_line;
mod output;

mod run;

mod check;
mod config_file;
mod init;

mod compile;
mod module_cache;

mod simulate;

mod filter;

mod function;

pub use command_line::main;
