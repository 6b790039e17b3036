//! `fermyon:spin/variables`.

use super::bindings::fermyon::spin::variables::{Error, get};
use crate::VariableError;

impl From<Error> for VariableError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidName(reason) => Self::InvalidName(reason),
            Error::Undefined(name) => Self::Undefined(name),
            Error::Provider(reason) | Error::Other(reason) => Self::Unavailable(reason),
        }
    }
}

/// The value of a variable.
pub(crate) fn variable(name: &str) -> Result<String, VariableError> {
    Ok(get(name)?)
}
