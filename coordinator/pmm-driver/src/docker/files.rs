//! Files of containers, running or not.

use super::{Docker, failed, not_found};
use crate::error::DriverError;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::StreamExt;
use hyper::body::Bytes;
use std::io::Read;

/// Larger files are nothing that we read.
const MOST: u64 = 1 << 20;

impl Docker {
    /// The text of a small file inside of a container; `None` when it is not there.
    pub async fn read_file(&self, container: &str, path: &str) -> Result<Option<String>, DriverError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut stream = Box::pin(self.api.download_from_container(container, Some(options)));
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(part) = stream.next().await {
            match part {
                Ok(part) if (bytes.len() + part.len()) as u64 <= 2 * MOST => bytes.extend_from_slice(&part),
                Ok(_) => {
                    return Err(DriverError::Answer {
                        what: format!("{path} in {container}"),
                        message: "too large".to_owned(),
                    });
                }
                Err(error) if not_found(&error) => return Ok(None),
                Err(error) => return Err(failed(format!("can't read {path} in {container}"), error)),
            }
        }
        Ok(first_file(&bytes))
    }

    /// Puts one executable file into the root directory of a container.
    pub async fn put_program(&self, container: &str, name: &str, program: &[u8]) -> Result<(), DriverError> {
        let file = |source| DriverError::File {
            what: "can't pack",
            path: name.into(),
            source,
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(program.len() as u64);
        header.set_mode(0o555);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, name, program).map_err(file)?;
        let bytes = archive.into_inner().map_err(file)?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        self.api
            .upload_to_container(container, Some(options), bollard::body_full(Bytes::from(bytes)))
            .await
            .map_err(|error| failed(format!("can't copy {name} into {container}"), error))
    }
}

fn first_file(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().ok()? {
        let entry = entry.ok()?;
        if entry.header().entry_type().is_file() {
            let mut text = String::new();
            entry.take(MOST).read_to_string(&mut text).ok()?;
            return Some(text);
        }
    }
    None
}
