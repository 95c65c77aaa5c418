//! The one place that unpacks untrusted archives: verified by digest, capped in entries, bytes and ratio, without links that leave the target,
//! devices, or set-uid files.

mod digest;
mod unpack;

pub use digest::{DigestError, file_sha256_hex, verify_sha256};
pub use unpack::{Limits, UnpackError, Unpacked, unpack_tar_gz};
