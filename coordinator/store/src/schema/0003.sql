-- What agents showed that this store can't have given: it was restored from a backup, or an older copy of it was started. One row for each
-- host; nothing begins while there is any.
CREATE TABLE restored_evidence (
    host_id TEXT PRIMARY KEY REFERENCES hosts(host_id),
    term INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    session_number INTEGER NOT NULL,
    -- Highest session number that this store remembers to have given to the host.
    session_given INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The host may show once a session number or acknowledgements that this store does not know: an operator adopted the store since the host was last here.
ALTER TABLE hosts ADD COLUMN adopted INTEGER NOT NULL DEFAULT 0;
