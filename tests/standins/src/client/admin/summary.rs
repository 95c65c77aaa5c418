//! `pmm-admin summary`: an archive of diagnostics. It holds the configuration with its secrets, as the real one does.

use super::{Context, Printed};
use serde_json::json;
use std::io::Write;

/// Writes the archive as an uncompressed zip file.
pub fn run(context: &Context) -> Result<Printed, String> {
    let host = crate::client::agent::setup::hostname();
    let name = context
        .flags
        .get("filename")
        .unwrap_or_else(|| format!("summary_{host}.zip"));
    let status = context.local_status(false)?;
    let file = status["config_filepath"].as_str().unwrap_or_default().to_string();
    let entries = [
        (
            "client/status.json",
            serde_json::to_vec_pretty(&status).unwrap_or_default(),
        ),
        (
            "client/pmm-agent-config.yaml",
            std::fs::read(&file).unwrap_or_default(),
        ),
        (
            "client/pmm-admin-version.txt",
            context.release.text("pmm-admin").into_bytes(),
        ),
    ];
    let archive = zip(&entries);
    std::fs::File::create(&name)
        .and_then(|mut f| f.write_all(&archive))
        .map_err(|e| format!("open {name}: {e}"))?;
    Ok(Printed {
        text: format!("{name} created."),
        json: json!({"filename": name}),
    })
}

/// A zip archive with stored entries.
fn zip(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    for (name, content) in entries {
        let offset = size(out.len());
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc32(content).to_le_bytes());
        common.extend(size(content.len()));
        common.extend(size(content.len()));
        common.extend(u16::try_from(name.len()).unwrap_or_default().to_le_bytes());
        common.extend([0, 0]);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(content);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset);
        directory.extend(name.as_bytes());
    }
    let start = size(out.len());
    let length = size(directory.len());
    let count = u16::try_from(entries.len()).unwrap_or_default().to_le_bytes();
    out.extend(directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend(count);
    out.extend(count);
    out.extend(length);
    out.extend(start);
    out.extend([0, 0]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_known_word() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn an_archive_ends_with_its_directory() {
        let bytes = zip(&[("a", b"x".to_vec())]);
        assert!(bytes.starts_with(b"PK\x03\x04"));
        assert_eq!(&bytes[bytes.len() - 22..bytes.len() - 18], b"PK\x05\x06");
    }
}
