//! The stand-in PMM Server: every program of the genuine image as a role of one binary, under the genuine supervisord.
//!
//! What is kept of the genuine one are the facts that bite: who owns which data, what a clean stop is, what `/srv` looks like, which data a
//! release takes and refuses, what the HTTP API says and leaves out, who may call what, when it is unhealthy.

mod auth;
mod clickhouse;
mod entrypoint;
mod env;
mod grafana;
mod http;
mod idle;
mod ids;
mod init;
mod log;
mod managed;
mod nginx;
mod own_agent;
mod pg;
mod promql;
mod qan;
mod role;
mod shape;
mod switches;
mod tls;
mod tsdb;
mod version;
mod vm;

use grafana::push as grafana_push;

/// Runs the role of a name; the result is the exit code.
pub fn main(role: &str, args: &[String]) -> i32 {
    if args.iter().any(|a| a == "--version") {
        log::say(format!(
            "ProjectName: {role}\nVersion: {}\nPMMVersion: {}",
            version::Version::of_image(),
            version::Version::of_image()
        ));
        return 0;
    }
    match role {
        "entrypoint" => entrypoint::run(),
        "pmm-managed-init" => env::init(version::Version::of_image().is_v3()),
        "pmm-managed" => role::block_on(managed::run()),
        "postgres" | "postgresql" => role::block_on(pg::run()),
        "clickhouse" | "clickhouse-server" => role::block_on(clickhouse::run()),
        "grafana" | "grafana-server" => role::block_on(grafana::run()),
        "nginx" => role::block_on(nginx::run()),
        "victoriametrics" => role::block_on(vm::run()),
        "vmproxy" => role::block_on(vm::proxy()),
        "vmalert" => role::block_on(idle::vmalert()),
        "alertmanager" => role::block_on(idle::alertmanager()),
        "dbaas-controller" => role::block_on(idle::dbaas()),
        "qan-api2" | "percona-qan-api2" => role::block_on(qan::run()),
        "pmm-agent" => role::block_on(own_agent::run()),
        "pmm-init" => role::block_on(init::start()),
        "pmm-update" => role::block_on(init::update()),
        _ => {
            log::say(format!("unknown role {role:?}"));
            64
        }
    }
}
