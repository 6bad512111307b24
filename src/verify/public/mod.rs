//! Public-key signatures.
