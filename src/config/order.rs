//! `order_by` and `on_block` of a source.

use super::model::{Mode, OrderBy, Redact};
use crate::{
    document::{Place, Section},
    preset::Locator,
    verify::Scheme,
};

const ON_BLOCK_HELP: &str = "write on_block = \"wait\", or on_block = { dead_letter_after = 5 }";
/// More attempts than any retry schedule makes.
const DEAD_LETTER_AFTER_MAX: u32 = 10_000;

pub(super) fn read(section: &mut Section<'_>, mode: Mode, scheme: Option<&Scheme>, redact: &Redact) -> Option<OrderBy> {
    let problems = section.problems();
    let given = section.has("order_by");
    let at = section.read::<Locator>("order_by");
    let on_block_place = section.peek_place("on_block");
    let dead_letter_after = read_on_block(section);
    if let Some(place) = on_block_place.filter(|_| !given) {
        let help = "add order_by = \"/data/id\", or take `on_block` out: nothing waits for another event";
        problems.error(&place, "`on_block` is set and `order_by` is not", help);
    }
    let at = at?;
    if mode == Mode::Proxy {
        problems.error(
            &at.place,
            "`order_by` in mode \"proxy\": each request goes to the upstream as it comes, and none is kept waiting",
            "use mode \"queue\" or \"respond\", or take it out",
        );
    }
    if redact.hides(&at.value) {
        problems.error(
            &at.place,
            "`order_by` reads what `redact` hides: the key is stored beside the event, and shown",
            "order by another value that tells the same things apart",
        );
    }
    if let (Locator::Header(name), Some(scheme)) = (&at.value, scheme) {
        if scheme.consumes(name) {
            problems.error(
                &at.place,
                format!("`order_by`: the header `{name}` holds the credential, which is the same for every event"),
                "name the value that tells apart what has to stay in order",
            );
        } else if scheme.is_signed() && !scheme.signs_header(name) {
            warn_unsigned(section, &at.place, name.as_str());
        }
    }
    Some(OrderBy { at: at.value, dead_letter_after })
}

fn warn_unsigned(section: &Section<'_>, place: &Place, header: &str) {
    section.problems().warn(
        place,
        format!("`order_by`: this provider does not sign the header `{header}`"),
        "who gets hold of a webhook before it arrives could change its order, but lose nothing; a JSON pointer is signed with the body",
    );
}

/// `"wait"` or `{ dead_letter_after = N }`.
fn read_on_block(section: &mut Section<'_>) -> Option<u32> {
    let value = section.value("on_block")?;
    if value.as_text() == Some("wait") {
        return None;
    }
    if !value.is_table() {
        value.error("`on_block` is neither \"wait\" nor a table", ON_BLOCK_HELP);
        return None;
    }
    let mut section = value.section()?;
    let after = section.required::<u32>("dead_letter_after", ON_BLOCK_HELP);
    if let Some(at) = after.as_ref().filter(|at| !(1..=DEAD_LETTER_AFTER_MAX).contains(&at.value)) {
        section.problems().error(
            &at.place,
            format!("`dead_letter_after` must be from 1 to {DEAD_LETTER_AFTER_MAX}"),
            "it counts attempts; \"wait\" goes on until the event is given up on by its age",
        );
    }
    section.finish();
    after.map(|at| at.value)
}
