//! Integration tests, one binary.

mod admin;
mod config;
mod counts;
mod delivery;
mod deploy;
mod fuzz;
mod tidy;
mod vectors;
