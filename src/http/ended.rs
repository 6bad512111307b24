//! Why connections end: a closed set, for the metric that tells a flood from a slow network.

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The client had no more to say, or left; or it was the last answer on this connection.
    Done,
    /// What came is not HTTP, or breaks its rules.
    Protocol,
    /// Nothing came on a new connection.
    FirstByte,
    /// The head of a request did not come in time.
    Head,
    /// No request for a while.
    Idle,
    /// The client did not read its answer in time.
    Write,
    /// It had lasted long enough.
    Age,
    /// It had served enough requests.
    Requests,
    /// More came than any request explains.
    Flood,
    /// No TLS, or not in time.
    Tls,
    /// No header of the PROXY protocol, not in time, or from somebody who may not send one.
    ProxyProtocol,
    /// It had one of the places that are kept for health probes when all others are taken.
    Crowded,
    /// Clients have to show something else by now than it was let in for.
    Terms,
    /// The gateway stops.
    Drain,
}

impl Ended {
    /// As the metric and the log say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Protocol => "protocol",
            Self::FirstByte => "first_byte",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Write => "write",
            Self::Age => "age",
            Self::Requests => "requests",
            Self::Flood => "flood",
            Self::Tls => "tls",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Crowded => "crowded",
            Self::Terms => "terms",
            Self::Drain => "drain",
        }
    }
}
