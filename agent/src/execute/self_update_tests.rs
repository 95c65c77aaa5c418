#![allow(clippy::unwrap_used)]
use super::*;

// A signature as `minisign -S` makes it, of a key that was thrown away.
const FILE: &str = "pmm-upgrade-agent_0.2.0_amd64.deb";
const BYTES: &[u8] = b"a package of the agent";
const KEY: &str = "RWRmbGVldGtleQtGnJAh/y8zL9pPcuCp4dbFOgwEIoude5s2uE7zx19B";
const OTHER_KEY: &str = "RWRvdGhlcmtleUHoHubupDkdUXWGGu71vwJe8UHZBPVy/kAyzR1yR8wa";
const SIGNATURE: &str = "untrusted comment: signature from a test key\nRURmbGVldGtlefU/8FQMkUjEQ3ADCs537ucHifQH9uOj/lXTD4MceRWKe4NpZJ8wSPvEOkw8IrgnKQMw/LSN2GwU4wYs8RgXgQw=\ntrusted comment: timestamp:1700000000\tfile:pmm-upgrade-agent_0.2.0_amd64.deb\thashed\nk4+RXMu8X+baUSbC1cPiqqjXjaQu6LfWO6D+Vy+5DxKWN6LAwdlmp0AGMcMv9u/KBtuHlORPt08iBVAw+E/UAg==\n";

fn release() -> AgentRelease {
    AgentRelease {
        version: "0.2.0".into(),
        file: FILE.into(),
        sha256: fleet_common::digest::sha256_hex(BYTES),
        length: BYTES.len() as u64,
        signature: SIGNATURE.into(),
    }
}

#[test]
fn only_a_listed_key_over_these_bytes_under_this_name() {
    let keys = vec![OTHER_KEY.to_owned(), KEY.to_owned()];
    signed(&release(), &keys, BYTES).unwrap();
    let refused =
        |release: &AgentRelease, keys: &[String], bytes: &[u8]| signed(release, keys, bytes).unwrap_err();
    assert!(refused(&release(), &[OTHER_KEY.to_owned()], BYTES).contains("agent_keys"));
    assert!(refused(&release(), &[], BYTES).contains("agent_keys"));
    assert!(refused(&release(), &keys, b"other bytes").contains("agent_keys"));
    assert!(refused(&release(), &["nonsense".to_owned()], BYTES).contains("agent_keys"));
    // An older file with its own good signature, offered as a newer release.
    let renamed = AgentRelease {
        file: "pmm-upgrade-agent_0.3.0_amd64.deb".into(),
        ..release()
    };
    assert!(refused(&renamed, &keys, BYTES).contains("trusted comment"));
    let torn = AgentRelease {
        signature: SIGNATURE[..40].into(),
        ..release()
    };
    assert!(refused(&torn, &keys, BYTES).contains("can't be read"));
    let lying = AgentRelease {
        signature: SIGNATURE.replace("file:", "File:"),
        ..release()
    };
    assert!(
        refused(&lying, &keys, BYTES).contains("agent_keys"),
        "the comment is signed, too"
    );
}
