//! Settings, in the names of each major. What the environment says wins and cannot be changed here.

use serde_json::{Map, Value, json};

use crate::server::{env::Overrides, http::Resp, version::Version};

/// The settings of a new installation.
pub fn fresh(version: Version) -> Value {
    let mut all = json!({
        "metrics_resolutions": {"hr": "5s", "mr": "10s", "lr": "60s"},
        "data_retention": "2592000s",
        "aws_partitions": ["aws"],
        "pmm_public_address": "",
        "ssh_key": "",
        "azurediscover_enabled": false,
        "enable_access_control": false,
        "default_role_id": 1,
    });
    let intervals =
        json!({"standard_interval": "86400s", "rare_interval": "280800s", "frequent_interval": "14400s"});
    if version.is_v3() {
        for name in ["updates", "telemetry", "alerting", "backup_management"] {
            all[format!("{name}_enabled")] = json!(true);
        }
        all["advisor_enabled"] = json!(true);
        all["advisor_run_intervals"] = intervals;
    } else {
        for name in ["updates", "telemetry", "alerting", "backup_management"] {
            all[format!("{name}_disabled")] = json!(false);
        }
        all["stt_enabled"] = json!(true);
        all["stt_check_intervals"] = intervals;
        all["alert_manager_url"] = json!("");
        all["alert_manager_rules"] = json!("");
        all["platform_email"] = json!("");
    }
    all
}

/// The settings in force: the stored ones with the environment's on top.
pub fn effective(stored: &Value, env: &Overrides, version: Version) -> Value {
    let mut all = stored.clone();
    for (name, value) in &env.values {
        match name.split_once('.') {
            Some((group, field)) => all[group][field] = value.clone(),
            // A flag is stored turned around in 2.x.
            None if !version.is_v3()
                && name.ends_with("_enabled")
                && all.get(name.replace("_enabled", "_disabled")).is_some() =>
            {
                all[name.replace("_enabled", "_disabled")] = json!(!value.as_bool().unwrap_or(true));
            }
            None => all[name.as_str()] = value.clone(),
        }
    }
    all
}

/// The settings as the API shows them.
pub fn show(effective: &Value, version: Version) -> Value {
    let mut out = Map::new();
    let flag = |name: &str| {
        effective[format!("{name}_enabled")]
            .as_bool()
            .unwrap_or_else(|| !effective[format!("{name}_disabled")].as_bool().unwrap_or(false))
    };
    for (name, value) in effective.as_object().into_iter().flatten() {
        if !name.ends_with("_disabled") {
            out.insert(name.clone(), value.clone());
        }
    }
    for name in ["updates", "telemetry", "alerting", "backup_management"] {
        out.insert(format!("{name}_enabled"), json!(flag(name)));
    }
    if version.is_v3() {
        out.insert("update_snooze_duration".to_owned(), json!("604800s"));
    } else {
        out.remove("updates_enabled");
        out.insert("updates_disabled".to_owned(), json!(!flag("updates")));
    }
    json!({"settings": out})
}

/// Seconds of a duration text (`5s`, `60s`).
pub fn seconds(text: &str) -> Option<u64> {
    text.strip_suffix('s')?
        .parse::<f64>()
        .ok()
        .filter(|s| *s >= 1.0 && s.fract() == 0.0)
        .map(|s| s as u64)
}

/// The metric resolutions of the settings.
pub fn resolutions(effective: &Value) -> crate::wire::Resolutions {
    let get = |name: &str, default| {
        effective["metrics_resolutions"][name]
            .as_str()
            .and_then(seconds)
            .unwrap_or(default)
    };
    crate::wire::Resolutions {
        hr: get("hr", 5),
        mr: get("mr", 10),
        lr: get("lr", 60),
    }
}

/// Applies a change request to the stored settings.
pub fn change(stored: &mut Value, request: &Value, env: &Overrides, version: Version) -> Result<(), Resp> {
    let invalid = |text: String| Resp::grpc(400, 3, &text);
    for (name, value) in request.as_object().into_iter().flatten() {
        let fixed = |key: &str| {
            env.values
                .keys()
                .any(|k| k == key || k.starts_with(&format!("{key}.")))
        };
        match name.as_str() {
            "metrics_resolutions" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let text = value.as_str().unwrap_or_default();
                    if seconds(text).is_none() {
                        return Err(invalid(format!(
                            "{key}: minimal resolution is 1s and resolution should be a natural number of seconds"
                        )));
                    }
                    if fixed("metrics_resolutions") {
                        return Err(Resp::grpc(
                            400,
                            9,
                            "Metrics resolution is set via environment variable.",
                        ));
                    }
                    stored["metrics_resolutions"][key] = value.clone();
                }
            }
            "data_retention" => {
                let days = value
                    .as_str()
                    .and_then(seconds)
                    .filter(|s| *s >= 86_400 && s % 86_400 == 0);
                if days.is_none() {
                    return Err(invalid(
                        "data_retention: should be a natural number of days".to_owned(),
                    ));
                }
                if fixed("data_retention") {
                    return Err(Resp::grpc(
                        400,
                        9,
                        "Data retention for queries is set via environment variable.",
                    ));
                }
                stored["data_retention"] = value.clone();
            }
            "pmm_public_address"
            | "ssh_key"
            | "aws_partitions"
            | "stt_check_intervals"
            | "advisor_run_intervals"
            | "enable_access_control" => {
                stored[name.as_str()] = value.clone();
            }
            "alert_manager_url" | "alert_manager_rules" if !version.is_v3() => {
                stored[name.as_str()] = value.clone()
            }
            _ => {
                let (on, rest) = match (name.strip_prefix("enable_"), name.strip_prefix("disable_")) {
                    (Some(rest), _) => (value.as_bool().unwrap_or(false), rest),
                    (_, Some(rest)) => (!value.as_bool().unwrap_or(false), rest),
                    _ => continue,
                };
                // 2.x has a pair of flags, where false means "leave as it is".
                if !version.is_v3() && value != &Value::Bool(true) {
                    continue;
                }
                let enabled = format!("{rest}_enabled");
                if fixed(&enabled) {
                    return Err(Resp::grpc(
                        400,
                        9,
                        &format!("{rest} is set via environment variable."),
                    ));
                }
                if version.is_v3() || matches!(rest, "stt" | "azurediscover") {
                    stored[enabled.as_str()] = json!(on);
                } else {
                    stored[format!("{rest}_disabled")] = json!(!on);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_are_shown_in_the_words_of_the_major() {
        let (v2, v3) = (Version::new(2, 44, 1), Version::new(3, 7, 1));
        let mut stored = fresh(v2);
        assert!(
            change(
                &mut stored,
                &json!({"disable_updates": true, "enable_telemetry": false}),
                &Overrides::default(),
                v2
            )
            .is_ok()
        );
        assert_eq!(show(&stored, v2)["settings"]["updates_disabled"], true);
        assert_eq!(show(&stored, v2)["settings"]["telemetry_enabled"], true);
        let mut stored = fresh(v3);
        assert!(
            change(
                &mut stored,
                &json!({"enable_updates": false}),
                &Overrides::default(),
                v3
            )
            .is_ok()
        );
        assert_eq!(show(&stored, v3)["settings"]["updates_enabled"], false);
    }

    #[test]
    fn resolutions_are_whole_seconds() {
        let v2 = Version::new(2, 44, 1);
        let mut stored = fresh(v2);
        assert!(
            change(
                &mut stored,
                &json!({"metrics_resolutions": {"hr": "0.5s"}}),
                &Overrides::default(),
                v2
            )
            .is_err()
        );
        assert!(
            change(
                &mut stored,
                &json!({"metrics_resolutions": {"hr": "1s", "mr": "2s", "lr": "5s"}}),
                &Overrides::default(),
                v2
            )
            .is_ok()
        );
        assert_eq!(
            resolutions(&stored),
            crate::wire::Resolutions { hr: 1, mr: 2, lr: 5 }
        );
    }
}
