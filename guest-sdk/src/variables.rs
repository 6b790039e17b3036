//! Variables and secrets: what the operator sets for a function.

use std::fmt::{self, Debug, Formatter};

use subtle::ConstantTimeEq as _;

use crate::host;

/// Why a variable has no value. With `?` it becomes a 500; the log gets the reason.
///
/// ```
/// use dormouse_sdk::{VariableError, variable};
///
/// # dormouse_sdk::testing::Tenant::new().enter(|| {
/// assert_eq!(variable("greeting"), Err(VariableError::Undefined("greeting".into())));
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VariableError {
    /// This cannot be the name of a variable.
    #[error("this is no name of a variable: {0}")]
    InvalidName(String),
    /// The operator has set no variable of this name.
    #[error("there is no variable: {0}")]
    Undefined(String),
    /// The node could not give the value.
    #[error("the variable is not available: {0}")]
    Unavailable(String),
}

/// The value of a variable, as the operator set it for this function.
///
/// ```
/// use dormouse_sdk::testing::Tenant;
/// use dormouse_sdk::variable;
///
/// Tenant::new().with_variable("greeting", "Moin").enter(|| {
///     assert_eq!(variable("greeting").as_deref(), Ok("Moin"));
///     assert_eq!(variable("farewell").unwrap_or_else(|_| "Tschüss".into()), "Tschüss");
/// });
/// ```
///
/// # Errors
///
/// If there is no variable of this name.
pub fn variable(name: &str) -> Result<String, VariableError> {
    host::variable(name)
}

/// The value of a variable that must not be shown.
///
/// ```
/// use dormouse_sdk::testing::Tenant;
/// use dormouse_sdk::secret;
///
/// Tenant::new().with_variable("token", "s3cret").enter(|| {
///     let token = secret("token").unwrap();
///     assert!(token.matches("s3cret"));
///     assert_eq!(format!("{token:?}"), "Secret(…)");
/// });
/// ```
///
/// # Errors
///
/// If there is no variable of this name.
pub fn secret(name: &str) -> Result<Secret, VariableError> {
    variable(name).map(Secret)
}

/// A value that neither a log line nor a test's output shows by accident.
///
/// ```
/// let token = dormouse_sdk::Secret::new("s3cret");
/// assert_eq!(format!("{token:?}"), "Secret(…)");
/// assert_eq!(token.expose(), "s3cret");
/// ```
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a value secret.
    ///
    /// ```
    /// assert!(dormouse_sdk::Secret::new("s3cret").matches("s3cret"));
    /// ```
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, to be used and not kept.
    ///
    /// ```
    /// assert_eq!(dormouse_sdk::Secret::new("s3cret").expose(), "s3cret");
    /// ```
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a caller knows the value. The time it takes tells nothing of it but its length.
    ///
    /// ```
    /// let token = dormouse_sdk::Secret::new("s3cret");
    /// assert!(token.matches("s3cret"));
    /// assert!(!token.matches("s3crex"));
    /// ```
    pub fn matches(&self, candidate: impl AsRef<[u8]>) -> bool {
        self.0.as_bytes().ct_eq(candidate.as_ref()).into()
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
