//! Policies, pure: values that are told the time and decide, and nothing else. They hold no lock, read no clock
//! and draw no random number.

pub mod breaker;
pub mod crowd;
pub mod rate;
pub mod retry;
pub mod routes;
pub mod streak;

pub use breaker::{Breaker, Circuit};
pub use rate::{Bucket, Rate};
pub use retry::{Next, Retry};
pub use routes::{Glob, Route, Routes};
