//! Operations over many events, and pauses.

use rusqlite::params;

use super::{
    super::{
        Act, Operation, OperationState, Pause, StoreError,
        judge::{ACT_MAX, OPERATIONS_MAX, tally},
    },
    desk::Desk,
    job::Stop,
    rows::Sql,
    seal::{OPERATIONS, PAUSES},
};
use crate::event::EventId;

static SAVE_OPERATION: Sql = Sql::new(|| OPERATIONS.insert("REPLACE"));
static SAVE_PAUSE: Sql = Sql::new(|| PAUSES.insert("REPLACE"));

impl Desk<'_> {
    pub(super) fn act(&mut self, act: &Act, ids: &[EventId], mut operation: Operation) -> Result<Operation, Stop> {
        if ids.len() > ACT_MAX {
            return Err(StoreError::Unavailable(format!("an act is over {ACT_MAX} events at most")).into());
        }
        // Others share the transaction: what is undone here must not undo them.
        self.connection.execute_batch("SAVEPOINT act")?;
        let before = self.books.mark();
        for id in ids {
            let done = match act {
                Act::Redeliver { to, state } => self.redeliver(*id, to.as_deref(), *state).map(drop),
                Act::Release => self.release(*id).map(drop),
                Act::Forget => self.forget(*id).map(drop),
                Act::Purge => self.purge(*id),
            };
            let acted = match done {
                Ok(()) => Ok(()),
                Err(Stop::Refused(error)) => Err(error),
                Err(Stop::Fault(fault)) => return Err(Stop::Fault(fault)),
            };
            if let Err(error) = tally(&mut operation, acted) {
                self.connection.execute_batch("ROLLBACK TO act; RELEASE act")?;
                self.books.back_to(before);
                return Err(error.into());
            }
        }
        self.save_operation(&operation)?;
        self.connection.execute_batch("RELEASE act")?;
        Ok(operation)
    }

    pub(super) fn save_operation(&mut self, operation: &Operation) -> Result<(), Stop> {
        self.connection.prepare_cached(&SAVE_OPERATION)?.execute(params![
            operation.id.as_bytes(),
            operation.spec,
            operation.state.name(),
            operation.reason,
            operation.cursor.as_ref().map(EventId::as_bytes),
            operation.total,
            operation.done,
            operation.skipped,
            operation.created_at.unix_ns(),
            operation.changed_at.unix_ns(),
        ])?;
        // Never the one just saved: whoever watches it looks once more.
        let others = OPERATIONS_MAX - usize::from(operation.state != OperationState::Running);
        self.connection
            .prepare_cached(
                "DELETE FROM operations WHERE id IN
                 (SELECT id FROM operations WHERE state <> 'running' AND id <> ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute((operation.id.as_bytes(), others))?;
        Ok(())
    }

    pub(super) fn set_paused(&mut self, upstream: &str, pause: Option<&Pause>) -> Result<(), Stop> {
        match pause {
            Some(pause) => {
                self.connection.prepare_cached(&SAVE_PAUSE)?.execute((upstream, pause.since.unix_ns(), &pause.by))?
            }
            None => self.connection.prepare_cached("DELETE FROM pauses WHERE upstream = ?1")?.execute([upstream])?,
        };
        Ok(())
    }
}
