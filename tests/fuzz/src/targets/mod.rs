//! The targets, one a file.

mod form;
mod forwarded;
mod header;
mod hygiene;
mod json;
mod jwt;
mod preset;
mod proxy;
mod template;
mod time;

/// All of them, by name.
pub const ALL: [(&str, fn(&[u8])); 10] = [
    ("header", header::run),
    ("template", template::run),
    ("json", json::run),
    ("jwt", jwt::run),
    ("form", form::run),
    ("preset", preset::run),
    ("time", time::run),
    ("forwarded", forwarded::run),
    ("hygiene", hygiene::run),
    ("proxy", proxy::run),
];
