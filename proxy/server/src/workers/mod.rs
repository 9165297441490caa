//! Model servers that dial in: which of them count, what they serve, how they are asked.
//!
//! In reading order: [`listen`] (the address they dial), [`beside`] (where that is served),
//! [`session`] (one worker from hello to
//! loss), [`registry`] (who is there), [`pool`] (who serves one model), [`seat`] (a worker in a
//! pool), [`observed`] and [`report`] (what is told to and by a worker), [`dial`] (a connection
//! through a tunnel).

pub(crate) mod beside;
pub(crate) mod dial;
pub(crate) mod listen;
pub(crate) mod observed;
pub(crate) mod pool;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod seat;
pub(crate) mod session;
