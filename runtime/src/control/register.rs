//! Which databases have been made: a mark in the control data, which the tenant room asks for and sets.

use super::generations::place;
use super::store::{Result, Store, StoreError, integer};
use crate::tenant::{Asking, DatabaseKey, Register, RegisterError};

impl Store {
    /// Whether a database has been made; nothing when its environment is gone or has another generation.
    pub(super) async fn made(&self, key: &DatabaseKey) -> Result<Option<bool>> {
        let sql = "SELECT made FROM environments WHERE id = ? AND generation = ?";
        let rows = self.query(sql, place(key)).await?;
        rows.first().map(|row| Ok(integer(row, 0)? != 0)).transpose()
    }

    async fn is_known_as_made(&self, key: &DatabaseKey) -> std::result::Result<bool, RegisterError> {
        let failed = |error: StoreError| RegisterError::Failed(error.to_string());
        match self.made(key).await.map_err(failed)? {
            Some(made) => Ok(made),
            None if self.generations(key).await.map_err(failed)?.is_some() => Err(RegisterError::Replaced),
            None => Err(RegisterError::Gone),
        }
    }
}

impl Register for Store {
    fn is_made<'a>(&'a self, key: &'a DatabaseKey) -> Asking<'a, bool> {
        Box::pin(self.is_known_as_made(key))
    }

    fn mark_made<'a>(&'a self, key: &'a DatabaseKey) -> Asking<'a, ()> {
        Box::pin(async move {
            let sql = "UPDATE environments SET made = 1 WHERE id = ? AND generation = ?".to_owned();
            let marked = self.change(vec![(sql, place(key))]).await;
            marked.map_err(|error| RegisterError::Failed(error.to_string()))?;
            // Its tenant may have been deleted meanwhile; nothing was marked then.
            self.is_known_as_made(key).await.map(|_| ())
        })
    }
}
