//! What reads and cleans headers of the wire, compiled into this crate as the lower layers are.

#[allow(dead_code)]
#[path = "../../../src/http/connected.rs"]
pub mod connected;
#[path = "../../../src/http/forwarded.rs"]
pub mod forwarded;
#[allow(dead_code)]
#[path = "../../../src/http/headers.rs"]
pub mod headers;
#[path = "../../../src/http/proxy_protocol.rs"]
pub mod proxy_protocol;
