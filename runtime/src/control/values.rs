//! Values of SQL as JSON, for the operator's own statements.

use serde_json::{Value as Json, json};

use crate::database::Value;

/// A parameter that no value of SQL is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A list, or an object that is no blob.
    #[error("a parameter is a text, a number, a boolean, null, or a blob: {{\"base16\": \"00ff\"}}")]
    Type,
    /// An integer that would lose digits.
    #[error("an integer has 64 bits and a sign; give a larger one as a text")]
    TooLarge,
}

/// A parameter.
///
/// # Errors
/// When no value of SQL is like it.
pub fn from_json(json: Json) -> Result<Value, ParameterError> {
    match json {
        Json::Null => Ok(Value::Null),
        Json::Bool(flag) => Ok(Value::Integer(flag.into())),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Ok(Value::Integer(integer)),
            (None, Some(real)) if number.is_f64() => Ok(Value::Real(real)),
            (None, _) => Err(ParameterError::TooLarge),
        },
        Json::String(text) => Ok(Value::Text(text)),
        Json::Object(object) => match object.get("base16").and_then(Json::as_str) {
            Some(digits) if object.len() == 1 => bytes(digits).map(Value::Blob).ok_or(ParameterError::Type),
            _ => Err(ParameterError::Type),
        },
        Json::Array(_) => Err(ParameterError::Type),
    }
}

/// A value of a row. JSON has no infinities, which become texts; SQLite has no NaN.
#[must_use]
pub fn to_json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => number.into(),
        Value::Real(number) if number.is_finite() => number.into(),
        Value::Real(number) => if number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::Text(text) => text.into(),
        Value::Blob(bytes) => json!({ "base16": crate::name::hex(&bytes) }),
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_given() {
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(0.5),
            "a\0b".into(),
            Value::Blob(vec![0, 255]),
        ];
        for value in values {
            assert_eq!(from_json(to_json(value.clone())), Ok(value));
        }
        assert_eq!(to_json(Value::Real(f64::NEG_INFINITY)), json!("-Infinity"));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let no_blobs =
            [json!({ "base16": "0" }), json!({ "base16": "0g" }), json!({ "base16": "00", "a": 1 })];
        for json in no_blobs.into_iter().chain([json!([]), json!({}), json!({ "base64": "" })]) {
            assert_eq!(from_json(json.clone()), Err(ParameterError::Type), "{json}");
        }
        assert_eq!(from_json(json!(u64::MAX)), Err(ParameterError::TooLarge));
        assert_eq!(from_json(json!(true)), Ok(Value::Integer(1)));
    }
}
