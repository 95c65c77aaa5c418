//! How JSON differs between the majors: PMM 2 leaves default values out, PMM 3 always sends them.

use serde_json::Value;

/// Removes what the gateway of PMM 2 does not send: null, false, zero, empty texts, lists and objects.
///
/// Elements of lists stay, whatever they are, and so do the fields of objects that are lists' elements unless they are empty themselves.
pub fn omit_defaults(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(omit_defaults);
            fields.retain(|_, v| !is_default(v));
        }
        Value::Array(items) => items.iter_mut().for_each(omit_defaults),
        _ => {}
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_answer_is_an_empty_object() {
        let mut doc = json!({"mysql": [], "a": {"b": "", "c": 0, "d": false}, "e": null});
        omit_defaults(&mut doc);
        assert_eq!(doc, json!({}));
    }

    #[test]
    fn list_elements_stay() {
        let mut doc = json!({"agents": [{"id": "x", "port": 0}, {}]});
        omit_defaults(&mut doc);
        assert_eq!(doc, json!({"agents": [{"id": "x"}, {}]}));
    }
}
