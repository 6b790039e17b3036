//! A value that SQLite stores, and what converts into one.

/// A value that SQLite stores.
///
/// A `u64` or `usize` does not always fit SQLite's signed 64 bits, so the caller converts it.
///
/// ```
/// use dormouse_sdk::Value;
///
/// assert_eq!(Value::from(7_u32), Value::Integer(7));
/// assert_eq!(Value::from("text"), Value::Text("text".into()));
/// assert_eq!(Value::from(None::<f64>), Value::Null);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// A 64-bit signed integer.
    Integer(i64),
    /// A 64-bit floating point number.
    Real(f64),
    /// A UTF-8 string.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// NULL.
    #[default]
    Null,
}

macro_rules! value_from {
    ($($from:ty => $value:path;)*) => {$(
        impl From<$from> for Value {
            fn from(from: $from) -> Self {
                $value(from.into())
            }
        }
    )*};
}

value_from! {
    bool => Value::Integer;
    i8 => Value::Integer;
    i16 => Value::Integer;
    i32 => Value::Integer;
    i64 => Value::Integer;
    u8 => Value::Integer;
    u16 => Value::Integer;
    u32 => Value::Integer;
    f32 => Value::Real;
    f64 => Value::Real;
    &str => Value::Text;
    &String => Value::Text;
    String => Value::Text;
    std::borrow::Cow<'_, str> => Value::Text;
    &[u8] => Value::Blob;
    Vec<u8> => Value::Blob;
}

impl From<&Vec<u8>> for Value {
    fn from(bytes: &Vec<u8>) -> Self {
        Self::Blob(bytes.clone())
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(bytes: [u8; N]) -> Self {
        Self::Blob(bytes.into())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(from: Option<T>) -> Self {
        from.map_or(Self::Null, Into::into)
    }
}
