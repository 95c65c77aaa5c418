-- Facts of the installation: `term`, ...
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE hosts (
    host_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    group_label TEXT NOT NULL,
    -- SHA-256 over the public key: the same key is the same host.
    key_sha256 TEXT NOT NULL UNIQUE,
    certificate_serial TEXT NOT NULL,
    enrolled_at_ms INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0,
    quarantined TEXT,
    held TEXT,
    -- Highest number given out, and the highest that the agent is known to have stored.
    session_given INTEGER NOT NULL DEFAULT 0,
    session_confirmed INTEGER NOT NULL DEFAULT 0,
    last_seen_ms INTEGER NOT NULL DEFAULT 0,
    agent_version TEXT NOT NULL DEFAULT '',
    boot_id TEXT NOT NULL DEFAULT '',
    inventory_sha256 TEXT NOT NULL DEFAULT '',
    inventory BLOB,
    inventory_at_ms INTEGER NOT NULL DEFAULT 0,
    survey BLOB,
    survey_at_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE tokens (
    token_id TEXT PRIMARY KEY,
    secret_sha256 TEXT NOT NULL,
    group_label TEXT NOT NULL,
    uses INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE token_uses (
    token_id TEXT NOT NULL REFERENCES tokens(token_id),
    key_sha256 TEXT NOT NULL,
    host_id TEXT NOT NULL REFERENCES hosts(host_id),
    PRIMARY KEY (token_id, key_sha256)
) STRICT, WITHOUT ROWID;

-- How far each agent's outbox is committed.
CREATE TABLE outboxes (
    host_id TEXT NOT NULL,
    outbox_id TEXT NOT NULL,
    acknowledged INTEGER NOT NULL,
    PRIMARY KEY (host_id, outbox_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE host_events (
    host_id TEXT NOT NULL,
    outbox_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    order_id TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    body BLOB NOT NULL,
    -- Why the event was not understood or not legal; it is kept and acknowledged all the same.
    rejected TEXT,
    PRIMARY KEY (host_id, outbox_id, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE plans (
    plan_id TEXT PRIMARY KEY,
    parent TEXT,
    created_at_ms INTEGER NOT NULL,
    document BLOB NOT NULL,
    -- The fleet file as it was read.
    fleet_path TEXT NOT NULL,
    fleet_text BLOB NOT NULL
) STRICT;

CREATE TABLE rollouts (
    rollout_id TEXT PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES plans(plan_id),
    started_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER,
    -- As it stood at the end.
    report BLOB,
    last_sequence INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE rollout_rows (
    rollout_id TEXT NOT NULL REFERENCES rollouts(rollout_id),
    key TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (rollout_id, key)
) STRICT, WITHOUT ROWID;

-- Numbered per rollout, so that a reader can follow without a global row id.
CREATE TABLE rollout_events (
    rollout_id TEXT NOT NULL REFERENCES rollouts(rollout_id),
    sequence INTEGER NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (rollout_id, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
