//! The rows of a statement, read one by one.

use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::row::{self, Row};
use crate::DatabaseError;
use crate::host::Found;

/// The rows that a query returned, each read when it is asked for.
///
/// ```
/// # let db = dormouse_sdk::testing::Tenant::new().database();
/// let rows = db.query("SELECT 1 AS id, 'Ada' AS name UNION SELECT 2, 'Bob'", ())?;
/// assert_eq!(rows.columns(), ["id", "name"]);
/// for row in rows {
///     let (id, name): (u32, String) = row.read()?;
///     assert_eq!(name, if id == 1 { "Ada" } else { "Bob" });
/// }
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[derive(Debug)]
pub struct Rows {
    columns: Rc<[String]>,
    found: Found,
}

impl Rows {
    pub(super) fn new(mut found: Found) -> Self {
        Self { columns: std::mem::take(&mut found.columns).into(), found }
    }

    /// The names of the columns.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// assert_eq!(db.query("SELECT 1 AS id", ())?.columns(), ["id"]);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows as structs, maps, tuples or single values, each read when it is asked for.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// let mut sum = 0;
    /// for number in db.query("SELECT 1 UNION SELECT 2", ())?.read::<i64>() {
    ///     sum += number?;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    pub fn read<T: DeserializeOwned>(self) -> impl Iterator<Item = Result<T, DatabaseError>> {
        let Self { columns, found } = self;
        found.map(move |values| Ok(row::read(&columns, values)?))
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let values = self.found.next()?;
        Some(Row::new(Rc::clone(&self.columns), values))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.found.size_hint()
    }
}

impl ExactSizeIterator for Rows {}
