//! `watch` while the coordinator keeps its connection and says nothing more: a frame that is old must not pass for the present.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_proto::{Document, Empty};
use std::convert::Infallible;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pmm-coordinator");
/// A rollout in the middle of a group.
const FRAME: &[u8] = include_bytes!("../src/cli/fixtures/group.json");

/// Answers every call with one frame and then with nothing at all.
#[derive(Clone)]
struct FallsSilent;

impl NamedService for FallsSilent {
    const NAME: &'static str = "fleet.v1.Operator";
}

impl tower::Service<http::Request<Body>> for FallsSilent {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(tonic_prost::ProstCodec::<Document, Empty>::default());
            Ok(grpc.server_streaming(Self, request).await)
        })
    }
}

impl ServerStreamingService<Empty> for FallsSilent {
    type Response = Document;
    type ResponseStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<Document, Status>> + Send>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        let frame = tokio_stream::once(Ok(Document { json: FRAME.to_vec() }));
        let stream: Self::ResponseStream = Box::pin(frame.chain(tokio_stream::pending()));
        Box::pin(async move { Ok(Response::new(stream)) })
    }
}

/// Serves for as long as the test process lives.
fn falls_silent(data: &Path) {
    let socket = data.join("operator.sock");
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(socket).unwrap();
            ready.send(()).unwrap();
            let server = tonic::transport::Server::builder().add_service(FallsSilent);
            server
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        });
    });
    is_ready.recv().unwrap();
}

/// Reads what a viewer shows until it says this, and ends the viewer.
fn shows(mut viewer: Child, mut from: impl Read + Send + 'static, text: &str) -> String {
    let seen = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&seen);
    std::thread::spawn(move || {
        let mut block = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut block) {
            sink.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&block[..read]));
        }
    });
    support::until(text, || seen.lock().unwrap().contains(text));
    viewer.kill().unwrap();
    viewer.wait().unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn a_frame_on_a_terminal_is_marked_when_nothing_newer_comes() {
    let dir = tempfile::tempdir().unwrap();
    falls_silent(dir.path());
    // It gives the program a terminal.
    let mut viewer = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command"])
        .arg(format!(
            "stty cols 100 rows 50 && exec {PROGRAM} --data {} watch",
            dir.path().display()
        ))
        .arg("/dev/null")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` runs here: it is in the package bsdutils (or util-linux)");
    let out = viewer.stdout.take().unwrap();
    let seen = shows(viewer, out, "trying again");
    let (fresh, marked) = seen.split_once("no answer since ").unwrap();
    assert!(fresh.contains("db-2 (rest)"), "the frame came first: {fresh}");
    assert!(
        marked.contains(" UTC (") && marked.contains("trying again"),
        "{marked}"
    );
}

#[test]
fn a_viewer_in_a_pipe_says_once_that_nothing_comes() {
    let dir = tempfile::tempdir().unwrap();
    falls_silent(dir.path());
    let mut viewer = Command::new(PROGRAM)
        .arg("--data")
        .arg(dir.path())
        .args(["watch", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let err = viewer.stderr.take().unwrap();
    let seen = shows(viewer, err, "the coordinator does not answer");
    assert_eq!(seen.lines().count(), 1, "{seen}");
}
