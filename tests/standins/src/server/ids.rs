//! Inventory ids: with a prefix in PMM 2, bare in PMM 3.

/// What an id carries in front in PMM 2.
pub const PREFIXES: &[&str] = &[
    "/agent_id/",
    "/node_id/",
    "/service_id/",
    "/machine_id/",
    "/location_id/",
    "/artifact_id/",
    "/restore_id/",
    "/scheduled_task_id/",
    "/job_id/",
    "/action_id/",
];

/// An id without its prefix.
pub fn bare(id: &str) -> &str {
    PREFIXES.iter().find_map(|p| id.strip_prefix(p)).unwrap_or(id)
}

/// Whether two ids mean the same thing whatever their form.
pub fn same(a: &str, b: &str) -> bool {
    bare(a) == bare(b)
}

/// A new id of a kind: `agent`, `node`, `service` and so on.
pub fn new(kind: &str, v3: bool) -> String {
    let id = uuid::Uuid::new_v4();
    if v3 {
        id.to_string()
    } else {
        format!("/{kind}_id/{id}")
    }
}

/// Removes the prefixes from every text below a value, in keys' values as well as in lists.
pub fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => {
            if let Some(short) = PREFIXES.iter().find_map(|p| text.strip_prefix(p)) {
                *text = short.to_owned();
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_and_the_rest_stays() {
        assert_eq!(bare("/agent_id/1-2"), "1-2");
        assert_eq!(bare("pmm-server"), "pmm-server");
        assert!(same("/node_id/a", "a"));
        let mut doc = serde_json::json!({"a": ["/service_id/x", "/other/x"], "b": {"c": "/machine_id/y"}});
        strip(&mut doc);
        assert_eq!(doc, serde_json::json!({"a": ["x", "/other/x"], "b": {"c": "y"}}));
    }
}
