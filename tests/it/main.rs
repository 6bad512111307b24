//! Integration tests, one binary.

mod admin;
mod config;
mod counts;
mod delivery;
mod deploy;
mod end_to_end;
mod fuzz;
mod hostile;
mod threats;
mod tidy;
mod vectors;
mod world;
