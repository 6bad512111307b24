//! What a connection says of its peer, before any request does.

use std::{net::IpAddr, sync::Arc};

/// The peer of a connection. Each request carries it in its extensions, shared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Connected {
    /// Its address; that of the PROXY protocol if the listener speaks it. `None`: a Unix socket, or a proxy that speaks
    /// for itself.
    pub address: Option<IpAddr>,
    /// Whether it came by a Unix socket: whoever is there may say for whom it speaks.
    pub is_unix: bool,
    /// What TLS showed; `None` for plaintext.
    pub tls: Option<Session>,
}

/// What a TLS handshake showed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Session {
    /// The client's certificate, and what it sent with it, in DER. The handshake proved that the client has the key of
    /// the first; nothing else of it is proven.
    pub client_chain: Option<Arc<[Box<[u8]>]>>,
}
