//! The events API: list, show, download, and what an operator can do.

use base64ct::{Base64, Encoding as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    Admin,
    access::Caller,
    answer::{self, Answer, Problem},
    api::{BodyPreview, Done, EventDetail, EventPage, EventRow, HeaderRow},
    query,
    route::Action,
};
use crate::{
    event::EventId,
    store::{Direction, Shown, StoreError},
    verify::encode_hex,
};

const REDACTED: &str = "redacted";

/// Parts of header names that smell of a credential. A source that is gone cannot say any more which of its
/// headers were signatures, and one too many redacted is no loss: the event itself keeps them.
const TELLTALE: [&str; 10] =
    ["signature", "hmac", "authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "jwt"];

pub(super) async fn list(admin: &Admin, query: Option<&str>) -> Result<Answer, Problem> {
    let (filter, limit) = query::filter(query, admin.clock.wall())?;
    let page = admin.store.list(filter, Direction::NewestFirst, limit).await.map_err(|error| store_problem(&error))?;
    let next_cursor = page.next.map(|next| next.to_string());
    let events = page
        .events
        .iter()
        .map(|listed| EventRow::new(&listed.head, listed.body_bytes, listed.copies, &listed.deliveries))
        .collect();
    Ok(answer::json(StatusCode::OK, &EventPage { events, next_cursor }))
}

pub(super) async fn show(admin: &Admin, id: EventId) -> Result<Answer, Problem> {
    let Shown { event, deliveries, .. } = find(admin, id).await?;
    let head = &event.head;
    let headers = head.headers.iter().map(|(name, value)| HeaderRow {
        name: name.clone(),
        value: if is_credential(admin, &head.source, name) {
            REDACTED.to_owned()
        } else {
            String::from_utf8_lossy(value).into_owned()
        },
    });
    let detail = EventDetail {
        event: EventRow::new(head, event.body.len() as u64, event.copies, &deliveries),
        method: head.method.clone(),
        query: head.query.clone(),
        client: head.client.address.clone(),
        host: head.client.host.clone(),
        proto: head.client.proto.clone(),
        traceparent: head.traceparent.clone(),
        headers: headers.collect(),
        body: preview(&event.body),
    };
    Ok(answer::json(StatusCode::OK, &detail))
}

/// The exact bytes, as a download that no browser will ever render.
pub(super) async fn body(admin: &Admin, id: EventId) -> Result<Answer, Problem> {
    let event = find(admin, id).await?.event;
    let mut answer = answer::bytes(event.body.bytes().clone(), HeaderValue::from_static("application/octet-stream"));
    let name = format!("attachment; filename=\"{id}.bin\"");
    let name = HeaderValue::try_from(name).expect("an id is hexadecimal digits and hyphens");
    answer.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(answer)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeliver {
    upstream: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Does it, and writes it to the audit log, done or not.
pub(super) async fn act(
    admin: &Admin,
    caller: Caller,
    action: Action,
    id: EventId,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Problem> {
    let done = try_act(admin, action, id, headers, body).await;
    let (name, by) = (action.name(), caller);
    match &done {
        Ok((count, upstream)) => {
            tracing::info!(target: "audit", action = name, event = %id, upstream, count, %by, "an operator changed an event");
        }
        Err(problem) => {
            let code = problem.code();
            tracing::info!(target: "audit", action = name, event = %id, code, %by, "an operator could not change an event");
        }
    }
    let (count, _) = done?;
    Ok(answer::json(StatusCode::OK, &Done { id: id.to_string(), action: name.to_owned(), count }))
}

async fn try_act(
    admin: &Admin,
    action: Action,
    id: EventId,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(u64, Option<String>), Problem> {
    let store = &admin.store;
    let mut upstream = None;
    if action == Action::Redeliver {
        upstream = read::<Redeliver>(headers, body)?.upstream;
        check_upstream(admin, upstream.as_deref())?;
    } else {
        let Nothing {} = read(headers, body)?;
    }
    let count = match action {
        Action::Redeliver => store.redeliver(id, upstream.as_deref()).await.map(u64::from),
        Action::Release => store.release(id).await.map(u64::from),
        Action::Forget => store.forget(id).await,
        Action::Purge => store.purge(id).await.map(|()| 1),
    };
    if count.is_ok() && matches!(action, Action::Forget | Action::Purge) {
        (admin.forgotten)(id);
    }
    match count {
        // Forgetting twice is fine: the keys are free, which is what was asked.
        Ok(0) if action != Action::Forget => Err(nothing_to_do(action)),
        Ok(count) => Ok((count, upstream)),
        Err(StoreError::NotFound) => {
            // The store says so too when there is an event but nothing of it in a state that fits.
            find(admin, id).await?;
            Err(nothing_to_do(action))
        }
        Err(error) => Err(store_problem(&error)),
    }
}

/// Reads the JSON of a change. What a form of another site could send is refused by its content type.
fn read<T: Default + for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        let help = "send `content-type: application/json`, or no body";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "content_type", "the body is not said to be JSON", help));
    }
    serde_json::from_slice(body).map_err(|error| {
        let help = "redeliver takes {\"upstream\": \"<name>\"}, the others nothing";
        Problem::new(StatusCode::BAD_REQUEST, "body_malformed", format!("failed to read the body: {error}"), help)
    })
}

/// The store would make a delivery to any name; one that nobody serves would wait for ever.
fn check_upstream(admin: &Admin, upstream: Option<&str>) -> Result<(), Problem> {
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
            "one that is leased ends by itself; one that is held wants `release`",
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

fn store_problem(error: &StoreError) -> Problem {
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
            "run `hookward store verify`; it says what is damaged and what to do",
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
    TELLTALE.iter().any(|part| header.contains(part))
        || header.ends_with("-sig")
        || (admin.is_signature)(source, header)
}

fn preview(body: &[u8]) -> BodyPreview {
    let beginning = &body[..body.len().min(BodyPreview::BYTES_MAX)];
    let truncated = beginning.len() < body.len();
    let (encoding, content) = match std::str::from_utf8(beginning) {
        Ok(text) => ("utf-8", text.to_owned()),
        // A character that the cut went through does not make the body binary.
        Err(error) if truncated && error.error_len().is_none() => {
            ("utf-8", String::from_utf8_lossy(&beginning[..error.valid_up_to()]).into_owned())
        }
        Err(_) => ("base64", Base64::encode_string(beginning)),
    };
    BodyPreview {
        bytes: body.len() as u64,
        sha256: encode_hex(&Sha256::digest(body)),
        encoding: encoding.to_owned(),
        content,
        truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_text_where_it_can_be_and_bounded() {
        let text = preview("grüße".as_bytes());
        assert_eq!((text.encoding.as_str(), text.content.as_str(), text.truncated), ("utf-8", "grüße", false));

        let binary = preview(&[0xff, 0, 1]);
        assert_eq!((binary.encoding.as_str(), binary.content.as_str()), ("base64", "/wAB"));

        // The last character of the preview is cut in two.
        let long = format!("{}ü more", "x".repeat(BodyPreview::BYTES_MAX - 1));
        let cut = preview(long.as_bytes());
        assert_eq!((cut.encoding.as_str(), cut.truncated), ("utf-8", true));
        assert_eq!(cut.content.len(), BodyPreview::BYTES_MAX - 1);
        assert_eq!(cut.bytes, long.len() as u64);

        let ends_in_half_a_character = preview(b"abc\xc3");
        assert_eq!(ends_in_half_a_character.encoding, "base64");
    }

    #[test]
    fn the_digest_is_that_of_the_whole_body() {
        assert_eq!(preview(b"abc").sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
