//! From Rust values to the parameters of a statement.
//!
//! A parameter is whatever converts into a [`Value`] without loss; a statement's parameters are a tuple, an array or
//! a vector of those. A `u64` or `usize` does not always fit SQLite's signed 64 bits, so the caller converts it.

#[doc(inline)]
pub use crate::bindings::spin::sqlite::sqlite::Value;

/// The parameters of a statement, in the order of its `?`: `()`, a tuple, an array, or a `Vec<Value>`.
///
/// ```
/// use dormouse_sdk::{Params, Value};
///
/// assert_eq!((1, "two", None::<f64>).into_values(), [Value::Integer(1), Value::Text("two".into()), Value::Null]);
/// ```
pub trait Params {
    /// The values to bind.
    fn into_values(self) -> Vec<Value>;
}

impl<T: Into<Value>> Params for Vec<T> {
    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Value>, const N: usize> Params for [T; N] {
    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Into::into).collect()
    }
}

macro_rules! params_of_tuple {
    ($($name:ident)*) => {
        impl<$($name: Into<Value>),*> Params for ($($name,)*) {
            fn into_values(self) -> Vec<Value> {
                #[expect(non_snake_case, reason = "the type parameters' names also name the parts")]
                let ($($name,)*) = self;
                vec![$($name.into()),*]
            }
        }
    };
}

impl Params for () {
    fn into_values(self) -> Vec<Value> {
        Vec::new()
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
    &[u8] => Value::Blob;
    Vec<u8> => Value::Blob;
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(from: Option<T>) -> Self {
        from.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_mix_types() {
        let values = (true, 7_u32, 0.5, String::from("text"), vec![1_u8, 2], None::<i64>).into_values();
        let expected = [
            Value::Integer(1),
            Value::Integer(7),
            Value::Real(0.5),
            Value::Text("text".into()),
            Value::Blob(vec![1, 2]),
            Value::Null,
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn arrays_vectors_and_nothing_are_parameters_too() {
        assert_eq!(["a", "b"].into_values(), [Value::Text("a".into()), Value::Text("b".into())]);
        assert_eq!(vec![Some(1), None].into_values(), [Value::Integer(1), Value::Null]);
        assert_eq!(().into_values(), []);
    }
}
