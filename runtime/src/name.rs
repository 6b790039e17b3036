//! Names as they stand in addresses, and the ids that stand in paths.
//!
//! A name is chosen by a person and may be given to another tenant later; an id is made by the node, never reused
//! and never read from a request. Parsing is the only way to get either, so whatever is built from one is safe.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name: a DNS label (RFC 1035) holds 63 bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// A text that is no name: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name: use 1 to 63 lowercase letters, digits and hyphens, starting with a letter or a digit"
)]
pub struct NameError(pub String);

fn check_name(text: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = text.as_bytes();
    let well_formed = bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(|first| *first != b'-')
        && bytes.iter().copied().all(allowed);
    if well_formed { Ok(()) } else { Err(NameError(text.chars().take(80).collect())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check_name(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// A tenant, as in `/t/<tenant>/…`.
    TenantName
);
name!(
    /// A function of a tenant, as in `/t/<tenant>/<function>`.
    FunctionName
);
name!(
    /// An environment of a tenant: `production`, or another such as `staging`.
    EnvironmentName
);

impl EnvironmentName {
    /// The environment that an address without one means.
    #[must_use]
    pub fn production() -> Self {
        Self("production".to_owned())
    }

    /// Whether it is that one.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.0 == "production"
    }
}

impl FunctionName {
    /// The default function: the one that answers on a host of its tenant's own.
    #[must_use]
    pub fn main() -> Self {
        Self("fn".to_owned())
    }
}

/// The longest name of a variable.
pub const VARIABLE_NAME_BYTES_MAX: usize = 128;

/// A text that is no name of a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a variable's name: use 1 to 128 lowercase letters, digits and single underscores, starting with a \
     letter and ending with a letter or a digit"
)]
pub struct VariableNameError(String);

/// A variable, as a function asks for it. The rules are Spin's, and a bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariableName(String);

impl VariableName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = VariableNameError;

    fn from_str(text: &str) -> Result<Self, VariableNameError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let well_formed = text.len() <= VARIABLE_NAME_BYTES_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(allowed)
            && !text.ends_with('_')
            && !text.contains("__");
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(VariableNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for VariableName {
    type Error = VariableNameError;

    fn try_from(text: String) -> Result<Self, VariableNameError> {
        text.parse()
    }
}

impl From<VariableName> for String {
    fn from(name: VariableName) -> Self {
        name.0
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An immutable id: 128 random bits as 32 lowercase hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Id(Arc<str>);

impl Id {
    /// A new id from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails.
    pub fn random() -> std::io::Result<Self> {
        let mut bits = [0_u8; 16];
        getrandom::fill(&mut bits).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(hex(&bits).into()))
    }

    /// Reads an id that [`Id::random`] made.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(digit)).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the number that its digits are.
    #[must_use]
    pub fn number(&self) -> u128 {
        u128::from_str_radix(&self.0, 16).unwrap_or_default()
    }
}

/// Bytes as lowercase hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "0", "acme", "pr-12", "a--b", &"x".repeat(63)] {
            assert!(good.parse::<TenantName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "Acme", "a_b", "a.b", "a/b", "ä", "a\0", "..", &"x".repeat(64)] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_variables_are_spins() {
        for good in ["a", "api_key", "v2", "a1_b2_c3", &"x".repeat(128)] {
            assert!(good.parse::<VariableName>().is_ok(), "{good}");
        }
        for bad in ["", "_a", "a_", "a__b", "2a", "API", "a-b", "a.b", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(bad.parse::<VariableName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_round_trip_and_differ() -> std::io::Result<()> {
        let (one, other) = (Id::random()?, Id::random()?);
        assert_ne!(one, other);
        assert_eq!(format!("{:032x}", one.number()), one.as_str());
        assert_eq!(Id::parse(one.as_str()), Some(one));
        assert_eq!(Id::parse("../../../../etc/passwd/0000000000"), None);
        Ok(())
    }
}
