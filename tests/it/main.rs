//! Integration tests, one binary.

mod admin;
mod cli;
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
mod readme;
mod running;
mod store_tools;
mod threats;
mod tidy;
mod vectors;
mod world;
