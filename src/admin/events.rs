//! The events API: list, show, download, and what an operator can do.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::{
    Admin,
    access::Caller,
    answer::{self, Answer, Problem},
    api::{self, Done, EventDetail, EventPage, EventRow, HeaderRow, KeyRow, REDACTED, to_ms},
    audit::Entry,
    filter,
    query::{self, ListQuery},
    redact,
    route::Action,
};
use crate::{
    event::EventId,
    store::{Direction, Filter, Shown, StoreError},
    verify::{Key, encode_hex},
};

/// Parts of header names that smell of a credential. A source that is gone cannot say any more which of its
/// headers were signatures, and one too many redacted is no loss: the event itself keeps them.
const TELLTALE: [&str; 10] =
    ["signature", "hmac", "authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "jwt"];

pub(super) async fn list(admin: &Admin, caller: Caller, query: Option<&str>) -> Result<Answer, Problem> {
    let ListQuery { filter, direction, limit, cursor } = query::list(query)?;
    let mut filter = filter::to_store(&filter::freeze(admin, caller, filter).await?)?;
    match direction {
        Direction::NewestFirst => filter.before = cursor,
        Direction::OldestFirst => filter.after = cursor,
    }
    let page = admin.store.list(filter, direction, limit).await.map_err(|error| store_problem(&error))?;
    let next_cursor = page.next.map(|next| next.to_string());
    let events = page.events.iter().map(|listed| {
        let hidden = (admin.hidden)(&listed.head.source);
        EventRow::new(&listed.head, listed.body_bytes, listed.copies, &listed.deliveries, hidden.as_ref())
    });
    Ok(answer::json(StatusCode::OK, &EventPage { events: events.collect(), next_cursor }))
}

pub(super) async fn show(admin: &Admin, caller: Caller, id: EventId) -> Result<Answer, Problem> {
    let Shown { event, deliveries, keys, body_removed } = find(admin, id).await?;
    let head = &event.head;
    let hidden = (admin.hidden)(&head.source);
    let may_operate = caller.may_operate();
    let may_see_all = may_operate || hidden.as_ref().is_some_and(|rule| rule.pointers.is_empty());
    let may_see_keys = may_operate || hidden.as_ref().is_some_and(redact::Hidden::is_empty);
    let hides_header = |name: &str| hidden.as_ref().is_some_and(|rule| rule.has_header(name));
    let unless_hidden = |header: &str, text: &str| if hides_header(header) { REDACTED } else { text }.to_owned();
    let body = match &hidden {
        _ if body_removed => redact::withheld(0, None, "it was removed once it was delivered"),
        Some(rule) => redact::preview(&event.body, &rule.pointers, may_see_all),
        None if may_see_all => redact::preview(&event.body, &[], true),
        None => redact::withheld(
            event.body.len(),
            None,
            "its source is not configured any more: nobody knows what to redact",
        ),
    };
    let headers = head.headers.iter().map(|(name, value)| HeaderRow {
        name: name.clone(),
        value: if is_credential(admin, &head.source, name) || hides_header(name) {
            REDACTED.to_owned()
        } else {
            String::from_utf8_lossy(value).into_owned()
        },
    });
    let key = |(key, lives): (Key, Duration)| KeyRow { key: encode_hex(&key.0), lives_ms: to_ms(lives) };
    let body_bytes = if body_removed { received_bytes(admin, id).await? } else { event.body.len() as u64 };
    let detail = EventDetail {
        event: EventRow::new(head, body_bytes, event.copies, &deliveries, hidden.as_ref()),
        method: head.method.clone(),
        query: head.query.clone(),
        client: head.client.address.clone(),
        host: unless_hidden("host", &head.client.host),
        proto: head.client.proto.clone(),
        traceparent: unless_hidden("traceparent", &head.traceparent),
        headers: headers.collect(),
        keys: if may_see_keys { keys.into_iter().map(key).collect() } else { Vec::new() },
        body_removed,
        body,
    };
    Ok(answer::json(StatusCode::OK, &detail))
}

/// The length of a body that is not there any more.
async fn received_bytes(admin: &Admin, id: EventId) -> Result<u64, Problem> {
    let filter = Filter { id: Some(id), ..Filter::default() };
    let page = admin.store.list(filter, Direction::NewestFirst, 1).await.map_err(|error| store_problem(&error))?;
    Ok(page.events.first().map_or(0, |listed| listed.body_bytes))
}

/// The exact bytes, as a download that no browser will ever render. Where something of them is redacted, only an
/// operator gets them, and the audit log says so.
pub(super) async fn body(admin: &Admin, caller: Caller, id: EventId) -> Result<Answer, Problem> {
    let shown = find(admin, id).await?;
    let source = &shown.event.head.source;
    if (admin.hidden)(source).is_none_or(|rule| !rule.pointers.is_empty()) {
        let refused = (!caller.may_operate()).then(|| {
            let help =
                "GET /api/v1/events/{id} shows what may be seen; for all of it, use a token whose role is \"operate\"";
            Problem::new(StatusCode::FORBIDDEN, "role_too_low", "this token may not see the whole body", help)
        });
        let entry = Entry { action: "body", event: Some(id), by: Some(caller), ..Entry::default() };
        entry.write(refused.as_ref());
        refused.map_or(Ok(()), Err)?;
    }
    if shown.body_removed {
        let help = "set store_body = true at its source to keep bodies after delivery";
        let detail = "the body of this event was removed once it was delivered";
        return Err(Problem::new(StatusCode::GONE, "body_removed", detail, help));
    }
    let body = shown.event.body.bytes().clone();
    let mut answer = answer::bytes(body, HeaderValue::from_static("application/octet-stream"));
    let name = format!("attachment; filename=\"{id}.bin\"");
    let name = HeaderValue::try_from(name).expect("an id is hexadecimal digits and hyphens");
    answer.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(answer)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeliver {
    #[serde(default, deserialize_with = "api::present")]
    upstream: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Does it to one event.
pub(super) async fn act(
    admin: &Admin,
    entry: &mut Entry,
    action: Action,
    id: EventId,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Problem> {
    let store = &admin.store;
    if action == Action::Redeliver {
        entry.upstream = read::<Redeliver>(headers, body)?.upstream;
        check_upstream(admin, entry.upstream.as_deref())?;
    } else {
        let Nothing {} = read(headers, body)?;
    }
    let count = match action {
        Action::Redeliver => store.redeliver(id, entry.upstream.as_deref()).await.map(u64::from),
        Action::Release => store.release(id).await.map(u64::from),
        Action::Forget => store.forget(id).await,
        Action::Purge => store.purge(id).await.map(|()| 1),
    };
    if count.is_ok() && matches!(action, Action::Forget | Action::Purge) {
        (admin.forgotten)(&[id]);
    }
    let count = match count {
        // Forgetting twice is fine: the keys are free, which is what was asked.
        Ok(0) if action != Action::Forget => return Err(nothing_to_do(action)),
        Ok(count) => count,
        Err(StoreError::NotFound) => {
            // The store says so too when there is an event but nothing of it in a state that fits.
            find(admin, id).await?;
            return Err(nothing_to_do(action));
        }
        Err(error) => return Err(store_problem(&error)),
    };
    entry.count = Some(count);
    Ok(answer::json(StatusCode::OK, &Done { id: id.to_string(), action: action.name().to_owned(), count }))
}

/// Reads the JSON of a change. What a form of another site could send is refused by its content type.
pub(super) fn read<T: Default + for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { read_needed(headers, body) }
}

/// As [`read`], of a change that has to say something.
pub(super) fn read_needed<T: for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        let help = "send `content-type: application/json`";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "content_type", "the body is not said to be JSON", help));
    }
    let malformed = |why: &str| {
        let help = "GET /api/v1/openapi.json says what a change takes";
        Problem::new(StatusCode::BAD_REQUEST, "body_malformed", format!("failed to read the body: {why}"), help)
    };
    // A list of the values would be taken for an object by its types.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(malformed("it is no JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))
}

/// The store would make a delivery to any name; one that nobody serves would wait for ever.
pub(super) fn check_upstream(admin: &Admin, upstream: Option<&str>) -> Result<(), Problem> {
    let Some(upstream) = upstream else { return Ok(()) };
    let known = (admin.upstreams)();
    if known.iter().any(|known| &*known.name == upstream) {
        return Ok(());
    }
    let names: Vec<_> = known.iter().map(|known| &*known.name).collect();
    let detail = format!("upstream `{upstream}` is not configured");
    let help = format!("configured are: {}", names.join(", "));
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "upstream_unknown", detail, help))
}

fn nothing_to_do(action: Action) -> Problem {
    let (detail, help) = match action {
        Action::Redeliver => (
            "no delivery of this event can be made due",
            "one that is leased ends by itself; one that is held wants `release`, and an unrouted event an upstream: `--to`",
        ),
        Action::Release => ("no delivery of this event is held", "to send a delivered or dead one again, `redeliver`"),
        Action::Forget | Action::Purge => {
            ("a delivery of this event is being tried right now", "try again in a moment")
        }
    };
    Problem::new(StatusCode::CONFLICT, "state_conflict", detail, help)
}

async fn find(admin: &Admin, id: EventId) -> Result<Shown, Problem> {
    admin.store.show(id).await.map_err(|error| store_problem(&error))
}

pub(super) fn store_problem(error: &StoreError) -> Problem {
    match error {
        StoreError::NotFound => Problem::new(
            StatusCode::NOT_FOUND,
            "event_unknown",
            "there is no such event",
            "it may have been purged, or swept after its retention; GET /api/v1/events lists what there is",
        ),
        StoreError::LeaseLost => Problem::new(
            StatusCode::CONFLICT,
            "state_conflict",
            "a delivery of this event changed meanwhile",
            "look at it again",
        ),
        StoreError::BodyRemoved => Problem::new(
            StatusCode::CONFLICT,
            "body_removed",
            "the body of this event was removed once it was delivered",
            "set store_body = true at its source if events have to be delivered again",
        ),
        StoreError::Damaged(_) => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "damaged",
            error.to_string(),
            "it says what is damaged, and what to do",
        ),
        StoreError::KeyMissing(_) => {
            unavailable("key_missing", error, "add that key to store.encryption, behind the one in use")
        }
        StoreError::Full(_) => unavailable("store_full", error, "make room: purge events, or raise disk_bytes_max"),
        StoreError::Unavailable(_) => unavailable("store_unavailable", error, "try again; the log says more"),
        StoreError::Poisoned(_) => unavailable("store_broken", error, "look at the disk, then restart hookward"),
    }
}

fn unavailable(code: &'static str, error: &StoreError, help: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string(), help)
}

fn is_credential(admin: &Admin, source: &str, header: &str) -> bool {
    is_telltale(header) || (admin.is_signature)(source, header)
}

/// Whether a header's name says that it is a credential, or a signature.
pub(super) fn is_telltale(header: &str) -> bool {
    TELLTALE.iter().any(|part| header.contains(part)) || header.ends_with("-sig")
}
