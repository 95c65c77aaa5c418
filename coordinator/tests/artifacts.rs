//! Files by digest, on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::digest::sha256_hex;
use fleet_proto::{ArtifactChunk, ArtifactRequest};
use std::path::PathBuf;
use support::Coordinator;
use support::agent::Identity;
use tonic::{Code, Status, Streaming};

struct Scene {
    coordinator: Coordinator,
    identity: Identity,
    bytes: Vec<u8>,
    sha256: String,
}

impl Scene {
    /// A file that was put there while the coordinator serves.
    async fn new(length: usize) -> Self {
        let coordinator = Coordinator::start();
        let identity = Identity::enrol(coordinator.enrolment, &coordinator.token(5, "1h"), "db-1").await;
        let bytes: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
        let scene = Self {
            sha256: sha256_hex(&bytes),
            coordinator,
            identity,
            bytes,
        };
        std::fs::write(scene.file(), &scene.bytes).unwrap();
        scene
    }

    fn file(&self) -> PathBuf {
        self.coordinator.data().join("artifacts/package.deb")
    }

    async fn ask(&self, sha256: &str, offset: u64) -> Result<Streaming<ArtifactChunk>, Status> {
        let request = ArtifactRequest {
            sha256: sha256.to_owned(),
            offset,
        };
        // A start looks at the directory; for a file that came later an unknown digest makes it look again, every two seconds at most.
        let until = std::time::Instant::now() + support::PATIENCE;
        loop {
            let mut calls = self.identity.calls(self.coordinator.agents).await;
            match calls.artifact(request.clone()).await {
                Err(status)
                    if status.code() == Code::NotFound
                        && sha256 == self.sha256
                        && std::time::Instant::now() < until =>
                {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                other => return other.map(tonic::Response::into_inner),
            }
        }
    }

    async fn refused(&self, sha256: &str, offset: u64) -> Code {
        match self.ask(sha256, offset).await {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        }
    }
}

async fn rest(mut stream: Streaming<ArtifactChunk>, length: u64) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await? {
        assert_eq!(chunk.length, length);
        assert!(chunk.data.len() <= 64 * 1024);
        bytes.extend(chunk.data);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_download_goes_on_where_it_broke() {
    let scene = Scene::new(1_000_000).await;
    let mut stream = scene.ask(&scene.sha256, 0).await.unwrap();
    let mut here = stream.message().await.unwrap().unwrap().data;
    assert!(!here.is_empty() && here.len() < scene.bytes.len());
    drop(stream);
    let stream = scene.ask(&scene.sha256, here.len() as u64).await.unwrap();
    here.extend(rest(stream, 1_000_000).await.unwrap());
    assert!(here == scene.bytes);
    // At the end there is nothing more, which is no error.
    let stream = scene.ask(&scene.sha256, 1_000_000).await.unwrap();
    assert!(rest(stream, 1_000_000).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_and_what_is_refused() {
    let scene = Scene::new(1_000).await;
    assert_eq!(scene.refused(&sha256_hex(b"nothing"), 0).await, Code::NotFound);
    assert_eq!(scene.refused(&scene.sha256, 1_001).await, Code::OutOfRange);
    for bad in ["", "package.deb", "../store.sqlite", &scene.sha256.to_uppercase()] {
        assert_eq!(scene.refused(bad, 0).await, Code::InvalidArgument, "{bad}");
    }
    let store = std::fs::read(scene.coordinator.data().join("pki/ca.key")).unwrap();
    std::os::unix::fs::symlink(
        scene.coordinator.data().join("pki/ca.key"),
        scene.coordinator.data().join("artifacts/link"),
    )
    .unwrap();
    assert_eq!(scene.refused(&sha256_hex(&store), 0).await, Code::NotFound);
    assert!(
        scene
            .coordinator
            .command(&["host", "revoke", "db-1"])
            .status
            .success()
    );
    assert_eq!(scene.refused(&scene.sha256, 0).await, Code::PermissionDenied);
    let bare = fleet_tls::client::without_certificate(scene.identity.ca.as_bytes()).unwrap();
    let refused = match support::agent::channel(scene.coordinator.agents, bare).await {
        Err(_) => true,
        Ok(channel) => fleet_proto::agent_link_client::AgentLinkClient::new(channel)
            .artifact(ArtifactRequest {
                sha256: scene.sha256.clone(),
                offset: 0,
            })
            .await
            .is_err(),
    };
    assert!(refused, "without a certificate there is nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_underneath_is_not_passed_off_as_the_old_one() {
    let scene = Scene::new(20_000_000).await;
    let mut stream = scene.ask(&scene.sha256, 0).await.unwrap();
    stream.message().await.unwrap().unwrap();
    // Flow control holds the rest back: the file is changed long before its end was read.
    std::fs::write(scene.file(), b"another").unwrap();
    let status = rest(stream, 20_000_000).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert_ne!(
        scene
            .ask(&sha256_hex(b"another"), 0)
            .await
            .map(|_| ())
            .map_err(|status| status.code()),
        Err(Code::Aborted)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_downloads_than_places_are_asked_to_come_again() {
    let scene = Scene::new(20_000_000).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(scene.ask(&scene.sha256, 0).await.unwrap());
    }
    assert_eq!(scene.refused(&scene.sha256, 0).await, Code::ResourceExhausted);
    open.pop();
    let until = std::time::Instant::now() + support::PATIENCE;
    while scene.refused(&scene.sha256, 0).await != Code::Ok {
        assert!(std::time::Instant::now() < until, "the place was not given back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
