//! From Rust values to the parameters of a statement, by position or by name.
//!
//! `spin:sqlite` knows positions only. A statement with names is therefore looked through here: SQLite numbers its
//! parameters in the order in which their names first appear.

use serde::Serialize;
use serde_json::Value as Json;

use super::named::names_in;
use super::value::Value;
use crate::DatabaseError;

/// The parameters of a statement.
///
/// By position, for `?`: `()`, a tuple, an array or a `Vec` of whatever converts into a [`Value`]. By name, for
/// `:name`: [`named!`](crate::named), an array or `Vec` of pairs, or [`Named`] around a struct.
///
/// ```
/// use dormouse_sdk::testing::Tenant;
/// use dormouse_sdk::{Named, named};
///
/// #[derive(serde::Serialize)]
/// struct Entry { id: u32, name: String }
///
/// let db = Tenant::new().database();
/// db.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, name TEXT)", ())?;
/// db.execute("INSERT INTO entries VALUES (?, ?)", (1, "Ada"))?;
/// db.execute("INSERT INTO entries VALUES (:id, :name)", named! { id: 2, name: "Bob" })?;
/// db.execute("INSERT INTO entries VALUES (:id, :name)", Named(Entry { id: 3, name: "Cyd".into() }))?;
/// assert_eq!(db.query_scalar::<String>("SELECT group_concat(name) FROM entries", ())?, "Ada,Bob,Cyd");
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
pub trait Params {
    /// The values to bind to the parameters of `sql`, in their order.
    ///
    /// # Errors
    ///
    /// If a name has no value, or a value has no place.
    fn into_values(self, sql: &str) -> Result<Vec<Value>, DatabaseError>;
}

/// The fields of a struct, or the entries of a map, as named parameters: `:id` gets the value of the field `id`. Fields
/// that the statement does not name are left out.
///
/// ```
/// use dormouse_sdk::{Named, Params, Value};
///
/// #[derive(serde::Serialize)]
/// struct Order { item: &'static str, quantity: u32 }
///
/// let values = Named(Order { item: "cheese", quantity: 2 })
///     .into_values("UPDATE stock SET quantity = quantity - :quantity WHERE item = :item")?;
/// assert_eq!(values, [Value::Integer(2), Value::Text("cheese".into())]);
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<T>(pub T);

impl<T: Serialize> Params for Named<T> {
    fn into_values(self, sql: &str) -> Result<Vec<Value>, DatabaseError> {
        let fields = match serde_json::to_value(&self.0) {
            Ok(Json::Object(fields)) => fields,
            Ok(_) => return Err(mistake("named parameters come from a struct or a map".to_owned())),
            Err(error) => return Err(mistake(format!("these cannot be parameters: {error}"))),
        };
        let value = |name: &str| {
            let field = fields.get(name).ok_or_else(|| missing(name))?;
            stored(field).ok_or_else(|| mistake(format!("the field `{name}` is no value that SQLite stores")))
        };
        names_in(sql)?.into_iter().map(value).collect()
    }
}

/// A field as SQLite stores it: scalars as they are, a list of bytes as a blob.
fn stored(field: &Json) -> Option<Value> {
    match field {
        Json::Null => Some(Value::Null),
        Json::Bool(yes) => Some((*yes).into()),
        Json::Number(number) if number.is_f64() => number.as_f64().map(Value::Real),
        Json::Number(number) => number.as_i64().map(Value::Integer),
        Json::String(text) => Some(text.into()),
        Json::Array(list) => {
            let bytes = list.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
            bytes.collect::<Option<_>>().map(Value::Blob)
        }
        Json::Object(_) => None,
    }
}

/// Named parameters with their values: `named! { id: 7, name: &guest.name }`.
///
/// ```
/// use dormouse_sdk::{Params, Value, named};
///
/// let values = named! { id: 7, name: "Ada" }.into_values("UPDATE guests SET name = :name WHERE id = :id")?;
/// assert_eq!(values, [Value::Text("Ada".into()), Value::Integer(7)]);
///
/// // A name too many or too few is an error.
/// let error = named! { id: 7, nmae: "Ada" }.into_values("UPDATE guests SET name = :name WHERE id = :id");
/// assert_eq!(error.unwrap_err().to_string(), "the parameter `:name` has no value");
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[macro_export]
macro_rules! named {
    ($($name:ident : $value:expr),* $(,)?) => {
        [$((stringify!($name), $crate::Value::from($value))),*]
    };
}

fn mistake(message: String) -> DatabaseError {
    DatabaseError::Parameters(message)
}

fn missing(name: &str) -> DatabaseError {
    mistake(format!("the parameter `:{name}` has no value"))
}

/// Puts pairs of name and value in the order of the statement's names; each must have its place.
fn in_order(mut pairs: Vec<(&str, Value)>, sql: &str) -> Result<Vec<Value>, DatabaseError> {
    let mut take = |name: &str| {
        let at = pairs.iter().position(|(given, _)| given.trim_start_matches([':', '@', '$']) == name)?;
        Some(pairs.swap_remove(at).1)
    };
    let values: Result<Vec<_>, _> =
        names_in(sql)?.into_iter().map(|name| take(name).ok_or_else(|| missing(name))).collect();
    match pairs.first() {
        Some((left, _)) if values.is_ok() => {
            Err(mistake(format!("the statement has no parameter `:{left}`")))
        }
        _ => values,
    }
}

impl<V: Into<Value>> Params for Vec<(&str, V)> {
    fn into_values(self, sql: &str) -> Result<Vec<Value>, DatabaseError> {
        in_order(self.into_iter().map(|(name, value)| (name, value.into())).collect(), sql)
    }
}

impl<V: Into<Value>, const N: usize> Params for [(&str, V); N] {
    fn into_values(self, sql: &str) -> Result<Vec<Value>, DatabaseError> {
        in_order(self.into_iter().map(|(name, value)| (name, value.into())).collect(), sql)
    }
}

impl<T: Into<Value>> Params for Vec<T> {
    fn into_values(self, _: &str) -> Result<Vec<Value>, DatabaseError> {
        Ok(self.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>, const N: usize> Params for [T; N] {
    fn into_values(self, _: &str) -> Result<Vec<Value>, DatabaseError> {
        Ok(self.into_iter().map(Into::into).collect())
    }
}

macro_rules! params_of_tuple {
    ($($name:ident)*) => {
        impl<$($name: Into<Value>),*> Params for ($($name,)*) {
            fn into_values(self, _: &str) -> Result<Vec<Value>, DatabaseError> {
                #[expect(non_snake_case, reason = "the type parameters' names also name the parts")]
                let ($($name,)*) = self;
                Ok(vec![$($name.into()),*])
            }
        }
    };
}

impl Params for () {
    fn into_values(self, _: &str) -> Result<Vec<Value>, DatabaseError> {
        Ok(Vec::new())
    }
}

params_of_tuple!(A);
params_of_tuple!(A B);
params_of_tuple!(A B C);
params_of_tuple!(A B C D);
params_of_tuple!(A B C D E);
params_of_tuple!(A B C D E F);
params_of_tuple!(A B C D E F G);
params_of_tuple!(A B C D E F G H);
params_of_tuple!(A B C D E F G H I);
params_of_tuple!(A B C D E F G H I J);
params_of_tuple!(A B C D E F G H I J K);
params_of_tuple!(A B C D E F G H I J K L);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn tuples_mix_types() {
        let values = (true, 7_u32, 0.5, String::from("text"), vec![1_u8, 2], None::<i64>).into_values("");
        let expected = [
            Value::Integer(1),
            Value::Integer(7),
            Value::Real(0.5),
            Value::Text("text".into()),
            Value::Blob(vec![1, 2]),
            Value::Null,
        ];
        assert_eq!(values.unwrap(), expected);
    }

    #[test]
    fn arrays_vectors_and_nothing_are_parameters_too() {
        assert_eq!(["a", "b"].into_values("").unwrap(), [Value::Text("a".into()), Value::Text("b".into())]);
        assert_eq!(vec![Some(1), None].into_values("").unwrap(), [Value::Integer(1), Value::Null]);
        assert_eq!(().into_values("").unwrap(), []);
    }

    #[test]
    fn names_may_carry_their_sign_and_stand_twice() {
        let sql = "SELECT :a, @b, :a";
        let values = [(":a", 1), ("@b", 2)].into_values(sql).unwrap();
        assert_eq!(values, [Value::Integer(1), Value::Integer(2)]);
        assert_eq!(vec![("b", 2), ("a", 1)].into_values(sql).unwrap(), values);
    }

    #[test]
    fn names_too_many_or_too_few_are_mistakes() {
        let message = |values: Result<Vec<Value>, DatabaseError>| values.unwrap_err().to_string();
        let few = message([("a", 1)].into_values("SELECT :a, :b"));
        assert_eq!(few, "the parameter `:b` has no value");
        let many = message([("a", 1), ("b", 2)].into_values("SELECT :a"));
        assert_eq!(many, "the statement has no parameter `:b`");
    }

    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Mood {
        Sleepy,
    }

    #[derive(Serialize)]
    struct Guest {
        id: u64,
        weight: f32,
        nickname: Option<String>,
        portrait: Vec<u8>,
        mood: Mood,
        vip: bool,
    }

    fn guest(id: u64) -> Named<Guest> {
        let (weight, portrait, mood) = (2.5, vec![1, 2], Mood::Sleepy);
        Named(Guest { id, weight, nickname: None, portrait, mood, vip: true })
    }

    #[test]
    fn a_struct_gives_its_fields() {
        let values = guest(7).into_values("SELECT :mood, :portrait, :nickname, :weight, :vip, :id").unwrap();
        let expected = [
            Value::Text("sleepy".into()),
            Value::Blob(vec![1, 2]),
            Value::Null,
            Value::Real(2.5),
            Value::Integer(1),
            Value::Integer(7),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn what_sqlite_does_not_store_is_refused_by_name() {
        let error = guest(u64::MAX).into_values("SELECT :id").unwrap_err().to_string();
        assert_eq!(error, "the field `id` is no value that SQLite stores");
        assert!(guest(u64::MAX).into_values("SELECT :vip").is_ok(), "a field that is not asked for");
        assert!(Named(7).into_values("SELECT :id").is_err());
    }
}
