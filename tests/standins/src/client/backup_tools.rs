//! `xtrabackup`, `xbcloud` and `qpress`, as they lie in `/usr/bin` beside a MySQL server that PMM backs up.
//!
//! Three programs of other packages, not of the PMM client; one executable plays them, too. A backup takes as long as `/etc/standin/backup-hold`
//! is there. The bucket is the directory `/var/lib/standin-bucket`: a name without `.part` is a backup that was written to its end.

use super::{clock, die_with_parent, out};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

const HOLD: &str = "/etc/standin/backup-hold";
const BUCKET: &str = "/var/lib/standin-bucket";
/// A real backup of an empty server takes about this long.
const SHORTEST: Duration = Duration::from_secs(1);
/// The last bytes of a whole stream.
const END: &[u8] = b"XBSTCK-END\n";

/// Plays one of the programs; `None` for any other name.
pub fn main(program: &str, args: &[String]) -> Option<u8> {
    let versions = args.iter().any(|a| a == "--version" || a == "-v");
    match program {
        "xtrabackup" | "xbcloud" | "qpress" if versions => {
            out::line(&format!(
                "{program} version 8.0.35-30 based on MySQL server 8.0.35 Linux (x86_64)"
            ));
            Some(0)
        }
        "xtrabackup" => Some(xtrabackup()),
        "xbcloud" => Some(xbcloud(args)),
        "qpress" => Some(0),
        _ => None,
    }
}

fn xtrabackup() -> u8 {
    die_with_parent();
    let started = Instant::now();
    let mut stream = std::io::stdout();
    loop {
        if stream
            .write_all(b"XBSTCK01 ibdata1\n")
            .and_then(|()| stream.flush())
            .is_err()
        {
            out::error("xtrabackup: [ERROR] the stream is closed");
            return 1;
        }
        if started.elapsed() >= SHORTEST && !Path::new(HOLD).exists() {
            break;
        }
        clock::pause(Duration::from_millis(200));
    }
    match stream.write_all(END).and_then(|()| stream.flush()) {
        Ok(()) => {
            out::error("xtrabackup: completed OK!");
            0
        }
        Err(_) => 1,
    }
}

fn xbcloud(args: &[String]) -> u8 {
    die_with_parent();
    let Some(name) = args.last().filter(|name| !name.starts_with('-')) else {
        return 1;
    };
    let whole = Path::new(BUCKET).join(name.replace('/', "_"));
    match store(&whole) {
        Ok(true) => 0,
        Ok(false) => {
            out::error("xbcloud: the stream ended early");
            1
        }
        Err(e) => {
            out::error(&format!("xbcloud: {}: {e}", whole.display()));
            1
        }
    }
}

/// Copies the stream; whether it was whole.
fn store(whole: &Path) -> std::io::Result<bool> {
    let part = whole.with_extension("part");
    let mut file = std::fs::File::create(&part)?;
    let (mut input, mut last, mut chunk) = (std::io::stdin(), Vec::new(), [0_u8; 8192]);
    loop {
        let count = input.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        file.write_all(&chunk[..count])?;
        last.extend_from_slice(&chunk[..count]);
        let keep = last.len().saturating_sub(END.len());
        last.drain(..keep);
    }
    if last != END {
        return Ok(false);
    }
    std::fs::rename(part, whole)?;
    Ok(true)
}
