//! The wire contract and nothing else. Generated types stop at the edge of each program: `TryFrom` on the way in, `From` on the way out
//! (`convert`).

// Generated code carries the comments of the .proto files and none of our lints.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
mod generated {
    tonic::include_proto!("fleet.v1");
}

pub mod convert;

pub use generated::*;

/// Oldest protocol version that this program speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest protocol version that this program speaks.
pub const PROTOCOL_MAX: u32 = 1;
/// The compiled descriptor set; the golden schema test reads it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The newest protocol version both sides speak, or `None`.
pub fn common_protocol(peer_min: u32, peer_max: u32) -> Option<u32> {
    let newest = PROTOCOL_MAX.min(peer_max);
    (newest >= PROTOCOL_MIN && newest >= peer_min).then_some(newest)
}
