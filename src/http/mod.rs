//! HTTP on the wire: what enters, what leaves, and with which headers.

pub mod client;
pub mod headers;
