//! The trap of a database backup that PMM runs: it is a child of the client, and ends with it.

use super::ground;
use super::host::{Host, Kind, sprung};
use super::server::Server;
use crate::backups;
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::Arc;

/// A registered client with a MySQL service, and all that a backup needs.
struct Scene {
    ground: Arc<ground::Ground>,
    host: Host,
    service: String,
    location: Value,
}

impl Scene {
    fn new(case: &str) -> Result<Self> {
        let ground = ground::ground()?;
        let server = ground.pmm2()?;
        let host = Host::start(case, Kind::Deb, &server.ip)?;
        host.connect(server.port(), case)?;
        let node = server.node(case)?.context("the registered node")?;
        server.add_mysql(&node, &server.client(&node)?, &format!("mysql-{case}"))?;
        let service = server.service(&format!("mysql-{case}"))?;
        backups::install_in(host.container(), &ground.programs)?;
        let location = post(server, "Locations/Add", &backups::location())?["location_id"].clone();
        Ok(Self {
            ground,
            host,
            service,
            location,
        })
    }

    fn server(&self) -> Result<&Server> {
        self.ground.pmm2()
    }

    /// Starts a backup; returns when it runs.
    fn start(&self, name: &str) -> Result<()> {
        backups::hold(self.host.container())?;
        let request = json!({"service_id": self.service, "location_id": self.location, "name": name, "data_model": "PHYSICAL"});
        post(self.server()?, "Backups/Start", &request)?;
        self.status_becomes(name, "BACKUP_STATUS_IN_PROGRESS")?;
        self.host
            .until(
                "a child of pmm-agent",
                20,
                "pgrep -x xtrabackup -P $(pgrep -x -o pmm-agent)",
            )
            .map(drop)
    }

    fn status(&self, name: &str) -> Result<String> {
        let answer = post(self.server()?, "Artifacts/List", &json!({}))?;
        let rows = answer["artifacts"].as_array().cloned().unwrap_or_default();
        let found = rows
            .iter()
            .find(|row| row["name"] == name && row["service_id"] == self.service.as_str());
        Ok(found
            .and_then(|row| row["status"].as_str())
            .context("the artifact")?
            .to_owned())
    }

    fn status_becomes(&self, name: &str, wanted: &str) -> Result<()> {
        wait::until(&format!("the backup to be {wanted}"), 30, || {
            let now = self.status(name)?;
            wait::check(now == wanted, now)
        })
    }

    fn gone(&self, name: &str) -> Result<()> {
        self.host
            .fails("the backup ends with the client", "pgrep -x xtrabackup", "")?;
        backups::let_go(self.host.container())?;
        let stored = backups::is_stored(self.host.container(), name)?;
        sprung("nothing whole is in the bucket", !stored, "a whole backup")
    }
}

fn post(server: &Server, path: &str, body: &Value) -> Result<Value> {
    let (code, answer) = server.call("POST", &format!("/v1/management/backup/{path}"), Some(body))?;
    ensure!(code == 200, "{path} answered {code}: {answer}");
    Ok(answer)
}

/// Undisturbed it is stored whole; with the client restarted it is lost.
pub fn lost_by_restart() -> Result<()> {
    let scene = Scene::new("backup-restart")?;
    scene.start("whole")?;
    backups::let_go(scene.host.container())?;
    scene.status_becomes("whole", "BACKUP_STATUS_SUCCESS")?;
    ensure!(
        backups::is_stored(scene.host.container(), "whole")?,
        "an undisturbed backup is not in the bucket"
    );
    scene.start("lost")?;
    scene.host.must("systemctl restart pmm-agent")?;
    scene.gone("lost")?;
    scene.status_becomes("lost", "BACKUP_STATUS_ERROR")
}

/// The upgrade page's commands stop the client without a question.
pub fn lost_by_upgrade() -> Result<()> {
    let scene = Scene::new("backup-upgrade")?;
    scene.start("lost")?;
    scene
        .host
        .must("percona-release enable pmm3-client && apt-get install -y pmm-client")?;
    scene.gone("lost")
}
