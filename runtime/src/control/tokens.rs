//! Tokens beside the operator's own: made, listed and revoked through the API.
//!
//! One reads `dm_<id>_<secret>`. The id says which row it is compared with; the secret, 256 random bits, is given away
//! once and kept as its SHA-256 only.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::access::now;
use super::store::{Row, Store, StoreError, id, integer, optional, text};
use crate::database::Value;
use crate::limits;
use crate::name::{Id, hex};

/// What a token starts with, so that one which got out is recognised.
const PREFIX: &str = "dm";

/// Longest label.
const LABEL_BYTES_MAX: usize = 64;

/// A text that is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a label has 1 to {LABEL_BYTES_MAX} bytes and no control characters")]
pub(super) struct LabelError;

/// A token as its holder has it.
pub(super) struct Token {
    id: Id,
    secret: String,
}

impl Token {
    pub(super) fn random() -> std::io::Result<Self> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self { id: Id::random()?, secret: hex(&bits) })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        Some(Self { id: Id::parse(id)?, secret: secret.to_owned() })
    }

    pub(super) fn id(&self) -> &Id {
        &self.id
    }

    /// Whether it is the one that was kept; takes the same time whatever is wrong with it.
    pub(super) fn is(&self, sha256: &[u8]) -> bool {
        self.sha256().ct_eq(sha256).into()
    }

    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}_{}_{}", self.id.as_str(), self.secret)
    }
}

/// What is known of a token.
#[derive(Debug)]
pub(super) struct TokenRow {
    pub id: Id,
    pub sha256: Vec<u8>,
    pub label: String,
    /// The tenant that it is for; none when it is for the node.
    pub tenant: Option<Id>,
    pub tenant_name: Option<String>,
    pub read_only: bool,
    pub created_at: i64,
    pub expires_at: Option<i64>,
}

/// What a new token is to be.
pub(super) struct NewToken<'a> {
    pub label: &'a str,
    pub tenant: Option<&'a Id>,
    pub read_only: bool,
    pub expires_at: Option<i64>,
}

pub(super) fn check_label(label: &str) -> Result<(), LabelError> {
    let well_formed =
        !label.trim().is_empty() && label.len() <= LABEL_BYTES_MAX && !label.chars().any(char::is_control);
    well_formed.then_some(()).ok_or(LabelError)
}

const SELECT: &str =
    "SELECT k.id, k.sha256, k.label, k.tenant_id, t.name, k.read_only, k.created_at, k.expires_at
                      FROM tokens k LEFT JOIN tenants t ON t.id = k.tenant_id";

impl Store {
    /// A token by its id, whether it still holds or not.
    pub(super) async fn token(&self, id: &Id) -> Result<Option<TokenRow>, StoreError> {
        let rows = self.query(&format!("{SELECT} WHERE k.id = ?"), vec![id.as_str().into()]).await?;
        rows.first().map(token_row).transpose()
    }

    /// Tokens by id, those after `after`.
    pub(super) async fn tokens(&self, after: &str, limit: u32) -> Result<Vec<TokenRow>, StoreError> {
        let sql = format!("{SELECT} WHERE k.id > ? ORDER BY k.id LIMIT ?");
        let rows = self.query(&sql, vec![after.into(), Value::Integer(limit.into())]).await?;
        rows.iter().map(token_row).collect()
    }

    /// Keeps a new token, and forgets those that have expired. Nothing is kept when there are as many as there may be,
    /// or when its tenant is gone.
    pub(super) async fn add_token(
        &self,
        token: &Token,
        new: NewToken<'_>,
    ) -> Result<Option<TokenRow>, StoreError> {
        let expired = "DELETE FROM tokens WHERE expires_at <= ?".to_owned();
        let sql = "INSERT INTO tokens (id, sha256, label, tenant_id, read_only, expires_at)
                   SELECT ?1, ?2, ?3, ?4, ?5, ?6
                   WHERE (SELECT count(*) FROM tokens) < ?7
                   AND (?4 IS NULL OR EXISTS (SELECT 1 FROM tenants WHERE id = ?4))";
        let parameters = vec![
            token.id.as_str().into(),
            Value::Blob(token.sha256().to_vec()),
            new.label.into(),
            new.tenant.map_or(Value::Null, |tenant| tenant.as_str().into()),
            Value::Integer(new.read_only.into()),
            new.expires_at.map_or(Value::Null, Value::Integer),
            Value::Integer(limits::TOKENS_MAX),
        ];
        self.change_on_record(vec![(expired, vec![Value::Integer(now())]), (sql.to_owned(), parameters)])
            .await?;
        self.token(&token.id).await
    }

    /// Ends a token. `false` when there is none of that id.
    pub(super) async fn revoke_token(&self, id: &Id) -> Result<bool, StoreError> {
        if self.token(id).await?.is_none() {
            return Ok(false);
        }
        self.change_on_record(vec![("DELETE FROM tokens WHERE id = ?".to_owned(), vec![id.as_str().into()])])
            .await?;
        Ok(true)
    }
}

fn token_row(row: &Row) -> Result<TokenRow, StoreError> {
    let Some(Value::Blob(sha256)) = row.get(1) else { return Err(StoreError::Unexpected("token")) };
    Ok(TokenRow {
        id: id(row, 0)?,
        sha256: sha256.clone(),
        label: text(row, 2)?.to_owned(),
        tenant: optional(row, 3, id)?,
        tenant_name: optional(row, 4, text)?.map(str::to_owned),
        read_only: integer(row, 5)? != 0,
        created_at: integer(row, 6)?,
        expires_at: optional(row, 7, integer)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_again_and_no_other_is() -> std::io::Result<()> {
        let (one, other) = (Token::random()?, Token::random()?);
        let again = Token::parse(&one.to_string()).ok_or(std::io::ErrorKind::InvalidData)?;
        assert_eq!(again.id(), one.id());
        assert!(again.is(&one.sha256()) && !again.is(&other.sha256()) && !again.is(b""));
        let id = one.id().as_str();
        for text in ["", "dm", "dm_", "dm__", "dm_x_y", &format!("dm_{id}"), &format!("DM_{id}_00")] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
        Ok(())
    }
}
