//! Rules over the whole configuration. The start fails closed: what could lose, leak or accept too much is an
//! error unless the file says that it is meant.

use std::sync::Arc;

use super::{
    load::Reader,
    memory::{Counted, IN_DELIVERY_BYTES, Memory, largest_body},
    model::{Engine, Limits, ListenAt, Mode, Replay, Store},
    path,
    server::ServerRead,
    sources::Draft,
    upstreams::UpstreamRead,
};
use crate::document::format_duration;

/// Everything that was read.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    pub(super) server: &'a ServerRead,
    pub(super) store: &'a Store,
    pub(super) accept_loss: bool,
    pub(super) replay: &'a Replay,
    pub(super) drafts: &'a [Draft],
    pub(super) upstreams: &'a [UpstreamRead],
}

pub(super) fn check(reader: &Reader<'_>, whole: &Whole<'_>) {
    listeners(reader, whole);
    paths(reader, whole);
    client_certificates(reader, whole);
    modes(reader, whole);
    shared_secrets(reader, whole);
    memory(reader, whole);
    upstreams(reader, whole);
}

fn listeners(reader: &Reader<'_>, whole: &Whole<'_>) {
    let (server, admin) = (&whole.server.server, &whole.server.admin);
    let place = whole.server.admin_place.as_ref().or(whole.server.listen_place.as_ref());
    let public = || server.listeners.iter().map(|listener| &listener.at);
    let is_admin = |at: &ListenAt| *at == ListenAt::Tcp(admin.listen) && admin.listen.port() != 0;
    if let Some(place) = place.filter(|_| public().any(is_admin)) {
        reader.problems.error(
            place,
            format!("`server.listen` and `admin.listen` are both {}", admin.listen),
            "give the admin listener a port of its own",
        );
    }
    if public().all(ListenAt::is_local) && admin.listen.ip().is_loopback() {
        return;
    }
    for place in reader.change_me.borrow().iter() {
        reader.problems.error(
            place,
            "this secret still contains \"change-me\", and a listener can be reached from elsewhere",
            "replace it; examples are for listeners on 127.0.0.1 only",
        );
    }
}

fn paths(reader: &Reader<'_>, whole: &Whole<'_>) {
    for (i, draft) in whole.drafts.iter().enumerate() {
        if let Some(first) = whole.drafts[..i].iter().find(|first| path::overlap(&first.path.text, &draft.path.text)) {
            let what = if first.path.text == draft.path.text { "have the path" } else { "would both match" };
            reader.problems.error(
                &draft.path_place,
                format!(
                    "two sources {what} \"{}\": `{}`, and `{}` at {}",
                    draft.path.text,
                    draft.name,
                    first.name,
                    reader.problems.locate(&first.path_place)
                ),
                "give each a path of its own",
            );
        }
        // Both listeners answer these themselves.
        for probe in ["/livez", "/readyz"] {
            if path::overlap(probe, &draft.path.text) {
                let message = format!("path \"{probe}\" is Hookward's own: health probes are answered there");
                reader.problems.error(&draft.path_place, message, "give the source another path");
            }
        }
        if let Some(health) = &whole.server.server.health_path
            && path::overlap(health, &draft.path.text)
        {
            reader.problems.error(
                whole.server.health_place.as_ref().unwrap_or(&draft.path_place),
                format!("health probes and source `{}` have the path \"{health}\"", draft.name),
                "change one of them; health_path = \"\" turns the probe off",
            );
        }
    }
}

fn client_certificates(reader: &Reader<'_>, whole: &Whole<'_>) {
    if whole.server.server.listeners.iter().any(|listener| listener.tls.is_some()) {
        return;
    }
    for draft in whole.drafts {
        if draft.source.as_ref().is_some_and(|source| source.client_cert.is_some()) {
            reader.problems.error(
                draft.client_cert_place.as_ref().unwrap_or(&draft.path_place),
                format!("source `{}` wants certificates of clients, and no listener has TLS", draft.name),
                "add tls = { cert = \"tls.crt\", key = \"tls.key\" } to [server]: a proxy that ends TLS passes no proof on",
            );
        }
    }
}

fn modes(reader: &Reader<'_>, whole: &Whole<'_>) {
    for draft in whole.drafts {
        if draft.mode == Mode::Proxy {
            if draft.upstreams.len() > 1 {
                reader.problems.error(
                    &draft.mode_place,
                    "mode \"proxy\" needs exactly one upstream: its answer is the answer",
                    "use \"respond\", whose first upstream answers, or \"queue\"",
                );
            }
        } else if whole.store.engine == Engine::Memory && !whole.accept_loss {
            reader.problems.error(
                &draft.mode_place,
                format!(
                    "mode \"{}\" acknowledges what it stored, and store.engine = \"memory\" loses it with the process",
                    draft.mode.name()
                ),
                "use store.engine = \"sqlite\" or mode = \"proxy\"; or set store.accept_loss = true",
            );
        }
    }
}

fn shared_secrets(reader: &Reader<'_>, whole: &Whole<'_>) {
    for (i, draft) in whole.drafts.iter().enumerate() {
        for (key, place) in &draft.keys {
            let others =
                whole.drafts[..i].iter().filter(|other| !(draft.allow_shared_secret && other.allow_shared_secret));
            let same = others.flat_map(|other| other.keys.iter().map(move |(key, place)| (other, key, place)));
            let first =
                same.filter(|(_, other, _)| other.matches(key.expose())).map(|(other, _, at)| (other, at)).next();
            if let Some((other, at)) = first {
                reader.problems.error(
                    place,
                    format!("source `{}` has this secret too, at {}", other.name, reader.problems.locate(at)),
                    "what is signed for one would pass at the other; use two, or set allow_shared_secret = true at both",
                );
            }
        }
    }
}

/// Sources that share a secret share the scope of their replay keys: that of the first in the alphabet.
pub(super) fn share_replay_scopes(drafts: &mut [Draft]) {
    let share = |a: &Draft, b: &Draft| {
        a.keys.iter().any(|(key, _)| b.keys.iter().any(|(other, _)| other.matches(key.expose())))
    };
    let mut group: Vec<usize> = (0..drafts.len()).collect();
    for i in 0..drafts.len() {
        for j in 0..i {
            if share(&drafts[i], &drafts[j]) {
                let (from, to) = (group[i], group[j]);
                group.iter_mut().filter(|of| **of == from).for_each(|of| *of = to);
            }
        }
    }
    let scopes: Vec<Option<Arc<str>>> = (0..drafts.len())
        .map(|i| {
            let members = drafts.iter().zip(&group).filter(|(_, of)| **of == group[i]);
            members.filter_map(|(draft, _)| Some(draft.source.as_ref()?.key_plan.scope.clone())).min()
        })
        .collect();
    for (draft, scope) in drafts.iter_mut().zip(scopes) {
        if let Some((source, scope)) = draft.source.as_mut().zip(scope) {
            source.key_plan.replay_scope = scope;
        }
    }
}

/// Lowers the concurrency that nobody chose, so that the largest bodies of the sources fit into [`IN_DELIVERY_BYTES`]: a
/// provider whose bodies may have 25 MiB must not take the memory of all, and most of them are small.
pub(super) fn fit_concurrency(upstreams: &mut [UpstreamRead], drafts: &[Draft], limits: &Limits) {
    for at in upstreams.iter_mut().filter(|at| !at.has_concurrency) {
        let sources = drafts.iter().filter_map(|draft| draft.source.as_ref());
        let most = (IN_DELIVERY_BYTES / largest_body(&at.upstream, sources, limits).max(1)).max(1);
        at.upstream.concurrency = at.upstream.concurrency.min(usize::try_from(most).unwrap_or(usize::MAX));
    }
}

/// Lowers the number of connections that nobody chose, so that the sum fits.
pub(super) fn fit_connections(
    server: &mut ServerRead,
    store: &Store,
    replay: &Replay,
    drafts: &[Draft],
    upstreams: &[UpstreamRead],
) {
    if !server.has_connections_max {
        let fitting = Memory::connections(&counted(server, store, replay, drafts, upstreams));
        server.limits.connections_max = fitting;
        server.server.limits.connections_max = fitting;
    }
}

fn counted<'c>(
    server: &'c ServerRead,
    store: &'c Store,
    replay: &'c Replay,
    drafts: &'c [Draft],
    upstreams: &'c [UpstreamRead],
) -> Counted<'c> {
    Counted {
        listeners: &server.server.listeners,
        limits: &server.limits,
        store,
        replay,
        sources: drafts.iter().filter_map(|draft| draft.source.as_ref()).collect(),
        upstreams: upstreams.iter().map(|at| &at.upstream).collect(),
    }
}

fn memory(reader: &Reader<'_>, whole: &Whole<'_>) {
    let counted = counted(whole.server, whole.store, whole.replay, whole.drafts, whole.upstreams);
    let Some((message, help)) = Memory::sum(&counted).complaint() else { return };
    match &whole.server.memory_place {
        Some(place) => reader.problems.error(place, message, help),
        None => reader.problems.error_anywhere(message, help),
    }
}

fn upstreams(reader: &Reader<'_>, whole: &Whole<'_>) {
    let problems = reader.problems;
    for at in whole.upstreams {
        let upstream = &at.upstream;
        let users: Vec<&Draft> = whole.drafts.iter().filter(|draft| draft.targets.contains(&*upstream.name)).collect();
        if users.is_empty() {
            problems.warn(
                &at.place,
                format!("upstream `{}` is used by no source", upstream.name),
                "name it in `upstream` of a source, or take it out",
            );
        }
        let host = upstream.url.host().unwrap_or("").trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if upstream.url.scheme_str() == Some("http") && !is_local {
            problems.warn(
                &at.url_place,
                format!("events travel to {host} unencrypted"),
                "use https, or a proxy on this machine that speaks it",
            );
        }
        let public = whole.server.server.listeners.iter().map(|listener| listener.at.to_string());
        let mut own = public.chain([whole.server.admin.listen.to_string()]);
        if upstream.url.authority().is_some_and(|a| own.any(|listen| a.as_str() == listen)) {
            problems.error(
                &at.url_place,
                "this upstream is Hookward's own listener",
                "events would go round in a circle",
            );
        }

        let spans = users.iter().filter(|draft| draft.mode != Mode::Proxy);
        let longest = spans
            .filter_map(|draft| Some((draft.source.as_ref()?.provider.sender.retry_span?, draft)))
            .max_by_key(|(span, _)| *span);
        if let Some((span, draft)) = longest.filter(|(span, _)| *span > upstream.retry.give_up_after) {
            problems.warn(
                at.retry_place.as_ref().unwrap_or(&at.place),
                format!(
                    "upstream `{}` is given up on after {}, while the provider of `{}` itself would have tried for {}",
                    upstream.name,
                    format_duration(upstream.retry.give_up_after),
                    draft.name,
                    format_duration(span)
                ),
                "make retry.for longer: an outage that the provider would have survived makes dead letters",
            );
        }
        let timed: Vec<&str> =
            users.iter().filter(|draft| draft.timed && draft.mode != Mode::Proxy).map(|draft| &*draft.name).collect();
        if !timed.is_empty() && upstream.signing_secret.is_none() {
            problems.warn(
                &at.place,
                format!(
                    "if `{}` verifies timestamps of {} itself, it refuses what was queued for longer than their tolerance",
                    upstream.name,
                    timed.join(", ")
                ),
                "set signing_secret: then each attempt is signed anew, as Standard Webhooks",
            );
        }
    }
}
