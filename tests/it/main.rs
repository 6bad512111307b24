//! Integration tests, one binary.

mod vectors;
mod delivery;
