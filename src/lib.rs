#![doc = include_str!("ARCHITECTURE.md")]

// In the order of their layers, lowest first: a module uses only modules above it in this list.
pub mod time;
pub mod secret;
pub mod files;
pub mod document;
pub mod verify;
pub mod policy;
pub mod event;
pub mod preset;
pub mod config;
pub mod telemetry;
pub mod store;
pub mod replay;
pub mod http;
pub mod delivery;
pub mod ingress;
pub mod admin;
pub mod gateway;
pub mod cli;
