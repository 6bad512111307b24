//! HTTP on both sides: the recipe for connections to us, the client for upstreams, and what headers pass.

pub mod client;
pub mod headers;
pub mod listener;
pub mod per_client;
