//! `hookward events`.

mod redeliver;
mod show;

use std::{fmt::Write as _, num::NonZeroUsize, process::ExitCode};

use super::{
    admin::{Connect, Gateway, query},
    print::{confirm, print, print_json, size, table},
};
use crate::admin::api::{DeliveryRow, Done, EventPage, EventRow};

/// Look at the events of a running gateway, and repair.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward events list --state dead --since 1d
  hookward events show 019604a1-…
  hookward events redeliver --state dead --upstream orders
  hookward events release 019604a1-…

The gateway is found by -c FILE, or HOOKWARD_ADMIN_URL and HOOKWARD_ADMIN_TOKEN_FILE.")]
pub(super) struct Args {
    // Boxed, because its flags are many times those of most commands.
    #[command(subcommand)]
    command: Box<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List events, newest first.
    #[command(after_help = "Examples:
  hookward events list --state held              what waits for you
  hookward events list --source partssource --since 2026-11-21T08:00:00Z --until 1h
  hookward events list --attempt-id 7c1f… --json")]
    List(List),
    /// Show one event: its headers, deliveries, attempts and body.
    #[command(after_help = "Examples:
  hookward events show 019604a1-…
  hookward events show 019604a1-… --body > body.json     the exact bytes")]
    Show(show::Show),
    /// Send events again: those named, or those that match.
    #[command(after_help = "Examples:
  hookward events redeliver 019604a1-…
  hookward events redeliver 019604a1-… --to audit        to this upstream only
  hookward events redeliver --state dead --since 1d      every dead delivery, after a question
  hookward events redeliver --source gains --until 1h --to orders --rate 20 --yes

With --state or --upstream, only the deliveries that match are sent again, not the others of the same event.")]
    Redeliver(redeliver::Redeliver),
    /// Let held events go to their upstreams: stale ones, and conflicts.
    #[command(after_help = "Examples:
  hookward events list --state held              what is held, and why
  hookward events release 019604a1-…")]
    Release(Named),
    /// Free the keys of events, so that the same webhook is accepted anew.
    ///
    /// The events stay; when the provider sends one again, it becomes another event.
    #[command(after_help = "Example:
  hookward events forget 019604a1-…")]
    Forget(Named),
    /// Remove events with their keys, deliveries and history, for good.
    #[command(after_help = "Example:
  hookward events purge 019604a1-… --yes")]
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// At most this many, up to 500.
    #[arg(long, value_name = "N", default_value = "50")]
    limit: NonZeroUsize,
    /// Go on where a page ended.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Which events: everything given must hold.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Which events")]
struct Filter {
    /// Of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// With a delivery to this upstream.
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// With a delivery in this state: due, leased, delivered, held, parked, dead.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Of this type, exactly.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Received since then: 2026-11-21T08:00:00Z, or how long ago: 90m, 2d.
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Received before then.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// With this attempt id of the provider.
    #[arg(long, value_name = "ID")]
    attempt_id: Option<String>,
}

impl Filter {
    fn parameters(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("source", &self.source),
            ("upstream", &self.upstream),
            ("state", &self.state),
            ("type", &self.event_type),
            ("since", &self.since),
            ("until", &self.until),
            ("attempt_id", &self.attempt_id),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
    async fn page(&self, gateway: &Gateway, limit: usize, cursor: Option<&str>) -> anyhow::Result<EventPage> {
        let limit = limit.to_string();
        let mut parameters = self.parameters();
        parameters.push(("limit", &limit));
        parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
        gateway.get(&format!("/api/v1/events{}", query(&parameters))).await
    }
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Ids, as `events list` shows them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Args)]
struct Purge {
    #[command(flatten)]
    named: Named,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match *args.command {
        Command::List(args) => list(&args).await?,
        Command::Show(args) => show::run(&args).await?,
        Command::Redeliver(args) => redeliver::run(&args).await?,
        Command::Release(args) => each(&args, "release").await?,
        Command::Forget(args) => each(&args, "forget").await?,
        Command::Purge(args) => {
            let question = format!("Purge {} for good?", plural(args.named.ids.len() as u64, "event"));
            if !confirm(&question, args.yes)? {
                return Ok(ExitCode::from(super::FAILED));
            }
            each(&args.named, "purge").await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &List) -> anyhow::Result<()> {
    let gateway = Gateway::new(&args.connect)?;
    let page = args.filter.page(&gateway, args.limit.get(), args.cursor.as_deref()).await?;
    if args.json { print_json(&page) } else { print(&render(&page)) }
}

fn render(page: &EventPage) -> String {
    if page.events.is_empty() {
        return "no events\n".to_owned();
    }
    let head = ["ID", "RECEIVED", "SOURCE", "TYPE", "DELIVERIES", "COPIES", "SIZE"];
    let row = |event: &EventRow| {
        vec![
            event.id.clone(),
            event.received_at.clone(),
            event.source.clone(),
            event.event_type.clone().unwrap_or_else(|| "-".to_owned()),
            deliveries_summary(&event.deliveries),
            event.copies.to_string(),
            size(event.body_bytes),
        ]
    };
    let mut out = table(&head, &page.events.iter().map(row).collect::<Vec<_>>());
    if let Some(cursor) = &page.next_cursor {
        let _ = writeln!(out, "more: --cursor {cursor}");
    }
    out
}

/// `orders dead (status 410), audit delivered`.
fn deliveries_summary(deliveries: &[DeliveryRow]) -> String {
    let one = |delivery: &DeliveryRow| {
        let reason = delivery.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{} {}{reason}", delivery.upstream, delivery.state)
    };
    if deliveries.is_empty() { "-".to_owned() } else { deliveries.iter().map(one).collect::<Vec<_>>().join(", ") }
}

async fn each(args: &Named, action: &str) -> anyhow::Result<()> {
    let gateway = Gateway::new(&args.connect)?;
    for id in &args.ids {
        let done: Done = gateway.post(&event_path(id, action), None).await?;
        let text = match action {
            "release" => format!("{id}: {} released", plural(done.count, "delivery")),
            "forget" => format!("{id}: {} freed", plural(done.count, "key")),
            _ => format!("{id}: purged"),
        };
        print(&format!("{text}\n"))?;
    }
    Ok(())
}

/// Whatever was typed stays one segment of the path.
fn event_path(id: &str, what: &str) -> String {
    let id = super::admin::segment(id);
    if what.is_empty() { format!("/api/v1/events/{id}") } else { format!("/api/v1/events/{id}/{what}") }
}

fn plural(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y').filter(|stem| !stem.ends_with('e'))) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u8, deliveries: Vec<DeliveryRow>) -> EventRow {
        EventRow {
            id: format!("01960000-0000-7000-8000-{number:012}"),
            received_at: "2026-11-21T08:00:00.000Z".into(),
            source: "partssource".into(),
            provider: "partssource".into(),
            event_type: Some("order.created\u{1b}[2J".into()),
            attempt_id: None,
            verified: "hmac-sha256/main".into(),
            duplicate_of: None,
            conflict_of: None,
            body_bytes: 2048,
            copies: 1,
            deliveries,
        }
    }

    fn delivery(upstream: &str, state: &str, reason: Option<&str>) -> DeliveryRow {
        DeliveryRow {
            upstream: upstream.into(),
            state: state.into(),
            reason: reason.map(Into::into),
            attempts: 1,
            due_in_ms: None,
            history: Vec::new(),
        }
    }

    #[test]
    fn a_page_is_a_table_that_says_how_to_go_on() {
        let deliveries = vec![delivery("orders", "dead", Some("status 410")), delivery("audit", "delivered", None)];
        let page = EventPage {
            events: vec![event(2, deliveries), event(1, vec![])],
            next_cursor: Some("01960000-0000-7000-8000-000000000001".into()),
        };
        insta::assert_snapshot!(render(&page), @r"
        ID                                    RECEIVED                  SOURCE       TYPE                    DELIVERIES                                 COPIES  SIZE
        01960000-0000-7000-8000-000000000002  2026-11-21T08:00:00.000Z  partssource  order.created\u{1b}[2J  orders dead (status 410), audit delivered  1       2.0 KiB
        01960000-0000-7000-8000-000000000001  2026-11-21T08:00:00.000Z  partssource  order.created\u{1b}[2J  -                                          1       2.0 KiB
        more: --cursor 01960000-0000-7000-8000-000000000001
        ");
    }

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(event_path("../status?x", "purge"), "/api/v1/events/..%2Fstatus%3Fx/purge");
    }

    #[test]
    fn words_have_plurals() {
        assert_eq!([plural(1, "key"), plural(2, "key"), plural(0, "delivery")].join(" "), "1 key 2 keys 0 deliveries");
    }
}
