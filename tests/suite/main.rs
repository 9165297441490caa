//! The suite: a real gateway, real sockets, and model servers that can misbehave.
