//! Hookward, a receiver-side webhook gateway.

// In the order of their layers, lowest first: a module uses only modules above it in this list.
pub mod admin;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod document;
pub mod event;
pub mod gateway;
pub mod http;
pub mod ingress;
pub mod policy;
pub mod preset;
pub mod replay;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod verify;
