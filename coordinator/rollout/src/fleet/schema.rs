//! The JSON Schema of the fleet file, generated from the types that read it.

use super::raw;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, generate::SchemaSettings};
use serde_json::Value;

/// The schema as a document. It says the shape of a file; what values mean together is checked by [`super::parse`].
pub fn json_schema() -> Value {
    let settings = SchemaSettings::draft07().with_transform(RecursiveTransform(no_null));
    settings
        .into_generator()
        .into_root_schema_for::<raw::File>()
        .to_value()
}

/// TOML has no null: a key that is not needed is left out.
fn no_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|found| found != "null");
        if let [one] = &types[..] {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.retain(|found| found.get("type").is_none_or(|found| found != "null"));
        if let [Value::Object(one)] = &any[..] {
            let one = one.clone();
            schema.remove("anyOf");
            for (key, value) in one {
                schema.insert(key, value);
            }
        }
    }
}
