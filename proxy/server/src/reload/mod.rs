//! Live reload: notice a change, compile aside, swap once; refuse and roll back.

mod apply;
mod history;
mod watch;

pub(crate) use apply::{Ask, Reloader, Reply};
pub(crate) use history::History;
pub(crate) use watch::watch;
