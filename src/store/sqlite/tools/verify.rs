//! Whether a store is what was written: its pages, its schema, the seal of every row and body, and whether the tables
//! agree with each other.

mod agree;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, Row, types::ValueRef};

use super::{
    super::{
        format::SCHEMA,
        open::LOCK,
        seal::{self, TABLES, Table},
    },
    Progress, Source, ToolError, log, log_of,
};
use crate::{event::EventId, verify::encode_hex};

/// What is told in full; the rest is counted.
const TOLD_MAX: usize = 1000;
/// Complaints of `PRAGMA integrity_check`.
const PAGE_COMPLAINTS_MAX: u32 = 100;
/// Rows between two calls of `progress`.
const ROWS_PER_STEP: u64 = 1000;

/// What is true of a store.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// What was looked at.
    pub checked: Vec<Checked>,
    /// What is wrong, or the first thousand of it.
    pub damage: Vec<Damage>,
    /// Pages at the end of the log that hold no whole commit, where no gateway is at work: they were being written when
    /// the process ended, or they are damaged.
    pub unreadable_log_pages: u64,
}

/// What was looked at: a table, or the pages of the file.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// Its name.
    pub table: &'static str,
    /// How many there are.
    pub rows: u64,
    /// How much is wrong with them.
    pub damaged: u64,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where.
    pub table: &'static str,
    /// Which row of it; nothing for what concerns the whole.
    pub row: String,
    /// Which event it belongs to, where that can be told.
    pub event: Option<EventId>,
    /// Which upstream it belongs to, where that can be told.
    pub upstream: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.checked.iter().all(|checked| checked.damaged == 0)
    }
}

/// Verifies a store, or a backup of one.
pub fn verify(place: &Path, progress: Progress<'_>) -> Result<Report, ToolError> {
    let source = Source::open(place)?;
    let report = Report { path: source.path.clone(), checked: Vec::new(), damage: Vec::new(), unreadable_log_pages: 0 };
    let database = ToolError::database(&source.path);
    let mut verifier = Verifier { connection: &source.connection, report, progress, done: 0, all: 0 };
    verifier.all = verifier.estimate();
    verifier.check("pages", Verifier::pages).map_err(&database)?;
    for table in TABLES {
        verifier.check(table.name, |verifier, checked| verifier.seals(table, checked)).map_err(&database)?;
    }
    verifier.check("bodies", Verifier::bodies).map_err(&database)?;
    for (table, sql) in agree::STATEMENTS {
        verifier.check(table, |verifier, checked| verifier.agreement(table, sql, checked)).map_err(&database)?;
    }
    let mut report = verifier.report;
    report.unreadable_log_pages = unreadable_log(&report.path).map_err(ToolError::file(&log_of(&report.path)))?;
    Ok(report)
}

struct Verifier<'a> {
    connection: &'a Connection,
    report: Report,
    progress: Progress<'a>,
    done: u64,
    all: u64,
}

impl Verifier<'_> {
    /// Rows to be read, as the store counts them. For the progress only, so it may be wrong.
    fn estimate(&self) -> u64 {
        let sum = "SELECT (SELECT sum(n) FROM totals) + (SELECT n FROM totals WHERE what = 'events')
            + (SELECT coalesce(sum(n), 0) FROM counts)";
        self.connection.query_row(sum, [], |row| row.get(0)).unwrap_or(0)
    }

    /// Runs a part. What cannot be read is damage; what hinders reading is not.
    fn check(
        &mut self,
        table: &'static str,
        run: impl FnOnce(&mut Self, &mut Checked) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let at = self.report.checked.iter().position(|checked| checked.table == table);
        let mut checked = at.map_or(Checked { table, rows: 0, damaged: 0 }, |at| self.report.checked[at]);
        match run(self, &mut checked) {
            Err(error) if is_hindrance(&error) => return Err(error),
            Err(error) => {
                let what = format!("cannot be read to its end: {error}");
                self.complain(&mut checked, Damage { table, row: String::new(), event: None, upstream: None, what });
            }
            Ok(()) => {}
        }
        match at {
            Some(at) => self.report.checked[at] = checked,
            None => self.report.checked.push(checked),
        }
        Ok(())
    }

    fn complain(&mut self, checked: &mut Checked, damage: Damage) {
        checked.damaged += 1;
        // Two checks may find the same.
        if self.report.damage.len() < TOLD_MAX && !self.report.damage.contains(&damage) {
            self.report.damage.push(damage);
        }
    }

    fn step(&mut self, checked: &mut Checked) {
        checked.rows += 1;
        self.done += 1;
        if self.done.is_multiple_of(ROWS_PER_STEP) {
            (self.progress)(self.done, self.all.max(self.done));
        }
    }

    /// The structure of the file, and the tables that it should have.
    fn pages(&mut self, checked: &mut Checked) -> rusqlite::Result<()> {
        let connection = self.connection;
        checked.rows = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let complaint = |what| Damage { table: "pages", row: String::new(), event: None, upstream: None, what };
        let mut check = connection.prepare(&format!("PRAGMA integrity_check({PAGE_COMPLAINTS_MAX})"))?;
        let mut rows = check.query([])?;
        while let Some(row) = rows.next()? {
            let what = shown(row.get_ref(0)?);
            if what != "ok" {
                self.complain(checked, complaint(what));
            }
        }
        let ours = Connection::open_in_memory()?;
        ours.execute_batch(SCHEMA)?;
        let (ours, theirs) = (schema(&ours)?, schema(connection)?);
        for name in ours
            .iter()
            .filter(|object| !theirs.contains(object))
            .chain(theirs.iter().filter(|object| !ours.contains(object)))
            .map(|(name, _)| name)
        {
            self.complain(checked, complaint(format!("the definition of {name} is not the one of this format")));
        }
        Ok(())
    }

    /// The seal of every row.
    fn seals(&mut self, table: Table, checked: &mut Checked) -> rusqlite::Result<()> {
        let connection = self.connection;
        let mut rows = connection.prepare(&format!("SELECT {}, seal FROM {}", table.columns.join(", "), table.name))?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            self.step(checked);
            if !table.is_whole(row, 0)? {
                let damage = broken(connection, table, row)?;
                self.complain(checked, damage);
            }
        }
        Ok(())
    }

    /// The seal of every body, which stands in its event.
    fn bodies(&mut self, checked: &mut Checked) -> rusqlite::Result<()> {
        let mut rows = self.connection.prepare(
            "SELECT b.seq, e.id, b.body, e.body_seal FROM bodies AS b LEFT JOIN events AS e ON e.seq = b.seq ORDER BY b.seq",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            self.step(checked);
            let seal = match row.get_ref(2)? {
                ValueRef::Blob(body) => seal::of_body(body),
                _ => 0,
            };
            if row.get_ref(3)? != ValueRef::Integer(seal) {
                let event = event_id(row.get_ref(1)?);
                let what = if event.is_some() { "the body is not what was stored" } else { "it belongs to no event" };
                let (row, what) = (shown(row.get_ref(0)?), what.to_owned());
                self.complain(checked, Damage { table: "bodies", row, event, upstream: None, what });
            }
        }
        Ok(())
    }

    /// One thing that the tables have to agree in. Its rows are what does not: row, event, upstream, what.
    fn agreement(&mut self, table: &'static str, sql: &str, checked: &mut Checked) -> rusqlite::Result<()> {
        let mut rows = self.connection.prepare(sql)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let upstream = Some(row.get_ref(2)?).filter(|upstream| *upstream != ValueRef::Null).map(shown);
            let (event, what) = (event_id(row.get_ref(1)?), shown(row.get_ref(3)?));
            let row = shown(row.get_ref(0)?);
            self.complain(checked, Damage { table, row, event, upstream, what });
        }
        Ok(())
    }
}

/// Which row it is whose seal does not fit.
fn broken(connection: &Connection, table: Table, row: &Row<'_>) -> rusqlite::Result<Damage> {
    let column = |name: &str| table.columns.iter().position(|column| *column == name);
    let value = |name: &str| column(name).map(|at| row.get_ref(at)).transpose();
    let key_columns = if matches!(table.name, "attempts" | "items" | "counts") { 2 } else { 1 };
    let key: Vec<_> = (0..key_columns).map(|at| row.get_ref(at).map(shown)).collect::<Result<_, _>>()?;
    let mut event = value(if table.name == "events" { "id" } else { "event" })?.and_then(event_id);
    let mut upstream = value("upstream")?.map(shown);
    if table.name == "attempts" {
        let found = connection.query_row(
            "SELECT event, upstream FROM deliveries WHERE id = ?1",
            [row.get::<_, rusqlite::types::Value>(0)?],
            |row| Ok((event_id(row.get_ref(0)?), shown(row.get_ref(1)?))),
        );
        if let Ok((its_event, its_upstream)) = found {
            (event, upstream) = (its_event, Some(its_upstream));
        }
    }
    let what = "the row is not what was stored".to_owned();
    Ok(Damage { table: table.name, row: key.join(" "), event, upstream, what })
}

/// Tables and indexes by name, as they were created.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut objects = connection.prepare("SELECT name, type, tbl_name, sql FROM sqlite_schema ORDER BY name")?;
    let objects = objects.query_map([], |row| {
        let parts = [1, 2, 3].map(|at| row.get_ref(at).map(shown));
        let [kind, table, sql] = parts;
        Ok((shown(row.get_ref(0)?), format!("{} {} {}", kind?, table?, sql?)))
    })?;
    objects.collect()
}

/// Nothing is wrong with the file, but it cannot be read now.
fn is_hindrance(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
        )
    )
}

fn event_id(value: ValueRef<'_>) -> Option<EventId> {
    value.as_blob().ok()?.try_into().ok().map(EventId::from_bytes)
}

/// A value for people. What is damaged may be anything.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => {
            event_id(value).map_or_else(|| encode_hex(&bytes[..bytes.len().min(32)]), |id| id.to_string())
        }
    }
}

/// Beside a gateway that runs, the end of the log is being written.
fn unreadable_log(database: &Path) -> std::io::Result<u64> {
    let unreadable = log::unreadable_frames(&log_of(database))?;
    let lock = database.with_file_name(LOCK);
    if unreadable > 0 && lock.exists() && std::fs::File::open(lock)?.try_lock_shared().is_err() {
        return Ok(0);
    }
    Ok(unreadable)
}
