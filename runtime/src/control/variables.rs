//! Variables: what the operator sets for a tenant's functions, sealed in the control data.
//!
//! One holds for all functions of an environment or for one of them; the latter wins. A change is seen by requests
//! that arrive after it: the directory forgets the tenant's addresses, and with them what was read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell};

use super::seal::{OVERHEAD_BYTES, Seal, SealError};
use super::store::{Row, Store, StoreError, integer, text};
use crate::database::Value;
use crate::limits;
use crate::name::{FunctionName, VariableName};
use crate::tenant::DatabaseKey;

/// Why a variable could not be set, unset or read.
#[derive(Debug, thiserror::Error)]
pub enum VariableError {
    /// The value is too large.
    #[error("the value is larger than {} bytes", limits::VARIABLE_BYTES_MAX)]
    TooLarge,
    /// The tenant has as many as it may have.
    #[error("the tenant has {} variables already; unset one", limits::VARIABLES_MAX)]
    TooMany,
    /// The tenant's values would be too large together.
    #[error("the tenant's variables would have more than {} bytes together", limits::VARIABLES_BYTES_MAX)]
    TooLargeTogether,
    /// There is nothing to unset.
    #[error("the variable {0} is not set there")]
    NotSet(VariableName),
    /// The control data failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The value could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Another key has sealed it, or somebody has changed it.
    #[error(
        "the variable {0} does not open with keys/variables.key: restore the key that sealed it, or set the \
         variable again"
    )]
    Unreadable(String),
}

/// Where a variable holds: in an environment of a tenant, for one function or for all.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub environment: &'a DatabaseKey,
    pub function: Option<&'a FunctionName>,
}

impl<'a> Scope<'a> {
    fn function(self) -> &'a str {
        self.function.map_or("", FunctionName::as_str)
    }
}

/// A variable, as listed.
pub(super) struct VariableRow {
    pub name: String,
    pub function: Option<String>,
    /// Nothing when it is a secret.
    pub value: Option<String>,
    pub changed_at: i64,
}

/// The variables of all functions.
pub struct Variables {
    store: Arc<Store>,
    seal: Seal,
    /// One change at a time, so that what is counted before it still holds.
    changing: Mutex<()>,
}

/// What a sealed value belongs to. Neither ids nor names hold a NUL, so that no two rows have the same text.
fn belongs_to(environment: &DatabaseKey, function: &str, name: &str, secret: bool) -> Vec<u8> {
    let (tenant, environment) = (environment.tenant.as_str(), environment.environment.as_str());
    let kind = if secret { "secret" } else { "plain" };
    ["dormouse variable 1", tenant, environment, function, name, kind].join("\0").into_bytes()
}

impl Variables {
    /// Variables in the control data, sealed with a key.
    #[must_use]
    pub fn new(store: Arc<Store>, key: [u8; 32]) -> Self {
        Self { store, seal: Seal::new(key), changing: Mutex::default() }
    }

    /// Sets a variable, whether it is set already or not.
    pub(super) async fn set(
        &self,
        scope: Scope<'_>,
        name: &VariableName,
        value: &str,
        secret: bool,
    ) -> Result<(), VariableError> {
        if value.len() > limits::VARIABLE_BYTES_MAX {
            return Err(VariableError::TooLarge);
        }
        let belongs_to = belongs_to(scope.environment, scope.function(), name.as_str(), secret);
        let sealed = self.seal.seal(value.as_bytes(), &belongs_to)?;
        let _changing = self.changing.lock().await;
        self.check_room(scope, name, value.len()).await?;
        // Nothing is inserted for a tenant that was deleted in the meantime.
        let sql = "INSERT OR REPLACE INTO variables (environment_id, name, function, secret, sealed)
                   SELECT id, ?2, ?3, ?4, ?5 FROM environments WHERE id = ?1";
        let mut parameters = place(scope, name);
        parameters.extend([Value::Integer(secret.into()), Value::Blob(sealed)]);
        Ok(self.store.change_on_record(vec![(sql.to_owned(), parameters)]).await?)
    }

    async fn check_room(
        &self,
        scope: Scope<'_>,
        name: &VariableName,
        bytes: usize,
    ) -> Result<(), VariableError> {
        let sql = "SELECT count(*), coalesce(sum(length(sealed)), 0) FROM variables
                   WHERE environment_id = ?1 AND NOT (name = ?2 AND function = ?3)";
        let rows = self.store.query(sql, place(scope, name)).await?;
        let row = rows.first().ok_or(StoreError::Unexpected("count"))?;
        let number = |index| {
            let number = integer(row, index)?;
            usize::try_from(number).map_err(|_| StoreError::Unexpected("count"))
        };
        let (count, sealed) = (number(0)?, number(1)?);
        if count >= limits::VARIABLES_MAX {
            return Err(VariableError::TooMany);
        }
        let others = sealed.saturating_sub(count.saturating_mul(OVERHEAD_BYTES));
        if others.saturating_add(bytes) > limits::VARIABLES_BYTES_MAX {
            return Err(VariableError::TooLargeTogether);
        }
        Ok(())
    }

    /// The names of the variables that a function has, its own and those of all functions.
    pub(super) async fn names(&self, scope: Scope<'_>) -> Result<HashSet<String>, VariableError> {
        let sql = "SELECT name FROM variables WHERE environment_id = ? AND function IN ('', ?)";
        let parameters = vec![scope.environment.environment.as_str().into(), scope.function().into()];
        let rows = self.store.query(sql, parameters).await?;
        Ok(rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_, _>>()?)
    }

    /// Removes a variable.
    pub(super) async fn unset(&self, scope: Scope<'_>, name: &VariableName) -> Result<(), VariableError> {
        const PLACE: &str = "FROM variables WHERE environment_id = ?1 AND name = ?2 AND function = ?3";
        let _changing = self.changing.lock().await;
        if self.store.query(&format!("SELECT 1 {PLACE}"), place(scope, name)).await?.is_empty() {
            return Err(VariableError::NotSet(name.clone()));
        }
        Ok(self.store.change_on_record(vec![(format!("DELETE {PLACE}"), place(scope, name))]).await?)
    }

    /// All variables of an environment, by name.
    pub(super) async fn list(&self, environment: &DatabaseKey) -> Result<Vec<VariableRow>, VariableError> {
        let sql = "SELECT name, function, secret, sealed, changed_at FROM variables
                   WHERE environment_id = ? ORDER BY name, function";
        let rows = self.store.query(sql, vec![environment.environment.as_str().into()]).await?;
        let row = |row: &Row| {
            let function = text(row, 1)?;
            let is_secret = integer(row, 2)? != 0;
            Ok(VariableRow {
                name: text(row, 0)?.to_owned(),
                function: (!function.is_empty()).then(|| function.to_owned()),
                value: if is_secret { None } else { Some(self.value(environment, row)?) },
                changed_at: integer(row, 4)?,
            })
        };
        rows.iter().map(row).collect()
    }

    /// The values that hold for a function, by name.
    async fn of_function(
        &self,
        environment: &DatabaseKey,
        function: &FunctionName,
    ) -> Result<HashMap<String, String>, VariableError> {
        // The function's own come last and win.
        let sql = "SELECT name, function, secret, sealed FROM variables
                   WHERE environment_id = ? AND function IN ('', ?) ORDER BY function";
        let parameters = vec![environment.environment.as_str().into(), function.as_str().into()];
        let rows = self.store.query(sql, parameters).await?;
        rows.iter().map(|row| Ok((text(row, 0)?.to_owned(), self.value(environment, row)?))).collect()
    }

    /// The value in a row that starts with name, function, whether it is a secret, and what is sealed.
    fn value(&self, environment: &DatabaseKey, row: &Row) -> Result<String, VariableError> {
        let (name, function, is_secret) = (text(row, 0)?, text(row, 1)?, integer(row, 2)? != 0);
        let Some(Value::Blob(sealed)) = row.get(3) else {
            return Err(StoreError::Unexpected("value").into());
        };
        let value = self.seal.unseal(sealed, &belongs_to(environment, function, name, is_secret));
        let value = value.and_then(|value| String::from_utf8(value).ok());
        value.ok_or_else(|| VariableError::Unreadable(name.to_owned()))
    }
}

/// The parameters `?1` to `?3` of a statement about one variable.
fn place(scope: Scope<'_>, name: &VariableName) -> Vec<Value> {
    vec![scope.environment.environment.as_str().into(), name.as_str().into(), scope.function().into()]
}

/// The variables of one function, read when the first is asked for.
pub struct FunctionVariables {
    function: FunctionName,
    read: OnceCell<HashMap<String, String>>,
}

impl fmt::Debug for FunctionVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what was read: it may be secret.
        f.debug_struct("FunctionVariables").field("function", &self.function).finish_non_exhaustive()
    }
}

impl FunctionVariables {
    pub(super) fn new(function: FunctionName) -> Self {
        Self { function, read: OnceCell::new() }
    }

    pub(super) async fn get(
        &self,
        variables: &Variables,
        environment: &DatabaseKey,
        name: &VariableName,
    ) -> Result<Option<String>, VariableError> {
        let read = self.read.get_or_try_init(|| variables.of_function(environment, &self.function)).await?;
        Ok(read.get(name.as_str()).cloned())
    }
}
