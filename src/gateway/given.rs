//! What the admin listener gets to see and to do. What the configuration says is asked of the one in force.

use std::sync::Arc;

use http::HeaderName;

use super::{Live, store_facts};
use crate::{
    admin::{
        self, Hidden, UpstreamStatus,
        api::{PendingSecretRow, SourceRow},
    },
    delivery::LaneStatus,
    event::EventId,
    ingress::{self, PendingSecret, SourceStatus},
    secret::Secret,
    time::Wall,
};

impl Live {
    /// For the listener at this address.
    pub(super) fn given(self: &Arc<Self>, listen: std::net::SocketAddr) -> admin::Given {
        let parts = &self.parts;
        let (lanes, pausing, gate) = (parts.lanes.clone(), parts.lanes.clone(), parts.gate.clone());
        let (signing, hiding, keying, anywhere) = (self.clone(), self.clone(), self.clone(), self.clone());
        let (tokens, state, reloading) = (self.clone(), self.clone(), self.clone());
        let standing = parts.gate.clone();
        let (pending, handing_over) = (parts.gate.pending().clone(), self.clone());
        admin::Given {
            listen,
            tokens: Box::new(move || tokens.running().admin.tokens.clone()),
            store: parts.store.clone(),
            health: parts.health.clone(),
            metrics: parts.metrics.clone(),
            clock: parts.clock.clone(),
            started_at: parts.clock.monotonic(),
            upstreams: Box::new(move || lanes.status().into_iter().map(upstream_status).collect()),
            store_facts: store_facts(&self.running().store),
            is_signature: Box::new(move |source, header| {
                let config = signing.running();
                let named =
                    |name: HeaderName| config.sources.get(source).is_some_and(|source| source.scheme.signs_with(&name));
                header.parse().is_ok_and(named)
            }),
            hidden_anywhere: Box::new(move || {
                Hidden::all(anywhere.running().sources.values().map(|source| Hidden::of(source)))
            }),
            hidden: Box::new(move |source| hiding.running().sources.get(source).map(|source| Hidden::of(source))),
            event_keys: Box::new(move |source, id| {
                let config = keying.running();
                let source =
                    config.sources.get(source).ok_or_else(|| format!("source `{source}` is not configured"))?;
                source.key_plan.event_keys_of_id(id).ok_or_else(|| {
                    let name = &source.name;
                    format!("the event key of source `{name}` is not one id of the provider, so that none leads to it")
                })
            }),
            set_paused: Box::new(move |name, pause| {
                let lanes = pausing.clone();
                Box::pin(async move { lanes.set_paused(&name, pause).await })
            }),
            reload: Box::new(move |request| {
                let live = reloading.clone();
                // To its end, even if who asked for it leaves.
                let work = tokio::spawn(async move { live.reload(request).await });
                Box::pin(
                    async move { work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) },
                )
            }),
            config: Box::new(move || state.state()),
            sources: Box::new(move || standing.sources().iter().map(source_row).collect()),
            pending_secrets: Box::new(move || {
                let (pending, config) = (pending.clone(), handing_over.running());
                Box::pin(async move {
                    let known = config.clone();
                    let in_use = move |name: &str, secret: &Secret| {
                        known.sources.get(name).is_some_and(|source| ingress::is_configured(source, secret))
                    };
                    let is_secret =
                        |name: &str| config.sources.get(name).is_none_or(|source| source.provider.captures());
                    let listed = tokio::task::spawn_blocking(move || pending.waiting(in_use)).await.ok()?;
                    let listed = listed.inspect_err(|error| tracing::warn!(%error, "failed to list pending secrets"));
                    Some(listed.ok()?.into_iter().map(|row| pending_row(row, is_secret)).collect())
                })
            }),
            forgotten: Arc::new(move |ids: &[EventId]| gate.forget(ids)),
            operations: parts.operations.clone(),
            failures: parts.failures.clone(),
        }
    }
}

fn pending_row(pending: PendingSecret, is_secret: impl Fn(&str) -> bool) -> PendingSecretRow {
    let PendingSecret { source, at, from, fingerprint, file } = pending;
    let file = file.display().to_string();
    let help = if is_secret(&source) {
        format!(
            "if you registered this endpoint just now, add secrets = [{{ file = \"{file}\" }}] to [sources.{source}] and \
             reload, else delete the file"
        )
    } else {
        "this provider verifies with public keys: if you registered this endpoint just now, confirm that at the provider \
         with the token in the file, then delete the file"
            .to_owned()
    };
    PendingSecretRow { source, at, from, fingerprint, file, help }
}

fn source_row(source: &SourceStatus) -> SourceRow {
    SourceRow {
        name: source.name.to_string(),
        refusals_in_a_row: source.refusals_in_a_row,
        disables_after: source.disables_after,
        unenforced_until: source.unenforced_until.map(Wall::rfc3339),
    }
}

fn upstream_status(lane: LaneStatus) -> UpstreamStatus {
    UpstreamStatus {
        name: lane.upstream,
        breaker: lane.breaker.name(),
        breaker_for: Some(lane.since),
        breaker_opened_total: Some(lane.opened_total),
        last_error: lane.last_failure,
        paused: lane.paused,
    }
}
