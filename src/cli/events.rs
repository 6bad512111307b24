//! `hookward events`.

mod change;
mod show;

use std::{fmt::Write as _, process::ExitCode};

use super::{
    admin::{Connect, Gateway, query},
    print::{print, print_json, size, table},
};
use crate::admin::api::{DeliveryRow, EventFilter, EventPage, EventRow};

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
  hookward events list --source stripe --key evt_1NG8Du2eZvKYlo2CUI79vXWy
  hookward events list --json-pointer /data/order --json-value 4711 --since 7d
  hookward events list --attempt-id 7c1f… --json")]
    List(List),
    /// Show one event: its headers, deliveries, attempts, keys and body.
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

With a filter the gateway does it; Ctrl-C stops the watching only. `hookward operations` shows how far it is.
With --state or --upstream, only the deliveries that match are sent again, not the others of the same event.")]
    Redeliver(change::Redeliver),
    /// Let held events go to their upstreams: stale ones, and conflicts.
    #[command(after_help = "Examples:
  hookward events list --state held              what is held, and why
  hookward events release 019604a1-…
  hookward events release --state held --source gains")]
    Release(change::Change),
    /// Free the keys of events, so that the same webhook is accepted anew.
    ///
    /// The events stay; when the provider sends one again, it becomes another event.
    #[command(after_help = "Examples:
  hookward events forget 019604a1-…
  hookward events forget --source gains --since 1h")]
    Forget(change::Change),
    /// Remove events with their keys, deliveries and history, for good.
    #[command(after_help = "Examples:
  hookward events purge 019604a1-… --yes
  hookward events purge --state dead --until 30d")]
    Purge(change::Change),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// At most this many, up to 500.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Oldest first.
    #[arg(long)]
    oldest: bool,
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
    /// With a delivery in this state: due, leased, delivered, held, parked, dead; or unrouted, without any.
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
    /// This one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// With this key, as `events show` lists it; with --source also the provider's own id of the event.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// With --json-value at this place of the body: /data/id.
    #[arg(long, value_name = "POINTER", requires = "json_value")]
    json_pointer: Option<String>,
    /// A string without its quotes, the digits of an integer, true, false.
    #[arg(long, value_name = "VALUE", requires = "json_pointer")]
    json_value: Option<String>,
}

impl Filter {
    fn filter(&self) -> EventFilter {
        EventFilter {
            source: self.source.clone(),
            upstream: self.upstream.clone(),
            state: self.state.clone(),
            event_type: self.event_type.clone(),
            since: self.since.clone(),
            until: self.until.clone(),
            attempt_id: self.attempt_id.clone(),
            id: self.id.clone(),
            key: self.key.clone(),
            json_pointer: self.json_pointer.clone(),
            json_value: self.json_value.clone(),
        }
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match *args.command {
        Command::List(args) => list(&args).await?,
        Command::Show(args) => show::run(&args).await?,
        Command::Redeliver(args) => return change::redeliver(&args).await,
        Command::Release(args) => return change::run(change::Action::Release, &args).await,
        Command::Forget(args) => return change::run(change::Action::Forget, &args).await,
        Command::Purge(args) => return change::run(change::Action::Purge, &args).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &List) -> anyhow::Result<()> {
    let gateway = Gateway::new(&args.connect)?;
    let page = collect(&gateway, args).await?;
    if args.json { print_json(&page) } else { print(&render(&page)) }
}

/// A page may be short although the list goes on: where bodies are searched, each call looks at a part of them.
async fn collect(gateway: &Gateway, args: &List) -> anyhow::Result<EventPage> {
    let filter = args.filter.filter();
    let mut whole = EventPage { events: Vec::new(), next_cursor: args.cursor.clone() };
    loop {
        let limit = (usize::from(args.limit) - whole.events.len()).to_string();
        let mut parameters: Vec<_> =
            filter.parts().into_iter().filter_map(|(name, part)| Some((name, part.as_deref()?))).collect();
        parameters.push(("limit", &limit));
        parameters.extend(args.oldest.then_some(("order", "oldest")));
        parameters.extend(whole.next_cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: EventPage = gateway.get(&format!("/api/v1/events{}", query(&parameters))).await?;
        whole.events.extend(page.events);
        whole.next_cursor = page.next_cursor;
        if whole.next_cursor.is_none() || whole.events.len() >= usize::from(args.limit) {
            return Ok(whole);
        }
    }
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
        // Who waits, and for whom, have the same key.
        let order = delivery.order_key.as_ref().filter(|_| delivery.state != "delivered");
        let order = order.map(|key| format!("in order of {key}"));
        let why: Vec<_> = delivery.reason.iter().chain(&order).cloned().collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
        format!("{} {}{why}", delivery.upstream, delivery.state)
    };
    if deliveries.is_empty() {
        "unrouted".to_owned()
    } else {
        deliveries.iter().map(one).collect::<Vec<_>>().join(", ")
    }
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
            order_key: None,
            history: Vec::new(),
        }
    }

    #[test]
    fn a_page_is_a_table_that_says_how_to_go_on() {
        let in_order = |delivery| DeliveryRow { order_key: Some("7".into()), ..delivery };
        let deliveries =
            vec![delivery("orders", "dead", Some("status 410")), in_order(delivery("audit", "delivered", None))];
        let page = EventPage {
            events: vec![
                event(3, vec![in_order(delivery("orders", "due", Some("waits for its turn")))]),
                event(2, deliveries),
                event(1, vec![]),
            ],
            next_cursor: Some("01960000-0000-7000-8000-000000000001".into()),
        };
        insta::assert_snapshot!(render(&page), @r"
        ID                                    RECEIVED                  SOURCE       TYPE                    DELIVERIES                                      COPIES  SIZE
        01960000-0000-7000-8000-000000000003  2026-11-21T08:00:00.000Z  partssource  order.created\u{1b}[2J  orders due (waits for its turn, in order of 7)  1       2.0 KiB
        01960000-0000-7000-8000-000000000002  2026-11-21T08:00:00.000Z  partssource  order.created\u{1b}[2J  orders dead (status 410), audit delivered       1       2.0 KiB
        01960000-0000-7000-8000-000000000001  2026-11-21T08:00:00.000Z  partssource  order.created\u{1b}[2J  unrouted                                        1       2.0 KiB
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
