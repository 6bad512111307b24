//! Integration tests, one binary.

mod counts;
mod deploy;
mod fuzz;
mod tidy;
