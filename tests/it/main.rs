//! Integration tests, one binary.

mod admin;
mod cli;
mod clocks;
mod config;
mod counts;
mod crash;
mod delivery;
mod deploy;
mod disk;
mod end_to_end;
mod explain;
mod faults;
mod fuzz;
mod guard;
mod handshakes;
mod hostile;
mod modes;
mod powercut;
mod readme;
mod running;
mod store_tools;
mod threats;
mod tidy;
mod vectors;
mod volume;
mod world;
