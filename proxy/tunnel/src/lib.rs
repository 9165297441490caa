//! The worker wire: one QUIC connection that a worker's agent dials, its control stream, and one
//! stream per upstream connection. Both ends, no policy.
//!
//! The agent dials ([`agent::connect`]), says [`Hello`] on the first stream, and is answered by
//! [`Welcome`] or [`Refused`]. From then on both send messages there; the schema is
//! `proto/tunnel.proto`. Each connection to the model server is a stream that the gateway opens
//! ([`gateway::Tunnel::open`]): a preamble of four bytes, then whatever HTTP, gRPC or WebSocket
//! says, both ways. What was certainly not delivered is told apart from what may have been:
//! [`is_undelivered`].

mod wire;

mod frame;

mod news;

mod preamble;

mod code;

mod error;

mod settings;

mod tls;

mod link;

mod stream;

mod splice;

pub mod gateway;

pub mod agent;

pub use code::CloseCode;
pub use error::{Error, Loss, Undelivered, is_undelivered, undelivered};
pub use news::{NewsPace, is_news};
pub use settings::{Congestion, Settings};
pub use splice::{Socket, SpliceEnd, Spliced, splice};
pub use stream::TunnelStream;
pub use tls::{ServerTls, Trust, certificates};
pub use wire::{
    Draining, Heartbeat, Hello, Model, ModelStats, Observed, ObservedModel, Peers, RefusalCode,
    Refused, Samples, Status, VERSION, VERSION_MIN, Welcome,
};
