//! The configuration: read with every problem at once, then one model that the rest sees.

pub mod model;

pub use model::{Config, Source, Upstream};
