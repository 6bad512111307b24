//! `hookward store` with stores that the engine wrote: damage, backups of a store that is at work, restored ones.

mod copies;
mod flips;
mod log_flips;
mod sample;
mod whole;
