//! From the rows of a statement to Rust types, through serde.
//!
//! A row is read by column name into a struct or map, by position into a tuple, and a row of one column also into
//! that column's type. SQLite has neither booleans nor dates: a `bool` is read from the integers 0 and 1, a
//! fieldless enum from its name, everything else from what is stored.

use std::{fmt::Display, rc::Rc};

use serde::de::value::{SeqDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::value::Value;

/// Why a row, or a value of it, does not fit the type that was asked for.
///
/// ```
/// # let db = dormouse_sdk::testing::Tenant::new().database();
/// let row = db.query("SELECT 300 AS id", ())?.next().unwrap();
/// let error = row.get::<u8>("id").unwrap_err();
/// assert_eq!(error.to_string(), "column `id`: invalid value: integer `300`, expected u8");
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RowError(String);

impl de::Error for RowError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl RowError {
    fn in_column(self, column: &str) -> Self {
        Self(format!("column `{column}`: {self}"))
    }
}

/// One row that a query returned.
///
/// ```
/// # let db = dormouse_sdk::testing::Tenant::new().database();
/// let row = db.query("SELECT 7 AS id, 'Ada' AS name", ())?.next().unwrap();
/// assert_eq!(row.columns(), ["id", "name"]);
/// assert_eq!(row.get::<String>("name")?, "Ada");
/// assert_eq!(row.read::<(u8, String)>()?, (7, "Ada".to_owned()));
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    columns: Rc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(crate) fn new(columns: Rc<[String]>, values: Vec<Value>) -> Self {
        Self { columns, values }
    }

    /// The value of a column, named or counted from 0, as any type that serde can read from it.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// let row = db.query("SELECT 7 AS id, NULL AS name", ())?.next().unwrap();
    /// assert_eq!(row.get::<u8>("id")?, 7);
    /// assert_eq!(row.get::<Option<String>>(1)?, None);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such column or its value does not fit.
    pub fn get<T: DeserializeOwned>(&self, column: impl ColumnIndex) -> Result<T, RowError> {
        let missing = || RowError(format!("there is no column `{column}`"));
        let index = column.find(&self.columns).ok_or_else(missing)?;
        let value = self.values.get(index).ok_or_else(missing)?;
        T::deserialize(ValueReader(value.clone())).map_err(|error| error.in_column(&column.to_string()))
    }

    /// The whole row as a struct, a map or a tuple.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// let row = db.query("SELECT 7 AS id, 'Ada' AS name", ())?.next().unwrap();
    /// assert_eq!(row.read::<(u8, String)>()?, (7, "Ada".to_owned()));
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it does not fit.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, RowError> {
        read(&self.columns, self.values)
    }

    /// The names of the columns.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// assert_eq!(db.query("SELECT 7 AS id", ())?.next().unwrap().columns(), ["id"]);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The values, in the order of the columns.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// let row = db.query("SELECT 7, NULL", ())?.next().unwrap();
    /// assert_eq!(row.values(), [7.into(), dormouse_sdk::Value::Null]);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// Reads one row without making a [`Row`] of it first.
pub(crate) fn read<T: DeserializeOwned>(columns: &[String], values: Vec<Value>) -> Result<T, RowError> {
    T::deserialize(RowReader { columns, values })
}

/// What names a column: its name, or its position counted from 0.
///
/// ```
/// use dormouse_sdk::ColumnIndex;
///
/// let columns = ["id".to_owned(), "name".to_owned()];
/// assert_eq!(ColumnIndex::find(&"name", &columns), Some(1));
/// assert_eq!(ColumnIndex::find(&2, &columns), None);
/// ```
pub trait ColumnIndex: Display {
    /// The position of the column among those of the row.
    fn find(&self, columns: &[String]) -> Option<usize>;
}

impl ColumnIndex for usize {
    fn find(&self, columns: &[String]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }
}

impl ColumnIndex for &str {
    fn find(&self, columns: &[String]) -> Option<usize> {
        columns.iter().position(|column| column == self)
    }
}

/// Reads a whole row.
struct RowReader<'a> {
    columns: &'a [String],
    values: Vec<Value>,
}

impl<'a> RowReader<'a> {
    /// The value of a row that must have exactly one.
    fn only(self) -> Result<ValueReader, RowError> {
        match <[Value; 1]>::try_from(self.values) {
            Ok([value]) => Ok(ValueReader(value)),
            Err(values) => Err(RowError(format!("expected a row of one column, found {}", values.len()))),
        }
    }

    fn cells(self) -> Cells<'a> {
        Cells { columns: self.columns.iter(), values: self.values.into_iter(), pending: None }
    }
}

macro_rules! read_only_column {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
            self.only()?.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for RowReader<'_> {
    type Error = RowError;

    forward_to_deserialize_any! { map identifier ignored_any }

    read_only_column! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_unit
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_map(self.cells())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.values.as_slice() {
            [Value::Null] => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.values.as_slice() {
            [Value::Blob(_)] => self.only()?.deserialize_seq(visitor),
            _ => visitor.visit_seq(self.cells()),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, RowError> {
        match self.values.as_slice() {
            [Value::Blob(_)] if len != 1 => self.only()?.deserialize_seq(visitor),
            values if values.len() != len => {
                Err(RowError(format!("expected a row of {len} columns, found {}", values.len())))
            }
            _ => visitor.visit_seq(self.cells()),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_map(self.cells())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }
}

/// The columns and values of a row, handed to serde one by one.
struct Cells<'a> {
    columns: std::slice::Iter<'a, String>,
    values: std::vec::IntoIter<Value>,
    /// The column whose name was given and whose value is next.
    pending: Option<&'a str>,
}

impl Cells<'_> {
    fn next_cell<'de, T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
        column: &str,
    ) -> Option<Result<T::Value, RowError>> {
        let value = self.values.next()?;
        Some(seed.deserialize(ValueReader(value)).map_err(|error| error.in_column(column)))
    }
}

impl<'de> SeqAccess<'de> for Cells<'_> {
    type Error = RowError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, RowError> {
        let column = self.columns.next().map_or("?", String::as_str);
        self.next_cell(seed, column).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

impl<'de> MapAccess<'de> for Cells<'_> {
    type Error = RowError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, RowError> {
        self.pending = self.columns.next().map(String::as_str);
        self.pending.map(|column| seed.deserialize(column.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, RowError> {
        let column = self.pending.take().unwrap_or("?");
        self.next_cell(seed, column).unwrap_or_else(|| Err(de::Error::missing_field("value")))
    }
}

/// Reads one value.
struct ValueReader(Value);

impl ValueReader {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0 {
            Value::Null => Unexpected::Other("NULL"),
            Value::Integer(integer) => Unexpected::Signed(*integer),
            Value::Real(real) => Unexpected::Float(*real),
            Value::Text(text) => Unexpected::Str(text),
            Value::Blob(bytes) => Unexpected::Bytes(bytes),
        }
    }
}

impl<'de> Deserializer<'de> for ValueReader {
    type Error = RowError;

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        map struct identifier ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Integer(integer) => visitor.visit_i64(integer),
            Value::Real(real) => visitor.visit_f64(real),
            Value::Text(text) => visitor.visit_string(text),
            Value::Blob(bytes) => visitor.visit_byte_buf(bytes),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Integer(0) => visitor.visit_bool(false),
            Value::Integer(1) => visitor.visit_bool(true),
            _ => Err(de::Error::invalid_value(self.unexpected(), &"0 or 1")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Blob(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, RowError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Text(name) => visitor.visit_enum(StringDeserializer::new(name)),
            _ => Err(de::Error::invalid_type(self.unexpected(), &"the name of a variant")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    fn row(cells: &[(&str, Value)]) -> Row {
        let columns = cells.iter().map(|(column, _)| String::from(*column)).collect();
        Row::new(columns, cells.iter().map(|(_, value)| value.clone()).collect())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mood {
        Sleepy,
        Awake,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Guest {
        id: u32,
        name: String,
        nickname: Option<String>,
        weight: f64,
        vip: bool,
        portrait: Vec<u8>,
        mood: Mood,
    }

    #[test]
    fn structs_are_read_by_name_in_any_order() {
        let guest: Guest = row(&[
            ("name", text("Mausi")),
            ("id", Value::Integer(7)),
            ("nickname", Value::Null),
            ("vip", Value::Integer(1)),
            ("weight", Value::Integer(20)),
            ("mood", text("sleepy")),
            ("not a field", text("is left out")),
            ("portrait", Value::Blob(vec![1, 2])),
        ])
        .read()
        .unwrap();
        let expected = Guest {
            id: 7,
            name: "Mausi".into(),
            nickname: None,
            weight: 20.0,
            vip: true,
            portrait: vec![1, 2],
            mood: Mood::Sleepy,
        };
        assert_eq!(guest, expected);
    }

    #[test]
    fn tuples_are_read_by_position() {
        let two = row(&[("a", Value::Integer(1)), ("b", text("b"))]);
        assert_eq!(two.clone().read::<(i64, String)>().unwrap(), (1, "b".into()));
        let error = two.read::<(i64, String, i64)>().unwrap_err();
        assert_eq!(error.to_string(), "expected a row of 3 columns, found 2");
    }

    #[test]
    fn maps_are_read_by_name() {
        let counts: BTreeMap<String, i64> =
            row(&[("a", Value::Integer(1)), ("b", Value::Integer(2))]).read().unwrap();
        assert_eq!(counts, BTreeMap::from([("a".into(), 1), ("b".into(), 2)]));
    }

    #[test]
    fn a_single_column_is_read_as_its_own_type() {
        assert_eq!(row(&[("n", Value::Integer(3))]).read::<u64>().unwrap(), 3);
        assert_eq!(row(&[("n", Value::Null)]).read::<Option<u64>>().unwrap(), None);
        assert_eq!(row(&[("n", Value::Integer(3))]).read::<(u8,)>().unwrap(), (3,));
        assert_eq!(row(&[("b", Value::Blob(vec![9]))]).read::<Vec<u8>>().unwrap(), [9]);
        assert_eq!(row(&[("m", text("awake"))]).read::<Mood>().unwrap(), Mood::Awake);
        let error = row(&[("a", Value::Null), ("b", Value::Null)]).read::<i64>().unwrap_err();
        assert_eq!(error.to_string(), "expected a row of one column, found 2");
    }

    #[test]
    fn values_are_got_by_name_and_by_position() {
        let row = row(&[("id", Value::Integer(300)), ("name", text("Mausi"))]);
        assert_eq!(row.get::<i64>("id").unwrap(), 300);
        assert_eq!(row.get::<String>(1).unwrap(), "Mausi");
        assert_eq!(row.get::<i64>("age").unwrap_err().to_string(), "there is no column `age`");
        assert_eq!(row.get::<i64>(2).unwrap_err().to_string(), "there is no column `2`");
    }

    #[test]
    fn a_misfit_names_its_column() {
        let misfit = row(&[("id", Value::Integer(300)), ("name", text("Mausi"))]);
        let too_large = misfit.get::<u8>("id").unwrap_err().to_string();
        assert_eq!(too_large, "column `id`: invalid value: integer `300`, expected u8");
        let not_bool = misfit.read::<(bool, String)>().unwrap_err().to_string();
        assert_eq!(not_bool, "column `id`: invalid value: integer `300`, expected 0 or 1");
    }
}
