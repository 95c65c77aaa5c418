//! Users, API keys, service accounts and the conversion of the one into the other.

use base64::Engine;
use serde_json::{Value, json};

use super::{Caller, Grafana, message, next_id};
use crate::server::{
    auth::{Credential, Role},
    http::{Req, Resp},
    switches::Switches,
};

/// Finds out whom a credential belongs to.
pub fn whoami(doc: &Value, credential: &Credential) -> Option<Caller> {
    let list = |name: &str| doc[name].as_array().cloned().unwrap_or_default();
    let role = |v: &Value| Role::parse(v["role"].as_str().unwrap_or_default());
    match credential {
        Credential::Basic(login, password) => list("users")
            .iter()
            .find(|u| {
                (u["login"] == login.as_str() || u["email"] == login.as_str())
                    && u["password"] == password.as_str()
                    && u["disabled"] != true
            })
            .map(|u| Caller {
                role: role(u),
                login: login.clone(),
                id: u["id"].as_u64().unwrap_or(0),
            }),
        Credential::Token(key) => {
            let direct = list("api_keys").into_iter().find(|k| k["key"] == key.as_str());
            let account = || {
                list("service_accounts").into_iter().find(|a| {
                    a["tokens"]
                        .as_array()
                        .is_some_and(|t| t.iter().any(|t| t["key"] == key.as_str()))
                })
            };
            direct.or_else(account).map(|k| Caller {
                role: role(&k),
                login: String::new(),
                id: 0,
            })
        }
    }
}

fn has_id(item: &Value, id: &str) -> bool {
    item["id"].as_u64().is_some_and(|n| id.parse() == Ok(n))
}

fn secret(prefix: &str) -> String {
    format!(
        "{prefix}{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}

fn public_user(u: &Value) -> Value {
    json!({"id": u["id"], "login": u["login"], "email": u["email"], "name": u["name"], "isGrafanaAdmin": u["isGrafanaAdmin"] == true, "isAdmin": u["isGrafanaAdmin"] == true, "orgId": 1, "isDisabled": false})
}

/// Answers what concerns accounts.
pub async fn route(state: &Grafana, req: &Req, path: &str, caller: &Caller) -> Option<Resp> {
    let admin = caller.role == Role::Admin;
    let parts: Vec<&str> = path.trim_start_matches("/api/").split('/').collect();
    let body = req.json().unwrap_or(Value::Null);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    Some(match (req.method.as_str(), parts.as_slice()) {
        ("GET", ["org"]) => Resp::json(200, &json!({"id": 1, "name": "Main Org.", "address": {"address1": "", "city": ""}})),
        ("GET", ["user"]) if caller.id == 0 => message(401, "Unauthorized"),
        ("GET", ["user"]) => state.read(|d| {
            let user = d["users"].as_array().into_iter().flatten().find(|u| u["id"] == caller.id).cloned().unwrap_or_default();
            Resp::json(200, &public_user(&user))
        }),
        ("GET", ["user", "orgs"]) => Resp::json(200, &json!([{"orgId": 1, "name": "Main Org.", "role": format!("{:?}", caller.role)}])),
        _ if !admin => return None,
        ("GET", ["users" | "org", ..]) => state.read(|d| {
            let users = d["users"].as_array().into_iter().flatten();
            Resp::json(200, &users.map(|u| {
                let mut user = public_user(u);
                user["role"] = u["role"].clone();
                user["userId"] = u["id"].clone();
                user
            }).collect())
        }),
        ("POST", ["admin", "users"]) => {
            let (login, password) = (text("login"), text("password"));
            if login.is_empty() || password.is_empty() {
                return Some(message(400, "Password is missing or too short"));
            }
            let (email, role) = (text("email"), body["role"].as_str().unwrap_or("Viewer").to_owned());
            state
                .change(|d| {
                    if d["users"].as_array().is_some_and(|u| u.iter().any(|u| u["login"] == login.as_str())) {
                        return message(412, &format!("user '{login}' already exists"));
                    }
                    let id = next_id(d);
                    push(d, "users", json!({"id": id, "login": login, "email": email, "name": login, "password": password, "role": role}));
                    Resp::json(200, &json!({"id": id, "message": "User created"}))
                })
                .await
        }
        ("PUT", ["admin", "users", id, "password"]) => {
            let password = text("password");
            edit(state, "users", id, |u| u["password"] = json!(password), "User password updated").await
        }
        ("PATCH", ["org", "users", id]) => {
            let role = text("role");
            edit(state, "users", id, |u| u["role"] = json!(role), "Organization user updated").await
        }
        ("DELETE", ["admin", "users", id]) => remove(state, "users", id, "User deleted").await,
        ("GET", ["auth", "keys"]) => state.read(|d| {
            let keys = d["api_keys"].as_array().into_iter().flatten();
            Resp::json(200, &keys.map(|k| json!({"id": k["id"], "name": k["name"], "role": k["role"]})).collect())
        }),
        // The endpoint went away with the newer Grafana; existing keys stay valid.
        ("POST", ["auth", "keys"]) if state.version.is_v3() => message(410, "this endpoint has been removed, please use POST /api/serviceaccounts instead"),
        ("POST", ["auth", "keys"]) => create_key(state, text("name"), text("role")).await,
        ("DELETE", ["auth", "keys", id]) => remove(state, "api_keys", id, "API key deleted").await,
        ("POST", ["serviceaccounts", "migrate"]) if state.version.is_v3() => migrate(state).await,
        ("GET", ["serviceaccounts", "search"]) => state.read(|d| {
            let accounts: Vec<Value> = d["service_accounts"].as_array().into_iter().flatten().map(public_account).collect();
            Resp::json(200, &json!({"totalCount": accounts.len(), "serviceAccounts": accounts, "page": 1, "perPage": 1000}))
        }),
        ("POST", ["serviceaccounts"]) => {
            let (name, role) = (text("name"), body["role"].as_str().unwrap_or("Viewer").to_owned());
            state
                .change(|d| {
                    let id = next_id(d);
                    let account = json!({"id": id, "name": name, "role": role, "tokens": []});
                    let answer = Resp::json(201, &public_account(&account));
                    push(d, "service_accounts", account);
                    answer
                })
                .await
        }
        ("POST", ["serviceaccounts", id, "tokens"]) => {
            let (name, key, id) = (text("name"), secret("glsa_"), (*id).to_owned());
            state
                .change(|d| {
                    let token = next_id(d);
                    let account = d["service_accounts"].as_array_mut().into_iter().flatten().find(|a| has_id(a, &id));
                    let Some(tokens) = account.and_then(|a| a["tokens"].as_array_mut()) else { return message(404, "service account not found") };
                    tokens.push(json!({"id": token, "name": name, "key": key}));
                    Resp::json(200, &json!({"id": token, "name": name, "key": key}))
                })
                .await
        }
        ("GET", ["serviceaccounts", id, "tokens"]) => state.read(|d| {
            let account = d["service_accounts"].as_array().into_iter().flatten().find(|a| has_id(a, id));
            let tokens = account.and_then(|a| a["tokens"].as_array()).into_iter().flatten();
            Resp::json(200, &tokens.map(|t| json!({"id": t["id"], "name": t["name"]})).collect())
        }),
        ("DELETE", ["serviceaccounts", id]) => remove(state, "service_accounts", id, "Service account deleted").await,
        _ => return None,
    })
}

fn public_account(a: &Value) -> Value {
    let tokens = a["tokens"].as_array().map_or(0, Vec::len);
    json!({"id": a["id"], "name": a["name"], "login": format!("sa-{}", a["name"].as_str().unwrap_or_default()), "role": a["role"], "orgId": 1, "isDisabled": false, "tokens": tokens})
}

async fn create_key(state: &Grafana, name: String, role: String) -> Resp {
    let raw = json!({"k": secret(""), "n": name, "id": 1}).to_string();
    let key = base64::engine::general_purpose::STANDARD.encode(raw);
    state
        .change(|d| {
            if d["api_keys"]
                .as_array()
                .is_some_and(|k| k.iter().any(|k| k["name"] == name.as_str()))
            {
                return message(
                    409,
                    "API key with the same name in the organization already exists",
                );
            }
            let id = next_id(d);
            push(
                d,
                "api_keys",
                json!({"id": id, "name": name, "role": role, "key": key}),
            );
            Resp::json(200, &json!({"id": id, "name": name, "key": key}))
        })
        .await
}

/// Turns each API key into a service account with a token of the same secret. A second call finds nothing to do.
async fn migrate(state: &Grafana) -> Resp {
    let bad = Switches::now().bad_keys;
    state
        .change(|d| {
            let keys = d["api_keys"].as_array().cloned().unwrap_or_default();
            let (mut failed, mut details, mut kept, mut migrated) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for key in &keys {
                let name = key["name"].as_str().unwrap_or_default();
                if bad.iter().any(|b| b == name) {
                    failed.push(key["id"].clone());
                    details.push(json!(format!("API key name: {name} - Error: failed to create service account")));
                    kept.push(key.clone());
                    continue;
                }
                migrated += 1;
                let id = next_id(d);
                let short = if name.len() > 200 { format!("{}_{:08x}", &name[..180], name.len()) } else { name.to_owned() };
                push(d, "service_accounts", json!({"id": id, "name": short, "role": key["role"], "tokens": [{"id": key["id"], "name": name, "key": key["key"]}]}));
            }
            d["api_keys"] = json!(kept);
            Resp::json(200, &json!({"total": keys.len(), "migrated": migrated, "failed": failed.len(), "failedApikeyIDs": failed, "failedDetails": details}))
        })
        .await
}

/// Adds to a list of the document.
pub fn push(doc: &mut Value, list: &str, item: Value) {
    match doc[list].as_array_mut() {
        Some(items) => items.push(item),
        None => doc[list] = json!([item]),
    }
}

async fn edit(state: &Grafana, list: &str, id: &str, f: impl FnOnce(&mut Value), done: &str) -> Resp {
    state
        .change(|d| {
            match d[list]
                .as_array_mut()
                .into_iter()
                .flatten()
                .find(|i| has_id(i, id))
            {
                Some(item) => {
                    f(item);
                    message(200, done)
                }
                None => message(404, "not found"),
            }
        })
        .await
}

async fn remove(state: &Grafana, list: &str, id: &str, done: &str) -> Resp {
    state
        .change(|d| {
            let Some(items) = d[list].as_array_mut() else {
                return message(404, "not found");
            };
            let before = items.len();
            items.retain(|i| !has_id(i, id));
            if items.len() == before {
                message(404, "not found")
            } else {
                message(200, done)
            }
        })
        .await
}
