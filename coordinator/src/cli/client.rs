//! The connection to the coordinator.

use super::Ended;
use crate::config::DataDir;
use crate::problem::{Problem, Problems};
use fleet_common::codes::exit;
use fleet_proto::operator_client::OperatorClient;
use fleet_proto::{Document, Empty};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// A connected client.
pub type Client = OperatorClient<Channel>;

/// Connects and runs a command that needs the coordinator.
pub fn with(data: &DataDir, work: impl AsyncFnOnce(&mut Client) -> Ended) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::because("no runtime for the connection", &error))?;
    runtime.block_on(async {
        let mut client = connect(data.socket()).await?;
        work(&mut client).await
    })
}

/// Connects to the operator socket.
pub async fn connect(path: PathBuf) -> Result<Client, Problems> {
    let shown = path.display().to_string();
    // Asked for first, because the error of the channel hides the reason.
    UnixStream::connect(&path)
        .await
        .map_err(|error| unreachable_problem(&shown, &error))?;
    let endpoint = Endpoint::from_static("http://coordinator.invalid");
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreachable_problem(&shown, &error))?;
    Ok(OperatorClient::new(channel).max_decoding_message_size(256 * 1024 * 1024))
}

fn unreachable_problem(socket: &str, error: &dyn std::error::Error) -> Problems {
    let problem = Problem::because(format!("the coordinator can't be reached at {socket}"), error)
        .hint("is `pmm-coordinator serve` running, and is `--data` the same directory?")
        .hint("the socket is open only to the account that the coordinator runs as, and to root");
    Problems::from(problem).exit(exit::UNREACHABLE)
}

/// Takes the document out of an answer.
pub fn read<T: DeserializeOwned>(answer: Result<Response<Document>, Status>) -> Result<T, Problems> {
    let document = answer.map_err(|status| refusal(&status))?.into_inner();
    serde_json::from_slice(&document.json).map_err(|error| {
        Problem::because("the coordinator's answer is not understood", &error)
            .hint("the command and the coordinator may be of different releases")
            .into()
    })
}

/// What the coordinator refused.
pub fn refusal(status: &Status) -> Problems {
    // What the coordinator itself says has no source: a source is an error of the connection, such as an answer that was cut off in the middle.
    if status.code() == tonic::Code::Unavailable || std::error::Error::source(status).is_some() {
        let problem = Problem::new("the connection to the coordinator broke")
            .hint("it may have been restarted; give the command again");
        return Problems::from(problem).exit(exit::UNREACHABLE);
    }
    Problems::from_status(status)
}

/// An empty request.
pub fn empty() -> Empty {
    Empty {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_off_is_no_refusal() {
        let cut = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let problems = refusal(&Status::from_error(Box::new(cut)));
        assert_eq!(problems.exit, exit::UNREACHABLE);
        let problems = refusal(&Status::unknown("no such host"));
        assert_ne!(problems.exit, exit::UNREACHABLE);
    }
}
