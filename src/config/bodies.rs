//! What is kept and shown of bodies and headers: `store_body` and `redact` of a source.

use super::model::{Mode, Redact};
use crate::{
    document::{At, Section},
    preset::Locator,
};

/// Places that one source may redact; each is looked for in every body that is shown.
const REDACT_MAX: usize = 64;

pub(super) fn read_store_body(section: &mut Section<'_>, mode: Mode) -> bool {
    let store_body = section.read::<bool>("store_body");
    if let Some(at) = store_body.as_ref().filter(|at| !at.value && mode == Mode::Proxy) {
        let message = "`store_body` has no effect in mode \"proxy\": no body is stored there anyway";
        section.problems().warn(&at.place, message, "take it out");
    }
    store_body.is_none_or(|at| at.value)
}

pub(super) fn read_redact(section: &mut Section<'_>) -> Redact {
    const HELP: &str = "write redact = [\"/customer/email\", \"header:x-customer\"]";
    let mut redact = Redact::default();
    let Some(value) = section.value("redact") else { return redact };
    let seen = value.clone();
    let items = value.list();
    if items.as_ref().is_some_and(|items| items.is_empty() || items.len() > REDACT_MAX) {
        seen.error(format!("`redact` must name 1 to {REDACT_MAX} places"), HELP);
    }
    for item in items.unwrap_or_default() {
        let place = item.place().clone();
        let Some(at) = item.get::<Locator>().map(|value| At { value, place }) else { continue };
        let is_new = match &at.value {
            Locator::Json(pointer) => !redact.pointers.contains(pointer),
            Locator::Header(name) => !redact.headers.contains(name),
            Locator::Form(_) => {
                seen.problems().error(&at.place, "a form field cannot be redacted by itself", HELP);
                continue;
            }
        };
        if !is_new {
            seen.problems().error(&at.place, "this place stands in `redact` twice", "once is enough");
            continue;
        }
        match at.value {
            Locator::Json(pointer) => redact.pointers.push(pointer),
            Locator::Header(name) => redact.headers.push(name),
            Locator::Form(_) => {}
        }
    }
    redact
}

impl Redact {
    /// Whether what stands there is hidden, by itself or with what it is a part of.
    pub fn hides(&self, place: &Locator) -> bool {
        match place {
            Locator::Header(name) => self.headers.contains(name),
            Locator::Form(_) => false,
            Locator::Json(pointer) => self.pointers.iter().any(|hidden| {
                pointer.strip_prefix(hidden.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
        }
    }
}
