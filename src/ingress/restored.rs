//! A store that was restored from a backup does not know what was accepted since then. What was signed before the
//! restore may be a copy of that, so it is not accepted as if it were new: its provider's next retry, signed anew, is.

use std::time::Duration;

use crate::{config::Config, time::Wall};

/// Whether a fresh claim may be of a webhook that the store had accepted and has lost.
pub(super) fn may_be_known(signed_at: Option<Wall>, restored_at: Option<Wall>) -> bool {
    signed_at.zip(restored_at).is_some_and(|(signed, restored)| signed <= restored)
}

/// Says which sources sign no time, as long as something signed before the restore could still come again there:
/// nothing can be told of it.
pub(super) fn warn_of_untimed(config: &Config, restored_at: Option<Wall>, now: Wall) {
    let Some(restored_at) = restored_at else { return };
    let sources = untimed(config, restored_at, now);
    if !sources.is_empty() {
        tracing::warn!(
            restored_at = %restored_at,
            sources = sources.join(", "),
            "the store was restored from a backup, and these sources sign no time: what they sent since that backup \
             was made is delivered again if it is sent again"
        );
    }
}

fn untimed(config: &Config, restored_at: Wall, now: Wall) -> Vec<&str> {
    let since =
        u64::try_from(now.unix_ns().saturating_sub(restored_at.unix_ns())).map_or(Duration::ZERO, Duration::from_nanos);
    let sources = config.sources.values();
    let concerned = sources.filter(|source| !source.scheme.is_timed() && since < source.key_plan.untimed_horizon);
    concerned.map(|source| &*source.name).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn untimed_sources_are_named_for_as_long_as_their_keys_would_have_been_known() {
        let source = |name: &str, provider: &str| {
            format!(
                "[sources.{name}]\nprovider = \"{provider}\"\nsecrets = [{{ value = \"the-secret-of-{name}\" }}]\n\
                 upstream = \"http://127.0.0.1:9/\"\n"
            )
        };
        let text = source("hub", "github") + &source("shop", "shopify") + &source("orders", "partssource");
        let loaded = config::from_text("a.toml", &text, Path::new("."));
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)));
        let restored_at = Wall::from_unix_s(1_700_000_000);
        let after = |seconds: i64| untimed(&config, restored_at, Wall::from_unix_s(1_700_000_000 + seconds));
        assert_eq!(after(0), ["hub", "shop"]);
        assert_eq!(after(-60), ["hub", "shop"], "a clock that went back");
        assert_eq!(after(7 * 86_400 - 1), ["hub", "shop"]);
        assert!(after(7 * 86_400).is_empty());
    }
}
