//! The gateway is killed, or its disk fails, at each sync of a whole life: opening, storing, leasing, settling, moving
//! the log, draining.
//!
//! strace does it to the real program; every test sees in strace's log that it was done.

mod cost;
mod errors;
mod kills;
mod run;
mod strace;
mod traces;
