//! Integration tests, one binary.
mod delivery;
