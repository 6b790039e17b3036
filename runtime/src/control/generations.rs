//! Which generation of a database is in use, which one is kept as the way back, and which have no name: those that are
//! on their way in, or out.
//!
//! A generation is put on the list of the unnamed before it has a file, and leaves it in the commit that names it. The
//! one that a switch pushes out comes onto the list in that commit, and leaves it when its files are gone. So a process
//! that is killed at any moment leaves files that the next one knows to remove.

use super::store::{Row, Store, StoreError, id, integer, key};
use crate::database::Value;
use crate::tenant::{DatabaseKey, Tenants};

type Result<T> = std::result::Result<T, StoreError>;

/// The generations of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generations {
    pub current: u64,
    pub previous: Option<u64>,
    /// One that never was.
    pub next: u64,
}

fn generation(row: &Row, index: usize) -> Result<u64> {
    u64::try_from(integer(row, index)?).map_err(|_| StoreError::Unexpected("generation"))
}

/// The parameters of a statement about one generation.
pub(super) fn place(key: &DatabaseKey) -> Vec<Value> {
    vec![key.environment.as_str().into(), Value::from(key.generation)]
}

impl Store {
    /// The generations of the environment that a key is of; nothing when it is gone.
    pub(super) async fn generations(&self, key: &DatabaseKey) -> Result<Option<Generations>> {
        let sql = "SELECT generation, previous_generation, 1 + max(
                       generation, coalesce(previous_generation, 0),
                       (SELECT coalesce(max(u.generation), 0) FROM unnamed_generations u WHERE u.environment_id = id)
                   ) FROM environments WHERE id = ?";
        let rows = self.query(sql, vec![key.environment.as_str().into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let previous = match row.get(1) {
            Some(Value::Null) => None,
            _ => Some(generation(row, 1)?),
        };
        Ok(Some(Generations { current: generation(row, 0)?, previous, next: generation(row, 2)? }))
    }

    /// Notes a generation that will have files and has no name yet.
    pub(super) async fn add_unnamed(&self, key: &DatabaseKey) -> Result<()> {
        let sql = "INSERT INTO unnamed_generations SELECT id, ?2 FROM environments WHERE id = ?1";
        self.change(vec![(sql.to_owned(), place(key))]).await
    }

    /// Forgets a generation whose files are gone.
    pub(super) async fn forget_unnamed(&self, key: &DatabaseKey) -> Result<()> {
        let sql = "DELETE FROM unnamed_generations WHERE environment_id = ? AND generation = ?";
        self.change(vec![(sql.to_owned(), place(key))]).await
    }

    /// Makes `to` the generation in use, and the one that was the way back. What was that before has no name now.
    pub(super) async fn name_generation(&self, to: &DatabaseKey) -> Result<()> {
        let statement = |sql: &str| (sql.to_owned(), place(to));
        self.change_on_record(vec![
            statement(
                "INSERT INTO unnamed_generations SELECT id, previous_generation FROM environments
                 WHERE id = ?1 AND previous_generation <> ?2",
            ),
            // A request may be making the file of a generation that never was used.
            statement(
                "INSERT INTO unnamed_generations SELECT id, generation FROM environments
                 WHERE id = ?1 AND generation <> ?2 AND NOT made",
            ),
            statement("DELETE FROM unnamed_generations WHERE environment_id = ?1 AND generation = ?2"),
            statement(
                "UPDATE environments SET previous_generation = iif(made, generation, NULL), generation = ?2, made = 1
                 WHERE id = ?1 AND generation <> ?2",
            ),
        ])
        .await
    }

    /// Forgets all generations but those in use.
    pub(super) async fn forget_other_generations(&self) -> Result<()> {
        let statement = |sql: &str| (sql.to_owned(), Vec::new());
        self.change(vec![
            statement("UPDATE environments SET previous_generation = NULL"),
            statement("DELETE FROM unnamed_generations"),
        ])
        .await
    }

    async fn unnamed(&self) -> Result<Vec<DatabaseKey>> {
        let sql = "SELECT e.tenant_id, e.id, u.generation FROM unnamed_generations u
                   JOIN environments e ON e.id = u.environment_id";
        let rows = self.query(sql, Vec::new()).await?;
        rows.iter().map(|row| key(id(row, 0)?, id(row, 1)?, integer(row, 2)?)).collect()
    }
}

/// Removes what an earlier process left of generations without a name. No import runs yet.
///
/// # Errors
/// When the control data cannot be read or changed.
pub async fn remove_unnamed(store: &Store, tenants: &Tenants) -> Result<()> {
    for key in store.unnamed().await? {
        remove(store, tenants, &key).await?;
    }
    Ok(())
}

/// Removes the files of a generation without a name.
pub(super) async fn remove(store: &Store, tenants: &Tenants, key: &DatabaseKey) -> Result<()> {
    match tenants.remove_generation(key).await {
        Ok(()) => store.forget_unnamed(key).await,
        Err(error) => {
            tracing::warn!(database = ?key, %error, "files of a database that is not in use stay until the next start");
            Ok(())
        }
    }
}
