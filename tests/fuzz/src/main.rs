//! Fuzz targets of the parsers of untrusted bytes: libFuzzer, guided by coverage. One binary; `FUZZ_TARGET` names the
//! target. Each holds what a parser says against an oracle: another parser, a model, or a rule that always holds.
//!
//! `run` builds it and runs it.
#![no_main]

// The lowest layers of the gateway, in their order, compiled into this crate so that they are instrumented and the rest
// is not built.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/document/mod.rs"]
mod document;
#[allow(dead_code)]
#[path = "../../../src/event.rs"]
mod event;
#[allow(dead_code, unused_imports)]
#[path = "../../../src/preset/mod.rs"]
mod preset;
#[allow(dead_code)]
#[path = "../../../src/secret.rs"]
mod secret;
#[allow(dead_code)]
#[path = "../../../src/time.rs"]
mod time;
#[allow(dead_code, unused_imports)]
#[path = "../../../src/verify/mod.rs"]
mod verify;

mod config;
mod given;
mod targets;
mod wire;

use std::sync::LazyLock;

/// The target of this process.
static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = targets::ALL.iter().find(|(name, _)| *name == wanted);
    found
        .unwrap_or_else(|| panic!("FUZZ_TARGET is {wanted:?}, and not one of {:?}", targets::ALL.map(|(name, _)| name)))
        .1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
