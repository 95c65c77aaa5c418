//! The fleet file as typed: every key optional and with its place, so that validation can name all faults at once with their lines.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;

pub(in crate::fleet) type Text = Option<Spanned<String>>;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct File {
    #[serde(default)]
    pub server: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    pub clients: Option<Spanned<Clients>>,
    #[serde(default)]
    pub defaults: Option<Policy>,
    #[serde(default)]
    pub timing: Option<Timing>,
    #[serde(default)]
    pub compatibility: Option<Compatibility>,
    #[serde(default)]
    pub group: Vec<Spanned<Group>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Compatibility {
    pub file: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Server {
    pub name: Text,
    pub url: Text,
    pub credential_file: Text,
    pub ca_file: Text,
    pub fingerprint: Text,
    pub docker: Option<Docker>,
    pub image_repository: Text,
    pub target: Text,
    pub pmm2_update: Text,
    pub pmm2_clients: Option<Pmm2Clients>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Docker {
    pub endpoint: Text,
    pub container: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Pmm2Clients {
    pub bridge: Text,
    pub accept_gap: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Clients {
    pub target: Text,
    pub source: Option<Source>,
    pub repository_url: Text,
    pub tarball: Option<Tarball>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Source {
    pub percona_repository: Text,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Tarball {
    pub url: Text,
    #[serde(default)]
    pub sha256: BTreeMap<String, Spanned<String>>,
}

/// What stands in `[defaults]`, and in each group for that group.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Policy {
    pub canaries: Option<Spanned<Number>>,
    pub max_unavailable: Option<Spanned<Number>>,
    pub failure_threshold: Option<Spanned<Number>>,
    pub on_breach: Text,
    pub soak: Text,
    pub approval: Option<bool>,
    pub window: Option<Spanned<toml::Value>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Group {
    pub name: Text,
    #[serde(rename = "match")]
    pub matches: Option<Spanned<Match>>,
    #[serde(default)]
    pub after: Vec<Spanned<String>>,
    pub canaries: Option<Spanned<Number>>,
    pub max_unavailable: Option<Spanned<Number>>,
    pub failure_threshold: Option<Spanned<Number>>,
    pub on_breach: Text,
    pub soak: Text,
    pub approval: Option<bool>,
    pub window: Option<Spanned<toml::Value>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Match {
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub names: Vec<String>,
    pub environment: Option<String>,
    pub cluster: Option<String>,
    pub replication_set: Option<String>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Timing {
    pub permit: Text,
    pub preflight: Text,
    pub stage: Text,
    pub switch: Text,
    pub verify: Text,
    pub rollback: Text,
    pub lost_after: Text,
    pub offline_for: Text,
    pub survey_max_age: Text,
    pub reminder: Text,
    pub backup_for: Text,
}

/// A whole number or a text such as `"10%"`.
#[derive(Clone, Debug)]
pub(in crate::fleet) enum Number {
    Int(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a percentage such as \"10%\"")
            }
            fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                Ok(Number::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
                Ok(Number::Int(i64::try_from(value).unwrap_or(i64::MAX)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Number, E> {
                Ok(Number::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// `[server]` or `[[server]]`.
#[derive(Debug)]
pub(in crate::fleet) struct OneOrMany(pub Vec<Server>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a [server] table or a [[server]] list")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany, A::Error> {
                Server::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(OneOrMany(all))
            }
        }
        deserializer.deserialize_any(V)
    }
}
