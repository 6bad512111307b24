//! Integration tests, one binary.

mod admin;
mod config;
mod counts;
mod crash;
mod delivery;
mod deploy;
mod end_to_end;
mod fuzz;
mod guard;
mod hostile;
mod modes;
mod threats;
mod tidy;
mod vectors;
mod world;
