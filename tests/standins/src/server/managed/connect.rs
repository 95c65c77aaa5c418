//! The clients' long connections: one per client, state at every change, statuses and query buckets back.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use hyper::{header::HeaderValue, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::{
    Managed, backup,
    model::{self, items, items_mut, text},
    settings,
};
use crate::{
    server::{
        http::{self, Req, Resp},
        ids, log, qan,
        switches::{self, Switches},
    },
    wire::{self, AgentSpec, AgentStatus, Bucket, FromClient, FromServer},
};

/// Takes a client's connection, or refuses it.
pub fn accept(state: &Arc<Managed>, mut req: Req) -> Resp {
    let id = req.header("pmm-agent-id").to_owned();
    let known = {
        let doc = state.doc();
        model::find(&doc, "agents", "agent_id", &id)
            .filter(|a| text(a, "agent_type") == "pmm_agent")
            .map(|a| text(a, "agent_id").to_owned())
    };
    let Some(known) = known else {
        return Resp::grpc(404, 5, &format!("Agent with ID {id:?} not found."));
    };
    let Some(upgrade) = req.upgrade.take() else {
        return Resp::grpc(400, 3, "the connection is not upgraded");
    };
    tokio::spawn(hold(Arc::clone(state), known, upgrade));
    let mut resp = Resp::empty(101);
    resp.headers.remove("content-type");
    resp.headers
        .insert("connection", HeaderValue::from_static("Upgrade"));
    resp.headers
        .insert("upgrade", HeaderValue::from_static(wire::UPGRADE));
    resp
}

async fn hold(state: Arc<Managed>, id: String, upgrade: OnUpgrade) {
    let Ok(stream) = upgrade.await else { return };
    let stream = TokioIo::new(stream);
    let node = node_of(&state, &id).1;
    if switches::names(&Switches::now().silent_drop, &[&id, ids::bare(&id), &node]) {
        // The peer believes in a connection that nobody serves.
        tokio::time::sleep(Duration::from_secs(600)).await;
        return;
    }
    let serial = state.serial.fetch_add(1, Ordering::Relaxed) + 1;
    let key = ids::bare(&id).to_owned();
    state
        .connections
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key.clone(), serial);
    // An older connection of the same client sees that it was replaced.
    state.changed.send_modify(|n| *n += 1);
    log::line(format!(
        "level=info msg=\"Connected pmm-agent: {id}\" agent_id={id}"
    ));
    let end = talk(&state, &id, &key, serial, stream).await;
    let mut connections = state.connections.lock().unwrap_or_else(PoisonError::into_inner);
    if connections.get(&key) == Some(&serial) {
        connections.remove(&key);
    }
    drop(connections);
    log::line(format!(
        "level=info msg=\"Disconnecting client\" agent_id={id} reason={:?}",
        end.map_or_else(|e| e.to_string(), str::to_owned)
    ));
}

async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    state: &Managed,
    id: &str,
    key: &str,
    serial: u64,
    stream: S,
) -> io::Result<&'static str> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    let mut changed = state.changed.subscribe();
    let mut sent = String::new();
    let dead = Duration::from_secs(wire::DEAD_AFTER_S);
    loop {
        let current = state
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied();
        if current != Some(serial) {
            send(&mut writer, &FromServer::Kicked {}).await?;
            return Ok("another connection of the same client");
        }
        let Some(frame) = desired(state, id) else {
            return Ok("the client was removed from the inventory");
        };
        let text = serde_json::to_string(&frame).map_err(io::Error::other)?;
        if text != sent {
            writer.write_all(format!("{text}\n").as_bytes()).await?;
            sent = text;
        }
        for job in backup::take_due(state, id).await {
            send(&mut writer, &FromServer::Job { job }).await?;
        }
        tokio::select! {
            _ = changed.changed() => {}
            line = tokio::time::timeout(dead, lines.next_line()) => {
                let Ok(line) = line else { return Ok("silence") };
                let Some(line) = line? else { return Ok("closed by the client") };
                match serde_json::from_str(&line) {
                    Ok(FromClient::Ping {}) => send(&mut writer, &FromServer::Pong {}).await?,
                    Ok(FromClient::Hello { version, node_exporter_path, jobs, .. }) => {
                        hello(state, id, &version, &node_exporter_path).await;
                        backup::came_with(state, id, &jobs).await;
                    }
                    Ok(FromClient::Job { job_id, error }) => backup::ended(state, id, &job_id, &error).await,
                    Ok(FromClient::Status { agents }) => statuses(state, id, &agents).await,
                    Ok(FromClient::Qan { buckets }) => collect(state, id, buckets).await,
                    Err(e) => log::line(format!("level=warning msg=\"unknown frame: {e}\" agent_id={id}")),
                }
            }
        }
    }
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), frame: &FromServer) -> io::Result<()> {
    let text = serde_json::to_string(frame).map_err(io::Error::other)?;
    writer.write_all(format!("{text}\n").as_bytes()).await
}

fn node_of(state: &Managed, id: &str) -> (String, String) {
    let doc = state.doc();
    let node = model::find(&doc, "agents", "agent_id", id).map_or("", |a| text(a, "runs_on_node_id"));
    let name = model::find(&doc, "nodes", "node_id", node).map_or("", |n| text(n, "node_name"));
    (node.to_owned(), name.to_owned())
}

fn desired(state: &Managed, id: &str) -> Option<FromServer> {
    let (node_id, node_name) = node_of(state, id);
    let resolution_s = settings::resolutions(&state.settings());
    let doc = state.doc();
    model::find(&doc, "agents", "agent_id", id)?;
    let agents = items(&doc, "agents")
        .filter(|a| ids::same(text(a, "pmm_agent_id"), id) && a["disabled"] != true)
        .map(|a| {
            let service = model::find(&doc, "services", "service_id", text(a, "service_id"));
            let custom = service
                .and_then(|s| s["custom_labels"].as_object())
                .into_iter()
                .flatten();
            AgentSpec {
                agent_id: text(a, "agent_id").to_owned(),
                agent_type: text(a, "agent_type").to_owned(),
                service_id: text(a, "service_id").to_owned(),
                service_name: service.map_or("", |s| text(s, "service_name")).to_owned(),
                custom_labels: custom
                    .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                    .collect(),
            }
        })
        .collect();
    Some(FromServer::State {
        node_id,
        node_name,
        server_version: state.version.to_string(),
        resolution_s,
        agents,
    })
}

/// Sets fields of agents, and stores the document only if that changed anything.
async fn set(state: &Managed, changes: &[(String, Value)]) {
    let apply = |doc: &mut Value| {
        let mut any = false;
        for (id, fields) in changes {
            for agent in items_mut(doc, "agents").filter(|a| ids::same(text(a, "agent_id"), id)) {
                for (name, value) in fields.as_object().into_iter().flatten() {
                    if &agent[name.as_str()] != value {
                        agent[name.as_str()] = value.clone();
                        any = true;
                    }
                }
            }
        }
        any
    };
    if !apply(&mut state.doc().clone()) {
        return;
    }
    let stored = state
        .change(|doc| {
            apply(doc);
            Ok(())
        })
        .await;
    if stored.is_err() {
        log::line("level=error msg=\"statuses could not be stored\"");
    }
}

async fn hello(state: &Managed, id: &str, version: &str, path: &str) {
    set(
        state,
        &[(
            id.to_owned(),
            json!({"version": version, "process_exec_path": path}),
        )],
    )
    .await;
}

async fn statuses(state: &Managed, id: &str, agents: &[AgentStatus]) {
    let own = |agent: &AgentStatus| {
        let doc = state.doc();
        model::find(&doc, "agents", "agent_id", &agent.agent_id)
            .is_some_and(|a| ids::same(text(a, "pmm_agent_id"), id))
    };
    let changes: Vec<(String, Value)> = agents
        .iter()
        .filter(|a| own(a))
        .map(|a| (a.agent_id.clone(), json!({"status": a.status, "listen_port": a.listen_port, "process_exec_path": a.process_exec_path})))
        .collect();
    set(state, &changes).await;
}

/// Hands query buckets on to qan-api2; what it does not take is lost.
async fn collect(state: &Managed, id: &str, buckets: Vec<Bucket>) {
    let (node_id, node_name) = node_of(state, id);
    let rows: Vec<Value> = {
        let doc = state.doc();
        buckets
            .into_iter()
            .filter_map(|b| {
                let agent = model::find(&doc, "agents", "agent_id", &b.agent_id)?;
                let service = model::find(&doc, "services", "service_id", text(agent, "service_id"))?;
                Some(json!({
                    "agent_id": agent["agent_id"], "agent_type": agent["agent_type"], "service_id": service["service_id"],
                    "service_name": service["service_name"], "service_type": service["service_type"], "node_id": node_id, "node_name": node_name,
                    "database": text(service, "database_name"), "queryid": b.queryid, "fingerprint": b.fingerprint,
                    "num_queries": b.num_queries, "query_time": b.query_time, "period_start": b.period_start,
                }))
            })
            .collect()
    };
    if rows.is_empty() {
        return;
    }
    match http::call_json(qan::PORT, "POST", "/internal/collect", Some(&json!(rows))).await {
        Ok(answer) if answer.ok() => {}
        Ok(answer) => log::line(format!(
            "level=error msg=\"Failed to send {} QAN buckets: status {}\"",
            rows.len(),
            answer.status
        )),
        Err(e) => log::line(format!(
            "level=error msg=\"Failed to send {} QAN buckets: {e}\"",
            rows.len()
        )),
    }
}
