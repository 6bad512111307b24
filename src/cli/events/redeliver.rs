//! `hookward events redeliver`.

use std::time::Duration;

use anyhow::bail;
use clap::{CommandFactory as _, error::ErrorKind};
use tokio::time::{MissedTickBehavior, interval};

use super::{Filter, event_path, plural};
use crate::{
    admin::api::{Done, EventRow},
    cli::{
        admin::{Connect, Gateway},
        print::{confirm, print},
    },
    telemetry::log::escaped,
};

/// Kept in memory while they are counted.
const EVENTS_MAX: usize = 100_000;
const PAGE: usize = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Redeliver {
    /// Ids, as `events list` shows them; instead of a filter.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only to this upstream, even if the event never went there.
    #[arg(long, value_name = "UPSTREAM")]
    to: Option<String>,
    /// Events a second, at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    connect: Connect,
}

/// One event to send again: to this upstream, or to all of its own.
#[derive(PartialEq, Eq, Debug)]
struct Order {
    id: String,
    upstream: Option<String>,
}

pub(super) async fn run(args: &Redeliver) -> anyhow::Result<()> {
    let by_filter = !args.filter.parameters().is_empty();
    let by_id = !args.ids.is_empty();
    if by_filter == by_id {
        wrong_usage("give ids or a filter such as --state dead, and not both");
    }
    let gateway = Gateway::new(&args.connect)?;
    let to = args.to.as_deref();
    if by_id {
        let orders = args.ids.iter().map(|id| Order { id: id.clone(), upstream: args.to.clone() }).collect();
        return send(&gateway, orders, args.rate).await;
    }

    let events = find(&gateway, &args.filter).await?;
    let orders: Vec<_> = events.iter().flat_map(|event| orders(event, &args.filter, to)).collect();
    if orders.is_empty() {
        return print("no events match\n");
    }
    let where_to = to.map_or_else(|| "their upstreams".to_owned(), |to| format!("`{}`", escaped(to)));
    let question = format!("{} to redeliver to {where_to}.", plural(orders.len() as u64, "matching delivery"));
    eprintln!("{question}");
    if !confirm("Go on?", args.yes)? {
        bail!("nothing was redelivered");
    }
    send(&gateway, orders, args.rate).await
}

/// Ends as clap does, with the usage of this command.
fn wrong_usage(message: &str) -> ! {
    let mut all = crate::cli::Cli::command();
    all.build();
    let redeliver = all.find_subcommand_mut("events").and_then(|events| events.find_subcommand_mut("redeliver"));
    redeliver.expect("it is this command").error(ErrorKind::ArgumentConflict, message).exit()
}

async fn find(gateway: &Gateway, filter: &Filter) -> anyhow::Result<Vec<EventRow>> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = filter.page(gateway, PAGE, cursor.as_deref()).await?;
        found.extend(page.events);
        if found.len() > EVENTS_MAX {
            bail!("more than {EVENTS_MAX} events match: narrow the filter, for example with --since and --until");
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

/// What a filter says about deliveries holds for what is sent, too: an event whose one delivery is dead and whose
/// other was delivered is not sent to both.
fn orders(event: &EventRow, filter: &Filter, to: Option<&str>) -> Vec<Order> {
    let order = |upstream: Option<&str>| Order { id: event.id.clone(), upstream: upstream.map(ToOwned::to_owned) };
    if to.is_some() || (filter.state.is_none() && filter.upstream.is_none()) {
        return vec![order(to)];
    }
    let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    let matching =
        event.deliveries.iter().filter(|d| fits(&filter.state, &d.state) && fits(&filter.upstream, &d.upstream));
    matching.map(|delivery| order(Some(&delivery.upstream))).collect()
}

/// Sends them all; what fails is told and does not stop the rest.
async fn send(gateway: &Gateway, orders: Vec<Order>, rate: Option<u32>) -> anyhow::Result<()> {
    let mut pace = rate.map(|rate| {
        let mut pace = interval(Duration::from_secs(1) / rate);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    });
    let (mut armed, mut failed) = (0, 0);
    for Order { id, upstream } in &orders {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let body = upstream.as_ref().map(|upstream| serde_json::json!({ "upstream": upstream }).to_string());
        match gateway.post::<Done>(&event_path(id, "redeliver"), body).await {
            Ok(done) => armed += done.count,
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error:#}", escaped(id));
            }
        }
    }
    print(&format!("{} due again\n", plural(armed, "delivery")))?;
    if failed > 0 {
        bail!("{failed} of {} could not be redelivered", orders.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::DeliveryRow;

    fn event(deliveries: &[(&str, &str)]) -> EventRow {
        let deliveries = deliveries.iter().map(|(upstream, state)| DeliveryRow {
            upstream: (*upstream).into(),
            state: (*state).into(),
            reason: None,
            attempts: 1,
            due_in_ms: None,
            history: Vec::new(),
        });
        EventRow {
            id: "e".into(),
            received_at: String::new(),
            source: String::new(),
            provider: String::new(),
            event_type: None,
            attempt_id: None,
            verified: String::new(),
            duplicate_of: None,
            conflict_of: None,
            body_bytes: 0,
            copies: 0,
            deliveries: deliveries.collect(),
        }
    }

    fn to(filter: &Filter, to: Option<&str>) -> Vec<Option<String>> {
        let event = event(&[("orders", "dead"), ("audit", "delivered"), ("mail", "dead")]);
        orders(&event, filter, to).into_iter().map(|order| order.upstream).collect()
    }

    #[test]
    fn only_the_deliveries_that_match_are_sent_again() {
        let dead = Filter { state: Some("dead".into()), ..Filter::default() };
        assert_eq!(to(&dead, None), [Some("orders".to_owned()), Some("mail".to_owned())]);
        let audit = Filter { upstream: Some("audit".into()), ..Filter::default() };
        assert_eq!(to(&audit, None), [Some("audit".to_owned())]);
        let both = Filter { upstream: Some("audit".into()), state: Some("dead".into()), ..Filter::default() };
        assert_eq!(to(&both, None), [] as [Option<String>; 0]);
    }

    #[test]
    fn without_a_word_about_deliveries_all_are_and_with_one_upstream_that_one() {
        let source = Filter { source: Some("gains".into()), ..Filter::default() };
        assert_eq!(to(&source, None), [None]);
        let dead = Filter { state: Some("dead".into()), ..Filter::default() };
        assert_eq!(to(&dead, Some("new")), [Some("new".to_owned())]);
    }
}
