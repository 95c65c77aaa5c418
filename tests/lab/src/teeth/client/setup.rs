//! Traps of registration, identity and credentials.

use super::ground;
use super::host::{Host, Kind, sprung};
use crate::wait::{self, Probe};
use anyhow::{Context, Result};

const CONFIG: &str = "/usr/local/percona/pmm2/config/pmm-agent.yaml";

/// A registered client of PMM 2 with one service; node and agent id.
fn registered(host: &Host, server: &super::server::Server, node: &str) -> Result<(String, String)> {
    host.connect(server.port(), node)?;
    let id = server.node(node)?.context("the registered node")?;
    let agent = server.client(&id)?;
    server.add_mysql(&id, &agent, &format!("mysql-{node}"))?;
    Ok((id, agent))
}

pub fn again_is_a_conflict() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm2()?;
    let host = Host::start("setup-again", Kind::Deb, &server.ip)?;
    registered(&host, server, "setup-again")?;
    let again = "pmm-admin config --server-insecure-tls --server-url=https://admin:admin@pmm.lab:443 127.0.0.1 generic setup-again";
    host.fails(
        "every setup registers anew and conflicts",
        again,
        "already exists",
    )?;
    host.fails("it recommends the option that destroys", again, "--force")
}

pub fn force_deletes_services() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm2()?;
    let host = Host::start("setup-force", Kind::Deb, &server.ip)?;
    let (node, agent) = registered(&host, server, "setup-force")?;
    sprung(
        "there is a service",
        server.services(&node)? == ["mysql-setup-force"],
        "another list of services",
    )?;
    host.must("pmm-admin config --force --server-insecure-tls --server-url=https://admin:admin@pmm.lab:443 127.0.0.1 generic setup-force")?;
    let now = server.node("setup-force")?.context("the node")?;
    let client = server.client(&now)?;
    sprung(
        "--force makes another node and another client",
        now != node && client != agent,
        &format!("{now} {client}"),
    )?;
    let services = server.services(&now)?;
    sprung(
        "its services are deleted",
        services.is_empty(),
        &services.join(", "),
    )?;
    let orphans = server.services(&node)?;
    sprung("and nobody has them", orphans.is_empty(), &orphans.join(", "))
}

pub fn v2_cannot_register_on_v3() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm3()?;
    let host = Host::start("v2-registers-on-v3", Kind::Deb, &server.ip)?;
    let words = "pmm-admin config --server-insecure-tls --server-url=https://admin:admin@pmm.lab:8443 127.0.0.1 generic v2-on-v3";
    host.fails("a PMM 2 client cannot register on PMM 3", words, "404")?;
    sprung(
        "nothing was registered",
        server.node("v2-on-v3")?.is_none(),
        "a node",
    )
}

pub fn v3_cannot_use_v2() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm2()?;
    let host = Host::start("v3-client-on-v2", Kind::Deb, &server.ip)?;
    registered(&host, server, "v3-client-on-v2")?;
    // Clients first, server later: the wrong order.
    host.must(&format!(
        "cp -a {CONFIG} {CONFIG}.bak && percona-release enable pmm3-client && apt-get install -y pmm-client"
    ))?;
    let status = host.status_until("the PMM 3 client with its identity", 20, |status| {
        status["agent_version"] == "3.9.1" && status["agent_id"] != ""
    })?;
    host.until(
        "its refusal",
        20,
        "journalctl -q --no-pager -u pmm-agent -o cat | grep 'server answered 404'",
    )?;
    sprung(
        "a newer client can't use an older server",
        status["server_info"]["connected"] != true,
        &status.to_string(),
    )
}

pub fn unmigrated_server() -> Result<()> {
    let ground = ground::ground()?;
    let (two, three) = (ground.pmm2()?, ground.pmm3()?);
    let host = Host::start("unmigrated-server", Kind::Deb, &two.ip)?;
    registered(&host, two, "unmigrated-server")?;
    // PMM 3 was set up beside PMM 2 instead of migrating it; the client is switched and pointed there.
    host.must(&format!(
        "sed -i 's#pmm.lab:443#{}:8443#' {CONFIG} && cp -a {CONFIG} {CONFIG}.bak",
        three.ip
    ))?;
    host.must("percona-release enable pmm3-client && apt-get install -y pmm-client")?;
    host.until(
        "the warning about the id's prefix",
        20,
        "journalctl -q --no-pager -u pmm-agent -o cat | grep \"prefix '/agent_id/'\"",
    )?;
    host.until(
        "a fresh PMM 3 does not know the client",
        20,
        "journalctl -q --no-pager -u pmm-agent -o cat | grep 'server answered 404'",
    )?;
    let status = host.status()?;
    sprung(
        "it never connects",
        status["server_info"]["connected"] != true,
        &status.to_string(),
    )
}

pub fn stale_credentials() -> Result<()> {
    let ground = ground::ground()?;
    let (two, three) = (ground.pmm2()?, ground.pmm3()?);
    let host = Host::start("stale-credentials", Kind::Deb, &two.ip)?;
    registered(&host, two, "stale-credentials")?;
    // The password was changed years ago; nobody noticed, because PMM 2 does not ask for it on this connection.
    let stale =
        format!("sed -i 's#password: admin#password: forgotten#' {CONFIG} && systemctl restart pmm-agent");
    host.must(&stale)?;
    host.status_until("PMM 2 takes a client with a wrong password", 20, |status| {
        status["server_info"]["connected"] == true
    })?;
    let (_, agent) = three.register("stale-credentials")?;
    let move_over = format!(
        "sed -i -e 's#^id: .*#id: /agent_id/{agent}#' -e 's#pmm.lab:443#{}:8443#' {CONFIG}",
        three.ip
    );
    host.must(&format!("{move_over} && systemctl restart pmm-agent"))?;
    host.until(
        "PMM 3 to refuse it",
        20,
        "journalctl -q --no-pager -u pmm-agent -o cat | grep 'server answered 401'",
    )?;
    let status = host.status()?;
    sprung(
        "the same client is not connected to PMM 3",
        status["server_info"]["connected"] != true,
        &status.to_string(),
    )?;
    // Proof that the password is the only reason.
    host.must(&format!(
        "sed -i 's#password: forgotten#password: admin#' {CONFIG} && systemctl restart pmm-agent"
    ))?;
    host.status_until(
        "the PMM 2 client to work with PMM 3 once its password is right",
        20,
        |status| status["server_info"]["connected"] == true,
    )
    .map(drop)
}

pub fn two_agents_one_id() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm2()?;
    let host = Host::start("two-agents", Kind::Deb, &server.ip)?;
    let (_, agent) = registered(&host, server, "two-agents")?;
    // A copy of the machine's client: the same id, another port.
    host.must("install -o pmm-agent /dev/null /tmp/copy.log")?;
    host.background(&format!("exec runuser -u pmm-agent -- pmm-agent --config-file={CONFIG} --listen-port=7778 > /tmp/copy.log 2>&1"))?;
    let first =
        "journalctl -q --no-pager -u pmm-agent -o cat | grep 'another connection with the same agent id'";
    host.until("the first to be thrown out", 30, first)?;
    host.until(
        "the second to be thrown out, too",
        30,
        "grep 'another connection with the same agent id' /tmp/copy.log",
    )?;
    let mut seen = [false, false];
    wait::until("both to take turns", 30, || {
        let status = host.status()?;
        seen[usize::from(status["server_info"]["connected"] == true)] = true;
        Ok(if seen == [true, true] {
            Probe::Ready(())
        } else {
            Probe::NotYet(format!("{seen:?}"))
        })
    })?;
    // The server cannot tell: it shows a connected client.
    wait::until("the server to call the client connected", 20, || {
        Ok(if server.connected(&agent)? {
            Probe::Ready(())
        } else {
            Probe::NotYet("not connected".to_owned())
        })
    })
}

pub fn exit_code_lies() -> Result<()> {
    let host = Host::alone("exit-code-lies", Kind::Deb)?;
    host.status_until("the client without a server", 20, |status| {
        status["agent_id"] != ""
    })?;
    host.holds(
        "pmm-admin status ends with 0 without a connection",
        "pmm-admin status --json",
    )?;
    host.holds(
        "the answer says so",
        "pmm-admin status --json | tr -d ' \\n' | grep -q '\"connected\":false'",
    )?;
    host.holds(
        "and has no node id",
        "pmm-admin status --json | tr -d ' \\n' | grep -q '\"node_id\":\"\"'",
    )
}
