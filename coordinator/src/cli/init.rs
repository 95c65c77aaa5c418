//! `init`: the data directory with CA, server certificate and store.

use super::Ended;
use super::output::Output;
use crate::config::DataDir;
use crate::config::permissions::private_dir;
use crate::pki;
use crate::problem::{Problem, Problems};
use crate::store::Store;
use fleet_common::codes::exit;
use serde::Serialize;

#[derive(clap::Args)]
pub struct Arguments {
    /// Name or address under which agents reach this coordinator; repeat for several
    #[arg(long = "name", value_name = "HOST", required = true)]
    names: Vec<String>,
}

#[derive(Serialize)]
struct InitDocument {
    data: String,
    names: Vec<String>,
    ca_key_sha256: String,
}

pub fn run(arguments: &Arguments, data: &DataDir, output: &Output) -> Ended {
    let document = init(arguments, data)?;
    output.document(&document, |document| {
        format!(
            "initialised {}\n  agents reach it as: {}\n  CA key (SHA-256):   {}\nnext: `pmm-coordinator serve`, then `pmm-coordinator token create`",
            document.data,
            document.names.join(", "),
            document.ca_key_sha256
        )
    });
    Ok(exit::OK)
}

fn init(arguments: &Arguments, data: &DataDir) -> Result<InitDocument, Problems> {
    let shown = data.path().display().to_string();
    if data.store().exists() {
        return Err(Problem::new(format!("{shown} is initialised already"))
            .hint("a second CA would lock out every host that has enrolled; choose another directory with --data")
            .into());
    }
    private_dir(data.path()).map_err(|error| Problem::because(format!("{shown} can't be made"), &error))?;
    let half = data.pki().exists();
    let strangers = fs_err::read_dir(data.path())
        .map_err(|error| Problem::because(format!("{shown} can't be read"), &error))?
        .filter_map(Result::ok)
        .any(|entry| entry.file_name() != "pki");
    if strangers {
        return Err(
            Problem::new(format!("{shown} is not empty and not a coordinator's directory"))
                .hint("choose an empty directory with --data")
                .into(),
        );
    }
    if half {
        // The store is made last, so a directory without it never served anybody.
        tracing::debug!("an earlier init did not finish; starting over");
    }
    pki::create(data, &arguments.names)
        .map_err(|error| Problem::because("CA and server certificate can't be made", &error))?;
    let authority =
        pki::load(data).map_err(|error| Problem::because("the new CA can't be read back", &error))?;
    Store::create(&data.store()).map_err(|error| Problem::because("the store can't be made", &error))?;
    let ca_key_sha256 = authority
        .key_digest()
        .map_err(|error| Problem::because("the new CA can't be read back", &error))?;
    Ok(InitDocument {
        data: shown,
        names: arguments.names.clone(),
        ca_key_sha256,
    })
}
