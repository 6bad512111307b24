//! Integration tests, one binary.

mod deploy;
mod tidy;
