//! Published ports: the host's side is kept, PMM 3 listens on other ports inside (8080 and 8443 instead of 80 and 443).

use serde_json::{Map, Value, json};

/// PMM 2's ports inside of the container and PMM 3's.
const MOVED: &[(&str, &str)] = &[("80/tcp", "8080/tcp"), ("443/tcp", "8443/tcp")];

/// The port inside of the container after the hop.
pub fn translate_port(port: &str, crosses_majors: bool) -> String {
    MOVED
        .iter()
        .find(|(old, _)| crosses_majors && *old == port)
        .map_or_else(|| port.to_owned(), |(_, new)| (*new).to_owned())
}

/// The port bindings of the new container. `bindings` is `HostConfig.PortBindings`, `running` is `NetworkSettings.Ports`; a host port
/// that Docker chose by itself (empty or with `-P`) is fixed to the one that clients use now.
pub fn translate_bindings(
    bindings: &Value,
    running: &Value,
    publish_all: bool,
    crosses_majors: bool,
) -> Value {
    let mut merged: Map<String, Value> = Map::new();
    let empty = Map::new();
    let declared = bindings.as_object().unwrap_or(&empty);
    let actual = running.as_object().unwrap_or(&empty);
    let all = declared.iter().chain(
        actual
            .iter()
            .filter(|(port, _)| publish_all && !declared.contains_key(*port)),
    );
    for (port, list) in all {
        let list = list.as_array().cloned().unwrap_or_default();
        let list: Vec<Value> = if list
            .iter()
            .any(|one| one["HostPort"].as_str().unwrap_or_default().is_empty())
        {
            actual
                .get(port)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or(list)
        } else {
            list
        };
        if list.is_empty() {
            continue;
        }
        let target = merged
            .entry(translate_port(port, crosses_majors))
            .or_insert_with(|| json!([]));
        if let Value::Array(there) = target {
            for one in list {
                if !there.contains(&one) {
                    there.push(one);
                }
            }
        }
    }
    Value::Object(merged)
}

/// Exposed ports of the container that its image does not expose, translated.
pub fn translate_exposed(container: &Value, image: &Value, crosses_majors: bool) -> Value {
    let mut out = Map::new();
    for port in container.as_object().into_iter().flat_map(Map::keys) {
        if image.get(port).is_none() {
            out.insert(translate_port(port, crosses_majors), json!({}));
        }
    }
    Value::Object(out)
}

/// `host-ip:host-port->port` lines for people.
pub fn describe(bindings: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (port, list) in bindings.as_object().into_iter().flatten() {
        for one in list.as_array().into_iter().flatten() {
            let ip = one["HostIp"]
                .as_str()
                .filter(|ip| !ip.is_empty())
                .unwrap_or("0.0.0.0");
            lines.push(format!(
                "{ip}:{}->{port}",
                one["HostPort"].as_str().unwrap_or("?")
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hosts_side_is_kept() {
        let old = json!({"443/tcp": [{"HostIp": "10.0.0.1", "HostPort": "443"}, {"HostIp": "", "HostPort": "8443"}],
                         "80/tcp": [{"HostIp": "", "HostPort": "80"}], "9999/udp": [{"HostIp": "", "HostPort": "1"}]});
        let new = translate_bindings(&old, &json!({}), false, true);
        assert_eq!(
            new,
            json!({"8443/tcp": [{"HostIp": "10.0.0.1", "HostPort": "443"}, {"HostIp": "", "HostPort": "8443"}],
                         "8080/tcp": [{"HostIp": "", "HostPort": "80"}], "9999/udp": [{"HostIp": "", "HostPort": "1"}]})
        );
        assert_eq!(translate_bindings(&old, &json!({}), false, false), old);
    }

    #[test]
    fn ports_that_docker_chose_are_fixed() {
        let running = json!({"443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49154"}], "80/tcp": null});
        let chosen = translate_bindings(
            &json!({"443/tcp": [{"HostIp": "", "HostPort": ""}]}),
            &running,
            false,
            true,
        );
        assert_eq!(
            chosen,
            json!({"8443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49154"}]})
        );
        assert_eq!(translate_bindings(&json!({}), &running, true, true), chosen);
        assert_eq!(translate_bindings(&json!({}), &running, false, true), json!({}));
    }

    proptest! {
        #[test]
        fn no_host_port_is_lost(ports in proptest::collection::btree_map(1u16..500, 1u16..60000, 0..8)) {
            let old: Map<String, Value> = ports.iter()
                .map(|(inner, outer)| (format!("{inner}/tcp"), json!([{"HostIp": "", "HostPort": outer.to_string()}]))).collect();
            let new = translate_bindings(&Value::Object(old.clone()), &json!({}), false, true);
            let count = |value: &Value| describe(value).len();
            prop_assert_eq!(count(&new), count(&Value::Object(old)));
        }
    }
}
