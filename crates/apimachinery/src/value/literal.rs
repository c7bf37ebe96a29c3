//! Values written as JSON in code.

/// Written as in JSON, with Rust's expressions in it: `json!({"replicas": count})`. An expression is only looked at. A key that
/// is more than one literal or name stands in parentheses: `json!({(key()): true})`.
#[macro_export]
macro_rules! json {
    (null) => { $crate::Value::Null };
    ([ $($items:tt)* ]) => { $crate::json!(@items [] $($items)*) };
    ({}) => { $crate::Value::Object($crate::Map::new()) };
    ({ $($fields:tt)+ }) => {{
        let mut map = $crate::Map::new();
        $crate::json!(@fields map $($fields)+);
        $crate::Value::Object(map)
    }};

    // One item after the other: what is JSON's own before what is Rust's.
    (@items [ $($done:expr,)* ]) => { $crate::Value::Array(::std::vec![$($done),*]) };
    (@items [ $($done:expr,)* ] null $(, $($rest:tt)*)?) => {
        $crate::json!(@items [ $($done,)* $crate::Value::Null, ] $($($rest)*)?)
    };
    (@items [ $($done:expr,)* ] [ $($item:tt)* ] $(, $($rest:tt)*)?) => {
        $crate::json!(@items [ $($done,)* $crate::json!([ $($item)* ]), ] $($($rest)*)?)
    };
    (@items [ $($done:expr,)* ] { $($item:tt)* } $(, $($rest:tt)*)?) => {
        $crate::json!(@items [ $($done,)* $crate::json!({ $($item)* }), ] $($($rest)*)?)
    };
    (@items [ $($done:expr,)* ] $item:expr $(, $($rest:tt)*)?) => {
        $crate::json!(@items [ $($done,)* $crate::json!($item), ] $($($rest)*)?)
    };

    (@fields $map:ident) => {};
    (@fields $map:ident $key:tt : null $(, $($rest:tt)*)?) => {
        $map.insert($key, $crate::Value::Null);
        $crate::json!(@fields $map $($($rest)*)?);
    };
    (@fields $map:ident $key:tt : [ $($value:tt)* ] $(, $($rest:tt)*)?) => {
        $map.insert($key, $crate::json!([ $($value)* ]));
        $crate::json!(@fields $map $($($rest)*)?);
    };
    (@fields $map:ident $key:tt : { $($value:tt)* } $(, $($rest:tt)*)?) => {
        $map.insert($key, $crate::json!({ $($value)* }));
        $crate::json!(@fields $map $($($rest)*)?);
    };
    (@fields $map:ident $key:tt : $value:expr $(, $($rest:tt)*)?) => {
        $map.insert($key, $crate::json!($value));
        $crate::json!(@fields $map $($($rest)*)?);
    };

    ($value:expr) => {
        $crate::to_value(&$value).expect("what is written in code can be serialized")
    };
}
