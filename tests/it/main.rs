//! Integration tests, one binary.

mod admin;
mod delivery;
mod vectors;
