//! HTTP on both sides: the recipe for connections to us, the client for upstreams, and what headers pass.

pub mod client;
pub mod client_body;
pub mod connected;
mod connection;
mod course;
mod deadlined;
pub mod ended;
pub mod forwarded;
mod frames;
pub mod headers;
pub mod listener;
mod origin;
pub mod passed;
pub mod per_client;
pub mod proxy_protocol;
pub mod socket;
pub mod tls;
