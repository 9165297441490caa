//! Live reload: notice a change or make one, compile aside, swap once; refuse and roll back.

mod apply;
mod edit;
mod history;
mod watch;

pub(crate) use apply::{Ask, Reloader, Reply};
pub(crate) use edit::{Change, Edited};
pub(crate) use history::{History, unix_ms};
pub(crate) use watch::watch;
