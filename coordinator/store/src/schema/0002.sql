-- A key that a host asked to change to. Its first use in a session makes it the host's key.
ALTER TABLE hosts ADD COLUMN candidate_key_sha256 TEXT;
ALTER TABLE hosts ADD COLUMN candidate_serial TEXT;

CREATE UNIQUE INDEX hosts_candidate ON hosts(candidate_key_sha256) WHERE candidate_key_sha256 IS NOT NULL;

-- Keys that hosts had before. They are accepted nowhere, also not for joining.
CREATE TABLE former_keys (
    key_sha256 TEXT PRIMARY KEY,
    host_id TEXT NOT NULL REFERENCES hosts(host_id),
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
