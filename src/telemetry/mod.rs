//! What is seen from outside: metrics and log lines. Labels and fields come from the configuration and from
//! closed sets in the code, never from requests.

mod metrics;

pub use metrics::Metrics;
