//! What is seen from outside: metrics, log lines, health. Labels and fields come from the configuration and from
//! closed sets in the code, never from requests.

mod clock_watch;
pub mod health;
pub mod log;
mod metrics;

pub use clock_watch::ClockWatch;
pub use health::Health;
pub use metrics::Metrics;
