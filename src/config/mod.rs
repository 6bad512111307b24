//! The configuration: read with every problem at once, then one model that the rest sees.
//!
//! [`load`](load()) reads a file and what it includes; each table has its file here, which knows the table's keys,
//! defaults and rules; `rules` holds the whole together. Nothing stops at the first problem, and there is a
//! [`Config`] only if there is no error. [`Summary`] says what a configuration means, for people and programs.

mod bodies;
pub mod certificate;
mod client_cert;
mod diff;
mod encryption;
mod enforce;
#[cfg(test)]
mod example;
mod keys;
mod listeners;
mod load;
pub mod memory;
pub mod model;
mod networks;
mod order;
mod path;
mod proof;
mod providers;
mod public_url;
mod read;
mod remote_keys;
mod routes;
mod rules;
mod secrets;
mod server;
mod sources;
mod store;
mod summary;
mod upstreams;

pub use diff::{Change, Diff, Mark, diff};
pub use load::{
    Environment, Files, LoadOptions, Loaded, SecretNote, Secrets, SourceNote, from_text, from_text_with, load,
};
pub use memory::Memory;
pub use model::{Config, Source, Upstream};
pub use public_url::PublicUrl;
pub use remote_keys::RemoteKeys;
pub use summary::Summary;
