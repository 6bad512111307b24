//! HTTP on both sides: the recipe for connections to us, the client for upstreams, and what headers pass.

pub mod client;
pub mod connected;
mod connection;
mod deadlined;
pub mod forwarded;
pub mod headers;
pub mod listener;
pub mod passed;
pub mod per_client;
pub mod socket;
