//! The coordinator, as `serve` puts it together, in this process.

use crate::fleet::Pmm;
use fake_agent::Token;
use fleet_common::digest::sha256_hex;
use pmm_coordinator::agent_api::{self, EnrolmentService, SessionService};
use pmm_coordinator::artifacts::Artifacts;
use pmm_coordinator::clock;
use pmm_coordinator::config::DataDir;
use pmm_coordinator::config::permissions::private_dir;
use pmm_coordinator::engine::{self, EngineHandle};
use pmm_coordinator::pki::{self, Authority};
use pmm_coordinator::sessions::Sessions;
use pmm_coordinator::store::{AuditEntry, NewToken, Store};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub struct Coordinator {
    pub store: Store,
    pub sessions: Sessions,
    pub engine: EngineHandle,
    pub agents: SocketAddr,
    pub enrolment: SocketAddr,
    authority: Arc<Authority>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Coordinator {
    pub async fn start(pmm: &Pmm) -> anyhow::Result<Self> {
        fleet_tls::install_default();
        let dir = tempfile::tempdir()?;
        let data = DataDir::new(dir.path().join("data"));
        private_dir(data.path())?;
        pki::create(&data, &["localhost".to_owned()])?;
        Store::create(&data.store())?;
        let authority = Arc::new(pki::load(&data)?);
        let tls = pki::server_configs(&data, &authority)?;
        let store = Store::open(&data.store())?;
        let sessions = Sessions::default();
        let stop = CancellationToken::new();
        let hangup = signal(SignalKind::hangup())?;
        let (agents_tls, enrol_tls) =
            pki::keep_current(data.clone(), authority.clone(), tls, hangup, stop.clone());
        let (agents, enrol) = (
            agent_api::bind(([127, 0, 0, 1], 0).into())?,
            agent_api::bind(([127, 0, 0, 1], 0).into())?,
        );
        let addresses = (agents.address, enrol.address);
        let deps = engine::Deps {
            store: store.clone(),
            sessions: sessions.clone(),
            drivers: Arc::new(pmm.clone()),
            term: store.take_over().await?,
            stop: stop.clone(),
        };
        let (handle, _) = engine::start(deps).await?;
        let service = SessionService::new(
            store.clone(),
            sessions.clone(),
            handle.clone(),
            authority.clone(),
            Artifacts::open(&data.artifacts())?,
        );
        let enrolment = EnrolmentService::new(store.clone(), authority.clone());
        tokio::spawn(agent_api::serve_agents(
            agents,
            agents_tls,
            store.clone(),
            service,
            stop.clone(),
        ));
        tokio::spawn(agent_api::serve_enrolment(
            enrol,
            enrol_tls,
            enrolment,
            stop.clone(),
        ));
        Ok(Self {
            store,
            sessions,
            engine: handle,
            agents: addresses.0,
            enrolment: addresses.1,
            authority,
            stop,
            _dir: dir,
        })
    }

    /// A join token for so many hosts.
    pub async fn token(&self, uses: u64) -> anyhow::Result<Token> {
        let now_ms = clock::now_ms();
        let secret = "not-secret-it-lives-for-one-run";
        let stored = NewToken {
            token_id: "bench".to_owned(),
            secret_sha256: sha256_hex(secret.as_bytes()),
            group_label: "bench".to_owned(),
            uses,
            created_at_ms: now_ms,
            expires_at_ms: now_ms + 3_600_000,
        };
        self.store.create_token(stored, audit("token create")).await?;
        Ok(Token::parse(&format!(
            "bench.{secret}.{}",
            self.authority.key_digest()?
        )))
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn audit(what: &str) -> AuditEntry {
    AuditEntry {
        at_ms: clock::now_ms(),
        who: "bench".to_owned(),
        what: what.to_owned(),
        detail: String::new(),
    }
}

/// Both ends of each connection are ours.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Too few descriptors show as refused connections.
    let _ = setrlimit(Resource::Nofile, raised);
}
