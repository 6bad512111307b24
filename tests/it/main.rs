//! Integration tests, one binary.

mod admin;
mod cli;
mod config;
mod counts;
mod delivery;
mod deploy;
mod end_to_end;
mod fuzz;
mod readme;
mod running;
mod tidy;
mod vectors;
mod world;
