//! Integration tests, one binary.

mod admin;
mod counts;
mod delivery;
mod deploy;
mod fuzz;
mod tidy;
mod vectors;
