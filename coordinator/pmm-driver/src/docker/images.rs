//! Images: resolving a tag to a digest at the registry, pulling by digest, looking inside.

use super::{Docker, failed, not_found};
use crate::error::DriverError;
use bollard::query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder};
use fleet_common::codes;
use fleet_common::version::PmmVersion;
use futures_util::StreamExt;
use serde_json::{Value, json};
use server_upgrade::image::{VERSION_FILES, split_reference, version_in_file, version_in_labels};

/// What a tag stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// `sha256:...`: of the manifest at the registry, or the id of an image that only the engine has.
    pub digest: String,
    /// From the registry, not only from the engine.
    pub from_registry: bool,
}

impl Docker {
    /// `docker image inspect`, as the engine gives it.
    pub async fn image(&self, reference: &str) -> Result<Option<Value>, DriverError> {
        self.get_raw(&format!("/images/{reference}/json")).await
    }

    /// Asks the registry, through the engine, for the digest of a tag. An engine that can't reach it but has an image of this tag
    /// (air-gapped, loaded by hand) is good enough.
    pub async fn resolve(&self, repository: &str, version: PmmVersion) -> Result<Resolved, DriverError> {
        let reference = format!("{repository}:{version}");
        let error = match self.api.inspect_registry_image(&reference, None).await {
            Ok(answer) => match answer.descriptor.digest {
                Some(digest) => {
                    return Ok(Resolved {
                        digest,
                        from_registry: true,
                    });
                }
                None => {
                    return Err(DriverError::Answer {
                        what: reference,
                        message: "the registry gives no digest".to_owned(),
                    });
                }
            },
            Err(error) => error,
        };
        match self.image(&reference).await? {
            Some(image) => Ok(Resolved {
                digest: image["Id"].as_str().unwrap_or_default().to_owned(),
                from_registry: false,
            }),
            None => Err(failed(format!("the registry has no {reference}"), error)),
        }
    }

    /// Pulls by digest, verifies it and gives the image the tag `repository:version`. Returns the image's id.
    pub async fn pull(
        &self,
        repository: &str,
        version: PmmVersion,
        resolved: &Resolved,
    ) -> Result<String, DriverError> {
        let tagged = format!("{repository}:{version}");
        if !resolved.from_registry {
            return Ok(resolved.digest.clone());
        }
        let pinned = format!("{repository}@{}", resolved.digest);
        if self.image(&pinned).await?.is_none() {
            let options = CreateImageOptionsBuilder::default().from_image(&pinned).build();
            let mut stream = Box::pin(self.api.create_image(Some(options), None, None));
            while let Some(part) = stream.next().await {
                let part = part.map_err(|error| failed(format!("can't pull {pinned}"), error))?;
                if let Some(problem) = part.error_detail.and_then(|detail| detail.message) {
                    return Err(DriverError::state(
                        codes::DOCKER,
                        format!("can't pull {pinned}: {problem}"),
                    ));
                }
            }
        }
        let image = self.image(&pinned).await?.unwrap_or_default();
        let verified = image["RepoDigests"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|one| *one == json!(pinned));
        if !verified {
            return Err(DriverError::state(
                codes::DOCKER,
                format!("the engine has no image {pinned} after pulling it"),
            ));
        }
        let id = image["Id"].as_str().unwrap_or_default().to_owned();
        let tag = version.to_string();
        let options = TagImageOptionsBuilder::default()
            .repo(repository)
            .tag(&tag)
            .build();
        self.api
            .tag_image(&id, Some(options))
            .await
            .map_err(|error| failed(format!("can't tag {tagged}"), error))?;
        Ok(id)
    }

    /// The release that an image was built as: a file inside of it, else its labels, else its tag. A throw-away container, which is
    /// never started, lends its file system.
    pub async fn image_version(
        &self,
        id: &str,
        reference: &str,
        probe_name: &str,
    ) -> Result<Option<PmmVersion>, DriverError> {
        self.remove_container(probe_name).await?;
        let body = json!({"Image": id, "Cmd": ["/none"], "Labels": {server_upgrade::names::LABEL_MANAGED: "true",
            server_upgrade::names::LABEL_ROLE: "probe"}, "HostConfig": {"NetworkMode": "none"}});
        let mut found = None;
        if self.create_container(probe_name, &body).await.is_ok() {
            for path in VERSION_FILES {
                found = match self.read_file(probe_name, path).await {
                    Ok(text) => text.as_deref().and_then(version_in_file),
                    Err(_) => None,
                };
                if found.is_some() {
                    break;
                }
            }
            self.remove_probe(probe_name).await?;
        }
        if found.is_none() {
            let image = self.image(id).await?.unwrap_or_default();
            found = version_in_labels(&image["Config"]);
        }
        Ok(found.or_else(|| split_reference(reference).1?.parse().ok()))
    }

    /// The probe may have got an anonymous volume from the image; nothing was ever written to it.
    async fn remove_probe(&self, name: &str) -> Result<(), DriverError> {
        let options = bollard::query_parameters::RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match self.api.remove_container(name, Some(options)).await {
            Err(error) if !not_found(&error) => Err(failed(format!("can't remove {name}"), error)),
            _ => Ok(()),
        }
    }
}
