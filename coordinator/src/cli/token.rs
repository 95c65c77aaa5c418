//! `token`: join tokens.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::duration_ms;
use crate::operator_api::documents::TokenDocument;
use fleet_common::codes::exit;
use fleet_proto::CreateTokenRequest;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a token with which hosts enrol; it is shown once
    Create {
        /// Label for people, such as the group that the hosts will be in
        #[arg(long, default_value = "")]
        group: String,
        /// Machines that may join with it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it is valid: 30m, 24h, 7d
        #[arg(long, default_value = "24h", value_parser = duration_ms)]
        ttl: u64,
    },
}

pub async fn run(command: Command, client: &mut Client, output: &Output) -> Ended {
    let Command::Create { group, uses, ttl } = command;
    let request = CreateTokenRequest {
        group,
        uses,
        ttl_ms: ttl,
    };
    let document: TokenDocument = client::read(client.create_token(request).await)?;
    if !output.is_json() {
        output.note(&format!(
            "valid for {} machine(s) until {}; shown only now",
            document.uses, document.expires_at
        ));
    }
    output.document(&document, |document| document.token.clone());
    Ok(exit::OK)
}
