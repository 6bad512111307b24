//! Log lines: to stderr, as text for people or one JSON object a line.
//!
//! A logged value may come from a request, so whatever it holds, it stays one value on one line: control
//! characters are escaped, and in text a value that could pass for several fields is quoted.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
    panic,
    path::Path,
};

use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        FormatFields, MakeWriter,
        format::{JsonFields, Writer},
        time::FormatTime,
    },
};

use crate::{config::model::LogFormat, time::Clock};

/// Overrides the configured level; the same grammar.
pub const LEVEL_VARIABLE: &str = "HOOKWARD_LOG";

/// Panic messages are written by libraries, too, and some of them quote what they choke on.
const PANIC_MESSAGE_CHARS_MAX: usize = 200;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Neither a level nor a filter.
    #[error(
        "`{text}` ({place}) is not a log level: write error, warn, info, debug or trace, or a filter such as `info,hookward::delivery=debug`"
    )]
    Level {
        /// Where it was written.
        place: &'static str,
        /// As written.
        text: String,
    },
    /// Somebody was first.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the process, once. `level` is `error`, `warn`, `info`, `debug`, `trace` or a filter of
/// tracing-subscriber; the environment variable [`LEVEL_VARIABLE`] overrides it. A panic becomes one ERROR line.
pub fn init(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = filter(std::env::var(LEVEL_VARIABLE).ok(), level)?;
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty());
    let subscriber = subscriber(format, filter, ansi, io::stderr, Clock::system());
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn filter(variable: Option<String>, level: &str) -> Result<EnvFilter, LogError> {
    let (place, text) = match variable.filter(|text| !text.is_empty()) {
        Some(text) => (LEVEL_VARIABLE, text),
        None => ("[log] level", level.to_owned()),
    };
    EnvFilter::try_new(&text).map_err(|_| LogError::Level { place, text })
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    ansi: bool,
    to: W,
    clock: Clock,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_timer(Time(clock));
    match format {
        LogFormat::Text => Box::new(base.with_ansi(ansi).with_writer(to).fmt_fields(TextFields).finish()),
        LogFormat::Json => Box::new(
            base.with_ansi(false)
                .with_writer(EscapeJson(to))
                .fmt_fields(JsonFields::new())
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .finish(),
        ),
    }
}

fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let message: String = info.payload_as_str().unwrap_or("no message").chars().take(PANIC_MESSAGE_CHARS_MAX).collect();
    let place = info.location().map_or_else(
        || "an unknown place".to_owned(),
        |at| {
            let file = Path::new(at.file()).file_name().unwrap_or_default().to_string_lossy();
            format!("{file}:{}", at.line())
        },
    );
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    tracing::error!(target: "panic", place, thread, panic = message, "a step panicked: this is a bug in hookward");
}

/// The time of a line, from the one place that reads the clock.
struct Time(Clock);

impl FormatTime for Time {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&self.0.wall().rfc3339())
    }
}

/// `message key=value key="a value"`.
struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = TextLine { writer, began: false, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct TextLine<'w> {
    writer: Writer<'w>,
    began: bool,
    result: fmt::Result,
}

impl TextLine<'_> {
    fn put(&mut self, field: &Field, value: &str) {
        if self.result.is_ok() {
            self.result = self.try_put(field, value);
        }
    }
    fn try_put(&mut self, field: &Field, value: &str) -> fmt::Result {
        if std::mem::replace(&mut self.began, true) {
            self.writer.write_char(' ')?;
        }
        if field.name() == "message" {
            return escape_text(&mut self.writer, value);
        }
        write!(self.writer, "{}=", field.name())?;
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
        if !value.is_empty() && value.chars().all(plain) {
            return escape_text(&mut self.writer, value);
        }
        self.writer.write_char('"')?;
        escape_text(&mut self.writer, &value.replace('\\', "\\\\").replace('"', "\\\""))?;
        self.writer.write_char('"')
    }
}

impl Visit for TextLine<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.put(field, &text);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// Whether a character could move the cursor, end the line, or turn the order of the text around.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_text(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        if is_unsafe(c) { write!(out, "{}", c.escape_default())? } else { out.write_char(c)? }
    }
    Ok(())
}

/// `text` with everything escaped that could end a line or command a terminal; for what people read.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let _ = escape_text(&mut out, text);
    out
}

/// JSON leaves DEL and the control characters above 127 as they are; terminals do not.
struct EscapeJson<W>(W);

struct EscapedJson<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for EscapeJson<W> {
    type Writer = EscapedJson<W::Writer>;
    fn make_writer(&'w self) -> Self::Writer {
        EscapedJson(self.0.make_writer())
    }
}

impl<W: Write> Write for EscapedJson<W> {
    /// Gets whole lines: the subscriber writes each with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if text.chars().any(|c| c != '\n' && is_unsafe(c)) {
            let mut out = String::with_capacity(line.len() + 16);
            for c in text.chars() {
                // Inside a JSON document such a character can only stand inside a string.
                if c != '\n' && is_unsafe(c) {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                } else {
                    out.push(c);
                }
            }
            self.0.write_all(out.as_bytes())?;
        } else {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::time::Wall;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, body: impl FnOnce()) -> String {
        let captured = Captured::default();
        let to = captured.clone();
        let clock = Clock::starting_at(Wall::from_unix_s(1_700_000_000));
        let subscriber = subscriber(format, EnvFilter::new("info"), false, move || to.clone(), clock);
        tracing::subscriber::with_default(subscriber, body);
        let bytes = captured.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("lines are text")
    }

    #[derive(Debug, thiserror::Error)]
    #[error("failed\nto read")]
    struct Failed(#[source] io::Error);

    const NASTY: &str = "a\r\nINFO forged=1 \u{1b}[31mred\u{9b}2J\u{7f}\u{202e}\u{2028}\"x\\";

    fn log_nasty() {
        tracing::info_span!("step", inside = NASTY, shown = %NASTY).in_scope(|| {
            let error = Failed(io::Error::other("cause\u{1b}"));
            let error: &(dyn Error + 'static) = &error;
            tracing::info!(by_str = NASTY, by_display = %NASTY, by_debug = ?NASTY, error, "message {NASTY}");
        });
    }

    #[test]
    fn no_value_can_end_a_line_or_command_a_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = logged(format, log_nasty);
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.trim_end_matches('\n').chars().any(is_unsafe), "{line:?}");
        }
    }

    #[test]
    fn no_value_can_pass_for_another_field() {
        let line =
            logged(LogFormat::Text, || tracing::info!(id = %"1 code=accepted", empty = "", ok = "a-b/c:1", "done"));
        assert!(line.trim_end().ends_with(r#"done id="1 code=accepted" empty="" ok=a-b/c:1"#), "{line}");
        assert!(line.starts_with("2023-11-14T22:13:20."), "{line}");
    }

    #[test]
    fn json_keeps_every_value_exactly() {
        let line = logged(LogFormat::Json, log_nasty);
        let json: serde_json::Value = serde_json::from_str(&line).expect("one JSON object");
        assert_eq!(json["by_str"], NASTY);
        assert_eq!(json["by_display"], NASTY);
        assert_eq!(json["level"], "INFO");
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        let line = logged(LogFormat::Text, || {
            let error = Failed(io::Error::other("disk is gone"));
            tracing::error!(error = &error as &(dyn Error + 'static), "no");
        });
        assert!(line.contains(r#"error="failed\nto read: disk is gone""#), "{line}");
    }

    #[test]
    fn the_level_filters() {
        assert_eq!(logged(LogFormat::Text, || tracing::debug!("hidden")), "");
    }

    #[test]
    fn a_wrong_level_is_refused_with_its_place_and_what_to_write() {
        let error = filter(None, "hookward=shout").expect_err("not a level").to_string();
        assert!(error.contains("[log] level") && error.contains("write error, warn, info"), "{error}");
        let error = filter(Some("loud=shout".into()), "info").expect_err("not a level").to_string();
        assert!(error.contains(LEVEL_VARIABLE), "{error}");
    }

    #[test]
    fn the_environment_overrides_the_level_unless_it_is_empty() {
        assert_eq!(filter(Some("warn".into()), "info").expect("a level").to_string(), "warn");
        assert_eq!(filter(Some(String::new()), "info").expect("a level").to_string(), "info");
    }
}
