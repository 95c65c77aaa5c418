//! The server's own client: keeps the connection as every client does and reports for the server's node and database.

use std::{io, time::Duration};

use hyper::{HeaderMap, body::Bytes, header::HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::{http, log, managed, role, version::Version, vm};
use crate::wire::{self, AgentSpec, FromServer};

/// pmm-agent of the server.
pub async fn run() -> io::Result<()> {
    let version = Version::of_image();
    log::line(format!("level=info msg=\"pmm-agent {version}\" component=main"));
    let mut stop = std::pin::pin!(role::stop_signal());
    loop {
        tokio::select! {
            signal = &mut stop => return signal.map(|_| ()),
            end = session(version) => if let Err(e) = end {
                log::line(format!("level=error msg=\"Failed to connect to 127.0.0.1:7771: {e}\" component=client"));
            }
        }
        tokio::select! {
            signal = &mut stop => return signal.map(|_| ()),
            () = role::sleep(1.0) => {}
        }
    }
}

async fn session(version: Version) -> io::Result<()> {
    let path = if version.is_v3() {
        wire::CONNECT_V3
    } else {
        wire::CONNECT_V2
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", wire::UPGRADE),
        ("pmm-agent-id", "pmm-server"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let answer = http::call(managed::PORT, "POST", path, &headers, Bytes::new()).await?;
    let status = answer.status;
    let Some(upgrade) = answer.upgrade else {
        return Err(io::Error::other(format!("status {status}")));
    };
    let stream = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
    let (reader, mut writer) = tokio::io::split(stream);
    let base = if version.is_v3() {
        "/usr/local/percona/pmm"
    } else {
        "/usr/local/percona/pmm2"
    };
    let hello = json!({"t": "hello", "agent_id": "pmm-server", "version": version.to_string(), "node_exporter_path": format!("{base}/exporters/node_exporter")});
    writer.write_all(format!("{hello}\n").as_bytes()).await?;
    let mut lines = BufReader::new(reader).lines();
    let mut agents: Vec<AgentSpec> = Vec::new();
    let (mut every, mut ticks) = (10, 0u64);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                if let Ok(FromServer::State { agents: all, resolution_s, .. }) = serde_json::from_str(&line) {
                    every = resolution_s.mr.max(1);
                    agents = all;
                    ticks = 0;
                }
            }
            _ = tick.tick() => {
                writer.write_all(b"{\"t\":\"ping\"}\n").await?;
                if ticks.is_multiple_of(every) {
                    report(&mut writer, &agents, base).await?;
                }
                ticks += 1;
            }
        }
    }
}

async fn report(
    writer: &mut (impl AsyncWriteExt + Unpin),
    agents: &[AgentSpec],
    base: &str,
) -> io::Result<()> {
    let now = jiff::Timestamp::now();
    let mut samples = String::new();
    let mut statuses = Vec::new();
    let mut buckets = Vec::new();
    for (port, a) in (42_000u32..).zip(agents) {
        let exporter = !a.agent_type.starts_with("qan_");
        let listen = if exporter { port } else { 0 };
        statuses.push(json!({"agent_id": a.agent_id, "status": "RUNNING", "listen_port": listen, "process_exec_path": format!("{base}/exporters/{}", a.agent_type)}));
        if exporter {
            let labels = format!(
                "agent_id=\"{}\",agent_type=\"{}\",node_id=\"pmm-server\",node_name=\"pmm-server\",service_id=\"{}\",service_name=\"{}\",job=\"{}_mr\"",
                a.agent_id, a.agent_type, a.service_id, a.service_name, a.agent_type
            );
            let at = now.as_millisecond();
            samples.push_str(&format!("up{{{labels}}} 1 {at}\n"));
            if a.agent_type == "postgres_exporter" {
                samples.push_str(&format!("pg_up{{{labels}}} 1 {at}\n"));
            }
        } else {
            buckets.push(json!({"agent_id": a.agent_id, "service_id": a.service_id, "queryid": "SELECTPGSTAT0001", "fingerprint": "SELECT * FROM pg_stat_activity", "num_queries": 5.0, "query_time": 0.05, "period_start": now.as_second()}));
        }
    }
    writer
        .write_all(format!("{}\n", json!({"t": "status", "agents": statuses})).as_bytes())
        .await?;
    if !buckets.is_empty() {
        writer
            .write_all(format!("{}\n", json!({"t": "qan", "buckets": buckets})).as_bytes())
            .await?;
    }
    if !samples.is_empty() {
        // What VictoriaMetrics does not take now is lost; the next round comes.
        let _ = vm::write(samples).await;
    }
    Ok(())
}
